"""Reading a run's events (Server-Sent Events) in a way that survives broken connections; sends nothing itself."""

from __future__ import annotations

import msgspec

from yunmo.client.call import Call, decoder
from yunmo.core.errors import DeadlineExceeded, Unavailable, YunmoError
from yunmo.core.events import RUN_ENDINGS, AnyEvent, Envelope

_TAGS = {kind.__struct_config__.tag for kind in AnyEvent.__args__}
_decode = decoder(Envelope)


class EventReader:
    """Where reading a run's events stands: what to ask for next, and when to give up.

    Args:
        path: of the events, below the base URL.
        after: sequence number after which to begin; 0: from the first event.
        patience: how often in a row a broken connection is opened again.
    """

    def __init__(self, path: str, *, after: int = 0, patience: int = 8) -> None:
        self._path = path
        self._last = after
        self._patience = patience
        self._failures = 0
        self._lines: list[str] = []
        self._ending = False

    @property
    def ended(self) -> bool:
        """Whether the last event read is one with which runs end; a run that is resumed then goes on after it."""
        return self._ending

    def request(self) -> Call[None]:
        """Return the request for all events after the last one read.

        The service says every 15 seconds that it is still there: a longer silence is a broken connection.
        """
        headers = {"accept": "text/event-stream", "last-event-id": str(self._last)}
        return Call("GET", self._path, lambda _: None, headers=headers)

    def feed(self, line: str) -> Envelope | None:
        """Take one line of the stream and return the event that it completes, if it does.

        An event of a kind that this client does not know (a newer service's) is passed over; so is one that was
        read before.
        """
        if line.startswith("data:"):
            self._lines.append(line[5:].removeprefix(" "))
        if line or not self._lines:
            return None
        data, self._lines = "\n".join(self._lines).encode(), []
        if not _known(data):
            return None
        envelope = _decode(data)
        if envelope.sequence <= self._last:
            return None
        self._last, self._failures = envelope.sequence, 0
        self._ending = isinstance(envelope.event, RUN_ENDINGS)
        return envelope

    def wait(self, error: YunmoError | None) -> float:
        """Return the seconds to wait before asking again after a broken or ended connection.

        Raises:
            YunmoError: the error itself, if it is no matter of the connection or has come too often in a row.
        """
        if error is not None and not isinstance(error, (Unavailable, DeadlineExceeded)):
            raise error
        self._lines = []
        self._failures += 1
        if self._failures > self._patience:
            raise error or Unavailable("the events end before the run does", where=self._path)
        return float(min(0.1 * 2 ** (self._failures - 1), 5.0))


class _Kind(msgspec.Struct):
    event: str


class _Peek(msgspec.Struct):
    event: _Kind


_peek = msgspec.json.Decoder(_Peek).decode


def _known(data: bytes) -> bool:
    try:
        return _peek(data).event.event in _TAGS
    except msgspec.MsgspecError:
        return True  # the full decoder says what is wrong with it
