"""The server's side of HTTP/2, driven by h2 and byte by byte."""

from __future__ import annotations

import struct

import h2.events
import h2.settings
import pytest
from tests.unit.serving.http2.peer import REQUEST, Peer, Server

from yunmo.serving.http2 import connection as limits
from yunmo.serving.http2 import frames
from yunmo.serving.http2.frames import PREFACE, Reason, frame, header_block
from yunmo.serving.http2.stream import WINDOW

GREETED = PREFACE + frame(frames.SETTINGS, 0, 0)
BLOCK = header_block(((":method", "POST"), (":scheme", "http"), (":path", "/x")))
OPEN = frames.END_HEADERS
WHOLE = frames.END_HEADERS | frames.END_STREAM


def told(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Take frames apart: type, flags, stream, payload."""
    found = []
    while data:
        high, low, kind, flags, stream = frames.HEAD.unpack_from(data)
        size = high << 8 | low
        found.append((kind, flags, stream, data[9 : 9 + size]))
        data = data[9 + size :]
    return found


def reason(data: bytes) -> Reason:
    """Return why a connection was ended."""
    (goaway,) = [payload for kind, _, _, payload in told(data) if kind == frames.GOAWAY]
    return Reason(struct.unpack(">II", goaway)[1])


@pytest.mark.parametrize("step", [None, 1, 7])
@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 300_000])
def test_requests_are_answered_in_whatever_pieces_they_come(size: int, step: int | None) -> None:
    peer = Peer().begin()
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    number = peer.h2.get_next_available_stream_id()
    peer.h2.send_headers(number, REQUEST)
    rest = body
    while rest:
        some = min(len(rest), peer.h2.local_flow_control_window(number), 16_384)
        assert some, "the server must allow more"
        peer.h2.send_data(number, rest[:some])
        rest = rest[some:]
        peer.exchange(step)
        for event in peer.of(h2.events.DataReceived):
            peer.h2.acknowledge_received_data(event.flow_controlled_length, number)
    peer.h2.end_stream(number)
    peer.exchange(step)
    while not peer.of(h2.events.StreamEnded, number):
        done = len(peer.events)
        for event in peer.of(h2.events.DataReceived, number):
            peer.h2.acknowledge_received_data(event.flow_controlled_length, number)
            event.flow_controlled_length = 0
        peer.exchange(step)
        assert len(peer.events) > done
    assert peer.data(number) == body
    assert peer.of(h2.events.TrailersReceived, number)[0].headers == [("grpc-status", "0")]
    assert peer.server.exchanges[number].ends == ["received"]


def test_streams_are_answered_in_any_order_each_with_its_own() -> None:
    server = Server()
    server.later = True
    peer = Peer(server).begin()
    numbers = [peer.ask(b"%d" % index) for index in range(50)]
    for number in reversed(numbers):
        server.exchanges[number].answer()
    peer.exchange()
    assert [peer.data(number) for number in numbers] == [b"%d" % index for index in range(50)]


def test_an_answer_waits_for_the_windows_of_stream_and_connection() -> None:
    peer = Peer().begin()
    peer.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10})
    peer.exchange()
    number, other = peer.ask(b"x" * 100), peer.ask(b"y" * 100)
    assert (len(peer.data(number)), len(peer.data(other))) == (10, 10)
    peer.h2.increment_flow_control_window(70, number)
    peer.exchange()
    assert (len(peer.data(number)), len(peer.data(other))) == (80, 10)
    peer.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 40})
    peer.exchange()
    assert peer.data(number) == b"x" * 100
    assert len(peer.data(other)) == 40
    assert peer.of(h2.events.StreamEnded, number)
    assert not peer.of(h2.events.StreamEnded, other)
    peer.h2.increment_flow_control_window(1000, other)
    peer.exchange()
    assert peer.data(other) == b"y" * 100


def test_a_client_that_takes_nothing_is_cut_off() -> None:
    peer = Peer().begin()
    peer.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    peer.exchange()
    number = peer.ask()
    peer.beat(limits.STALLED_SECONDS)
    assert peer.transport.closed is None
    peer.beat(2)
    assert peer.transport.closed == "aborted"
    peer.connection.connection_lost(None)
    assert peer.server.exchanges[number].ends == ["received", "gone"]


def test_who_does_not_read_is_not_read_from() -> None:
    peer = Peer().begin()
    peer.connection.pause_writing()
    assert not peer.transport.reading
    peer.connection.resume_writing()
    assert peer.transport.reading
    peer.connection.pause_writing()
    peer.beat(limits.STALLED_SECONDS + 1)
    assert peer.transport.closed == "aborted"


def test_trailers_padding_priority_and_continuations_are_understood() -> None:
    peer = Peer()
    peer.raw(GREETED)
    padded = frame(frames.HEADERS, frames.PADDED | frames.WITH_PRIORITY, 1, b"\3" + bytes(5) + BLOCK[:4] + bytes(3))
    rest = frame(frames.CONTINUATION, 0, 1, BLOCK[4:9]) + frame(frames.CONTINUATION, OPEN, 1, BLOCK[9:])
    data = frame(frames.DATA, frames.PADDED, 1, b"\2abc" + bytes(2)) + frame(frames.DATA, 0, 1, b"def")
    trailers = frame(frames.HEADERS, WHOLE, 1, header_block((("x", "y"),)))
    said = told(peer.raw(padded + rest + data + trailers))
    assert peer.server.exchanges[1].stream.head.path == "/x"
    assert (frames.DATA, 0, 1, b"abcdef") in said


def test_extensions_are_ignored() -> None:
    peer = Peer()
    peer.raw(GREETED + frame(0xA7, 0xFF, 3, b"grease") + frame(frames.SETTINGS, 0, 0, struct.pack(">HI", 0xAAAA, 7)))
    assert peer.transport.closed is None


def test_a_body_over_the_limit_is_refused_before_its_end() -> None:
    peer = Peer(Server(limit=1000)).begin()
    number = peer.h2.get_next_available_stream_id()
    peer.h2.send_headers(number, REQUEST)
    peer.h2.send_data(number, b"x" * 1001)
    peer.exchange()
    (answer,) = peer.of(h2.events.ResponseReceived, number)
    assert (":status", "400") in answer.headers
    (ended,) = peer.of(h2.events.StreamReset, number)
    assert ended.error_code == Reason.NO_ERROR
    assert peer.server.exchanges[number].ends == ["too large"]
    assert peer.data(peer.ask(b"next")) == b"next"


def test_what_comes_after_the_refusal_is_thrown_away() -> None:
    peer = Peer(Server(limit=10))
    peer.raw(GREETED + frame(frames.HEADERS, OPEN, 1, BLOCK) + frame(frames.DATA, 0, 1, bytes(11)))
    peer.raw(frame(frames.DATA, 0, 1, bytes(16_384)) + frame(frames.HEADERS, WHOLE, 1, header_block((("x", "y"),))))
    assert peer.transport.closed is None
    assert peer.server.exchanges[1].ends == ["too large"]


def test_a_reset_frees_the_stream_and_nobody_else_notices() -> None:
    server = Server()
    server.later = True
    peer = Peer(server).begin()
    gone, stays = peer.ask(b"a"), peer.ask(b"b")
    peer.h2.reset_stream(gone)
    peer.exchange()
    assert server.exchanges[gone].ends == ["received", "gone"]
    server.exchanges[gone].answer()  # too late, to nobody
    server.exchanges[stays].answer()
    peer.exchange()
    assert peer.data(stays) == b"b"
    assert not peer.data(gone)


def test_more_streams_than_allowed_are_refused_and_can_be_sent_again() -> None:
    server = Server()
    server.later = True
    peer = Peer(server)
    many = b"".join(frame(frames.HEADERS, WHOLE, 2 * n + 1, BLOCK) for n in range(limits.STREAMS + 2))
    said = told(peer.raw(GREETED + many))
    resets = [(stream, payload) for kind, _, stream, payload in said if kind == frames.RST_STREAM]
    refused = struct.pack(">I", Reason.REFUSED_STREAM)
    assert resets == [(2 * limits.STREAMS + 1, refused), (2 * limits.STREAMS + 3, refused)]
    assert len(server.exchanges) == limits.STREAMS


def test_only_the_oldest_gets_on_when_too_much_is_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUFFERED", 2 * WINDOW)
    peer = Peer(Server(limit=100 * WINDOW)).begin()
    numbers = []
    for _ in range(4):
        numbers.append(peer.h2.get_next_available_stream_id())
        peer.h2.send_headers(numbers[-1], REQUEST)
    sent = dict.fromkeys(numbers, 0)
    for _ in range(200):
        for number in numbers:
            if size := min(peer.h2.local_flow_control_window(number), 16_384):
                peer.h2.send_data(number, bytes(size))
                sent[number] += size
        peer.exchange()
    assert sent[numbers[0]] == 200 * 16_384
    assert all(sent[number] <= 3 * WINDOW for number in numbers[1:])
    peer.h2.end_stream(numbers[0])
    peer.exchange()
    assert peer.h2.local_flow_control_window(numbers[1]) > 0


def test_stopping_answers_what_is_there_and_what_is_on_its_way() -> None:
    server = Server()
    server.later = True
    peer = Peer(server)
    peer.raw(GREETED + frame(frames.HEADERS, WHOLE, 1, BLOCK))
    peer.connection.stop()
    (begun, ping) = told(peer.raw(frame(frames.HEADERS, WHOLE, 3, BLOCK)))  # it has not heard yet
    assert struct.unpack(">II", begun[3]) == (frames.MAX_WINDOW, Reason.NO_ERROR)
    assert ping[0] == frames.PING
    (ended,) = told(peer.raw(frame(frames.PING, frames.ACK, 0, ping[3])))
    assert struct.unpack(">II", ended[3]) == (3, Reason.NO_ERROR)
    (refused,) = told(peer.raw(frame(frames.HEADERS, WHOLE, 5, BLOCK)))  # it has heard, and sends it elsewhere
    assert refused == (frames.RST_STREAM, 0, 5, struct.pack(">I", Reason.REFUSED_STREAM))
    assert set(server.exchanges) == {1, 3}
    for number in (3, 1):
        assert peer.transport.closed is None
        server.exchanges[number].answer(b"late")
    assert [stream for kind, _, stream, data in told(bytes(peer.transport.sent)) if data == b"late"] == [3, 1]
    assert peer.transport.closed == "closed"


def test_stopping_does_not_wait_for_a_client_that_answers_no_ping() -> None:
    peer = Peer()
    peer.raw(GREETED)
    peer.connection.stop()
    peer.server.tick += 2
    peer.connection.look(peer.server.tick)
    assert peer.transport.closed == "closed"


def test_times() -> None:
    silent = Peer()
    for tick in range(1, limits.HANDSHAKE_SECONDS + 2):
        silent.connection.look(tick)
    assert silent.transport.closed == "aborted"
    idle = Peer().begin().beat(limits.IDLE_SECONDS)
    assert idle.transport.closed is None
    assert idle.beat(1).transport.closed == "closed"
    slow = Peer().begin()
    slow.h2.send_headers(1, REQUEST)
    slow.exchange().beat(limits.BODY_SECONDS + 1)
    assert slow.server.exchanges[1].ends == ["slow"]
    half = Peer()
    half.raw(GREETED + frame(frames.HEADERS, 0, 1, BLOCK))
    for tick in range(1, limits.HANDSHAKE_SECONDS + 2):
        half.connection.look(tick)
    assert reason(bytes(half.transport.sent)) == Reason.ENHANCE_YOUR_CALM


def test_who_waits_and_is_silent_is_asked_whether_it_is_there() -> None:
    server = Server()
    server.later = True
    peer = Peer(server).begin()
    peer.ask()
    peer.beat(10 * limits.SILENT_SECONDS)  # h2 answers pings
    assert peer.transport.closed is None
    for _ in range(limits.SILENT_SECONDS + limits.PING_SECONDS + 2):
        server.tick += 1
        peer.connection.look(server.tick)
    assert peer.transport.closed == "aborted"


CALM, PROTOCOL, SIZE = Reason.ENHANCE_YOUR_CALM, Reason.PROTOCOL_ERROR, Reason.FRAME_SIZE_ERROR
STREAM = GREETED + frame(frames.HEADERS, OPEN, 1, BLOCK)
MANY = limits.NUISANCES + 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", PROTOCOL),
        (PREFACE[:-1] + b"x", PROTOCOL),
        (PREFACE + frame(frames.PING, 0, 0, bytes(8)), PROTOCOL),
        (PREFACE + frame(frames.SETTINGS, frames.ACK, 0), PROTOCOL),
        (GREETED + frame(frames.SETTINGS, 0, 1), PROTOCOL),
        (GREETED + frame(frames.SETTINGS, 0, 0, bytes(5)), SIZE),
        (GREETED + frame(frames.SETTINGS, frames.ACK, 0, bytes(6)), SIZE),
        (GREETED + frame(frames.SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31)), Reason.FLOW_CONTROL_ERROR),
        (GREETED + frame(frames.SETTINGS, 0, 0, struct.pack(">HI", 5, 100)), PROTOCOL),
        (GREETED + frame(frames.SETTINGS, 0, 0, struct.pack(">HI", 2, 2)), PROTOCOL),
        (GREETED + frames.frame_head(16_385, frames.DATA, 0, 1), SIZE),
        (GREETED + frame(frames.DATA, 0, 0, b"x"), PROTOCOL),
        (GREETED + frame(frames.DATA, 0, 1, b"x"), PROTOCOL),
        (GREETED + frame(frames.HEADERS, OPEN, 2, BLOCK), PROTOCOL),
        (GREETED + frame(frames.HEADERS, OPEN, 0, BLOCK), PROTOCOL),
        (GREETED + frame(frames.HEADERS, OPEN | frames.PADDED, 1, b"\xff" + BLOCK), PROTOCOL),
        (GREETED + frame(frames.HEADERS, OPEN | frames.PADDED, 1), PROTOCOL),
        (GREETED + frame(frames.HEADERS, OPEN | frames.WITH_PRIORITY, 1, b"abc"), SIZE),
        (GREETED + frame(frames.HEADERS, OPEN, 1, b"\xff\xff\xff\xff\x7f"), Reason.COMPRESSION_ERROR),
        (GREETED + frame(frames.HEADERS, OPEN, 1, b"\x80"), Reason.COMPRESSION_ERROR),
        (GREETED + frame(frames.HEADERS, OPEN, 1, b"\x00\x05a"), Reason.COMPRESSION_ERROR),
        (GREETED + frame(frames.HEADERS, 0, 1, BLOCK) + frame(frames.DATA, 0, 1), PROTOCOL),
        (GREETED + frame(frames.HEADERS, 0, 1, BLOCK) + frame(frames.CONTINUATION, 0, 3), PROTOCOL),
        (GREETED + frame(frames.HEADERS, 0, 1, BLOCK) + frame(frames.CONTINUATION, 0, 1) * 99, CALM),
        (GREETED + frame(frames.HEADERS, 0, 1, b"x" * 9000) + frame(frames.CONTINUATION, 0, 1, b"x" * 9000), CALM),
        (GREETED + frame(frames.CONTINUATION, OPEN, 1, BLOCK), PROTOCOL),
        (STREAM + frame(frames.HEADERS, OPEN, 1, BLOCK), PROTOCOL),
        (STREAM + frame(frames.DATA, frames.PADDED, 1, b"\5abc"), PROTOCOL),
        (STREAM + frame(frames.DATA, 0, 1, bytes(16_384)) * 17, None),
        (STREAM + frame(frames.DATA, 0, 1) * MANY, CALM),
        (STREAM + frame(frames.RST_STREAM, 0, 1, bytes(3)), SIZE),
        (STREAM + frame(frames.RST_STREAM, 0, 3, bytes(4)), PROTOCOL),
        (STREAM + frame(frames.RST_STREAM, 0, 0, bytes(4)), PROTOCOL),
        (STREAM + frame(frames.WINDOW_UPDATE, 0, 1, bytes(4)), PROTOCOL),
        (STREAM + frame(frames.WINDOW_UPDATE, 0, 3, b"\0\0\0\1"), PROTOCOL),
        (STREAM + frame(frames.WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff"), Reason.FLOW_CONTROL_ERROR),
        (STREAM + frame(frames.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), Reason.FLOW_CONTROL_ERROR),
        (STREAM + frame(frames.WINDOW_UPDATE, 0, 0, b"\0"), SIZE),
        (GREETED + frame(frames.PUSH_PROMISE, OPEN, 1, bytes(4)), PROTOCOL),
        (GREETED + frame(frames.PRIORITY, 0, 1, bytes(4)), SIZE),
        (GREETED + frame(frames.PRIORITY, 0, 1, bytes(5)) * MANY, CALM),
        (GREETED + frame(frames.PING, 0, 0, bytes(7)), SIZE),
        (GREETED + frame(frames.PING, 0, 1, bytes(8)), PROTOCOL),
        (GREETED + frame(frames.PING, 0, 0, bytes(8)) * MANY, CALM),
        (GREETED + frame(frames.SETTINGS, 0, 0) * MANY, CALM),
        (GREETED + frame(0x77, 0, 0) * MANY, CALM),
        (
            GREETED
            + b"".join(
                frame(frames.HEADERS, OPEN, 2 * n + 1, BLOCK) + frame(frames.RST_STREAM, 0, 2 * n + 1, bytes(4))
                for n in range(MANY)
            ),
            CALM,
        ),
    ],
)
@pytest.mark.parametrize("step", [0, 1000])
def test_who_breaks_the_protocol_is_told_why(data: bytes, why: Reason | None, step: int) -> None:
    peer = Peer()
    for at in range(0, len(data), step or len(data)):
        peer.connection.data_received(data[at : at + (step or len(data))])
    if why is None:  # within what it may send: windows are topped up as they are used
        assert peer.transport.closed is None
        return
    assert peer.transport.closed == "closed"
    assert reason(bytes(peer.transport.sent)) == why
    assert all(each.ends == ["gone"] for each in peer.server.exchanges.values())


def test_more_than_the_window_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUFFERED", 0)
    peer = Peer()
    peer.raw(STREAM + frame(frames.HEADERS, OPEN, 3, BLOCK))
    data = frame(frames.DATA, 0, 3, bytes(16_384)) * 17
    assert reason(peer.raw(data)) == Reason.FLOW_CONTROL_ERROR


@pytest.mark.parametrize(
    "pairs",
    [
        ((":method", "POST"), (":scheme", "http")),
        ((":method", "POST"), (":scheme", "http"), (":path", "/"), (":path", "/")),
        ((":method", "POST"), (":scheme", "http"), (":path", "/"), (":status", "200")),
        ((":method", "POST"), ("a", "b"), (":scheme", "http"), (":path", "/")),
        ((":method", "POST"), (":scheme", "http"), (":path", "/"), ("A", "b")),
        ((":method", "POST"), (":scheme", "http"), (":path", "/"), ("connection", "close")),
        ((":method", "POST"), (":scheme", "http"), (":path", "/"), ("", "b")),
    ],
)
def test_headers_that_are_no_requests_end_the_stream_only(pairs: tuple[tuple[str, str], ...]) -> None:
    peer = Peer()
    said = peer.raw(GREETED + frame(frames.HEADERS, WHOLE, 1, header_block(pairs)))
    assert (frames.RST_STREAM, 0, 1, struct.pack(">I", Reason.PROTOCOL_ERROR)) in told(said)
    assert not peer.server.exchanges
    peer.raw(frame(frames.HEADERS, WHOLE, 3, BLOCK))
    assert peer.server.exchanges[3].ends == ["received"]
