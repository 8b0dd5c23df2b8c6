import msgspec
import pytest

from yunmo.client.stream import EventReader
from yunmo.core.errors import NotFound, Unavailable
from yunmo.core.events import Envelope, RunCancelled, RunStarted


def lines(sequence: int, event: object) -> list[str]:
    envelope = Envelope(sequence=sequence, id="e", time=1.0, project_id="p", subject="run", event=event)  # type: ignore[arg-type]
    return [f"id: {sequence}", "event: x", f"data: {msgspec.json.encode(envelope).decode()}", ""]


def feed(reader: EventReader, *parts: list[str]) -> list[int]:
    found = [reader.feed(line) for part in parts for line in part]
    return [envelope.sequence for envelope in found if envelope]


def test_events_come_once_and_in_order() -> None:
    reader = EventReader("/x")
    assert feed(reader, lines(1, RunStarted(attempt=1)), [": ping", ""], lines(1, RunStarted(attempt=1))) == [1]
    assert reader.request().headers["last-event-id"] == "1"


def test_half_an_event_before_a_break_is_not_mixed_with_the_next() -> None:
    reader = EventReader("/x")
    feed(reader, lines(1, RunStarted(attempt=1))[:3])
    reader.wait(Unavailable("broken"))
    assert feed(reader, lines(1, RunStarted(attempt=1))) == [1]


def test_an_ending_is_the_end_only_if_nothing_follows() -> None:
    reader = EventReader("/x")
    feed(reader, lines(1, RunCancelled()))
    assert reader.ended
    feed(reader, lines(2, RunStarted(attempt=2)))
    assert not reader.ended


def test_it_gives_up_after_a_while_and_at_once_where_trying_again_is_no_use() -> None:
    reader = EventReader("/x", patience=3)
    waits = [reader.wait(None) for _ in range(3)]
    assert waits == sorted(waits)
    with pytest.raises(Unavailable):
        reader.wait(None)
    with pytest.raises(NotFound):
        EventReader("/x").wait(NotFound("no such run"))


def test_an_event_that_is_damaged_is_an_error() -> None:
    with pytest.raises(Unavailable, match="not what this client understands"):
        feed(EventReader("/x"), ["data: {", ""])
