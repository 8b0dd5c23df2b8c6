"""One connection: frames are read as they arrive, its streams are answered in any order.

A client gets as many streams, bytes and frames without content as honest ones need; whoever wants more is cut off.
"""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final

from yunmo.serving.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD,
    HEADERS,
    MAX_FRAME,
    MAX_WINDOW,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    Http2Error,
    Reason,
    Setting,
    frame,
    frame_head,
    goaway,
    reset,
    settings,
    window_update,
)
from yunmo.serving.http2.headers import MAX_HEADERS, HeaderReader
from yunmo.serving.http2.stream import WINDOW, Stream
from yunmo.serving.listener import Connected, Listener

STREAMS = 256
"""Streams that a connection may have open; clients make the others wait."""
BUFFERED = 32 * 1024 * 1024
"""Bytes of incomplete bodies on a connection from which only the oldest gets on."""
NUISANCES = 2 * STREAMS
"""Frames in a second that bring nothing: resets, pings, settings, empty ones (CVE-2019-9512, -9514, -9515, -9518 and
CVE-2023-44487)."""
DRIBBLE = 64
"""Whoever takes less than so many bytes at a time is a nuisance too (CVE-2019-9511)."""
BLOCK_FRAMES = 16
"""Frames that the headers of a request may come in (CVE-2024-27316)."""
HANDSHAKE_SECONDS = 10
"""For a connection's first frame, and for the rest of a request's headers."""
BODY_SECONDS = 30
"""A client may take to send a whole body."""
IDLE_SECONDS = 300
"""A connection without a request is closed after so long."""
STALLED_SECONDS = 60
"""So long a client may not take anything of its answers."""
SILENT_SECONDS = 60
"""Whoever waits for an answer and says nothing for so long is asked whether it is there,"""
PING_SECONDS = 20
"""and cut off if it says nothing to that either."""

_GREETING: Final = settings(
    {
        Setting.MAX_CONCURRENT_STREAMS: STREAMS,
        Setting.INITIAL_WINDOW_SIZE: WINDOW,
        Setting.MAX_HEADER_LIST_SIZE: MAX_HEADERS,
    }
) + window_update(0, MAX_WINDOW - DEFAULT_WINDOW)
_THERE: Final = b"there?  "
_LAST: Final = b"the last"


class Http2Server(Listener):
    """Serves connections of HTTP/2."""

    def connect(self) -> Connection:
        """See `Listener.connect`."""
        return Connection(self)

    @abstractmethod
    def begin(self, stream: Stream) -> None:
        """Set a new stream's exchange and limit; it may be answered at once."""


class Connection(Connected):
    """A connection.

    Args:
        server: it came to.
    """

    def __init__(self, server: Http2Server) -> None:
        self._server = server
        self._transport: Any = None
        self._rest = b""
        self._greeted = False
        self._settled = False
        self._streams: dict[int, Stream] = {}
        self._highest = 0
        self._reader = HeaderReader()
        self._block: list[bytes] = []
        self._block_of: tuple[int, int] | None = None
        """Stream and flags of headers that go on in the next frame."""
        self._since = server.tick
        """When the connection was last without a stream; while headers go on, when they began."""
        self._heard = server.tick
        self._asked: int | None = None
        self._nuisances = 0
        self._credit = MAX_WINDOW
        self._incomplete = 0
        """Bytes of bodies that are not complete."""
        self._starved: list[Stream] = []
        """Streams that may not send more for now."""
        self._window = DEFAULT_WINDOW
        self._stream_window = DEFAULT_WINDOW
        self._waiting: dict[int, Stream] = {}
        """Streams whose answer waits for the client to take more."""
        self._stalled_since: int | None = None
        self._full = False
        self._last: int | None = None
        """The last stream that is answered; None: the connection is not ending."""
        self._draining: int | None = None
        self._closing = False

    # What the server needs.

    def stop(self) -> None:
        """See `Connected.stop`; streams that are on their way while the client is told are answered too."""
        if not self._settled:
            self._close()
        elif self._draining is None and self._last is None:
            self._draining = self._server.tick
            self._write(goaway(MAX_WINDOW, Reason.NO_ERROR) + frame(PING, 0, 0, _LAST))

    def abort(self) -> None:
        """See `Connected.abort`."""
        if self._transport is not None:
            self._transport.abort()

    def look(self, tick: int) -> None:
        """See `Connected.look`."""
        self._nuisances = 0
        if self._stalled_since is not None and tick - self._stalled_since > STALLED_SECONDS:
            self.abort()
        elif not self._settled:
            if tick - self._since > HANDSHAKE_SECONDS:
                self.abort()
        elif self._block_of is not None:
            if tick - self._since > HANDSHAKE_SECONDS:
                self._fail(Reason.ENHANCE_YOUR_CALM)
        elif self._streams:
            self._look_at_streams(tick)
        elif self._draining is None and tick - self._since > IDLE_SECONDS:
            self._fail(Reason.NO_ERROR)
        if self._draining is not None and tick - self._draining > 1:
            self._drain()

    def _look_at_streams(self, tick: int) -> None:
        for stream in list(self._streams.values()):
            if not stream.complete and tick - stream.since > BODY_SECONDS:
                stream.exchange.slow()
        if self._asked is not None:
            if tick - self._asked > PING_SECONDS:
                self.abort()
        elif tick - self._heard > SILENT_SECONDS:
            self._asked = tick
            self._write(frame(PING, 0, 0, _THERE))

    # What a stream needs.

    def answer(self, stream: Stream, head: bytes, body: bytes, trailers: bytes) -> None:
        """See `Stream.answer`."""
        number = stream.number
        if self._streams.get(number) is not stream or number in self._waiting:
            return
        if not trailers:
            self._write(frame(HEADERS, END_HEADERS | END_STREAM, number, head))
            self._end(stream)
            return
        size = len(body)
        begin = frame(HEADERS, END_HEADERS, number, head)
        if size <= stream.window and size <= self._window and size <= MAX_FRAME:
            self._window -= size
            data = frame_head(size, DATA, 0, number)
            end = frame(HEADERS, END_HEADERS | END_STREAM, number, trailers)
            self._write(b"".join((begin, data, body, end)))
            self._end(stream)
            return
        self._write(begin)
        stream.outgoing, stream.trailers = memoryview(body), trailers
        self._waiting[number] = stream
        self._flush()

    def _flush(self) -> None:
        """Send what the client takes."""
        moved = False
        for stream in list(self._waiting.values()):
            while size := min(len(stream.outgoing), stream.window, self._window, MAX_FRAME):
                moved = True
                self._write(frame_head(size, DATA, 0, stream.number) + stream.outgoing[:size])
                stream.outgoing = stream.outgoing[size:]
                stream.window -= size
                self._window -= size
                if stream.window <= 0 or self._window <= 0:
                    break
            if not stream.outgoing:
                self._write(frame(HEADERS, END_HEADERS | END_STREAM, stream.number, stream.trailers))
                self._end(stream)
        if not self._waiting:
            self._stalled_since = self._server.tick if self._full else None
        elif moved or self._stalled_since is None:
            self._stalled_since = self._server.tick

    def _end(self, stream: Stream) -> None:
        """A stream has its whole answer."""
        if not stream.complete:
            self._write(reset(stream.number, Reason.NO_ERROR))  # nobody reads the rest (RFC 9113, 8.1)
        self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        del self._streams[stream.number]
        self._waiting.pop(stream.number, None)
        if not stream.complete:
            self._incomplete -= stream.size
            self._feed_starved()
        if not self._streams:
            self._since, self._asked = self._server.tick, None
            if self._last is not None:
                self._close()

    def _feed_starved(self) -> None:
        """Let streams that had to wait send more, if there is room again; the oldest always."""
        starved, self._starved = self._starved, []
        for stream in starved:
            if self._streams.get(stream.number) is stream and not stream.complete:
                self._allow_more(stream)

    def _allow_more(self, stream: Stream) -> None:
        if self._incomplete < BUFFERED or stream is next(each for each in self._streams.values() if not each.complete):
            self._write(window_update(stream.number, WINDOW - stream.credit))
            stream.credit = WINDOW
        else:
            self._starved.append(stream)

    # What the transport calls.

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = transport
        if self._server.enter(self):
            self._write(_GREETING)
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._closing:
            return
        self._heard = self._server.tick
        try:
            self._read(self._rest + data if self._rest else data)
        except Http2Error as error:
            self._fail(error.reason)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 (asyncio's)
        """See `asyncio.BaseProtocol`."""
        self._closing = True
        self._server.leave(self)
        self._leave_streams()

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`: who takes no answers gets to ask for no more."""
        self._full = True
        self._stalled_since = self._server.tick
        if not self._closing:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._full = False
        self._stalled_since = self._server.tick if self._waiting else None
        if not self._closing:
            self._transport.resume_reading()

    # What the client sends.

    def _read(self, data: bytes) -> None:
        at, size = 0, len(data)
        if not self._greeted:
            if not PREFACE.startswith(data[: len(PREFACE)]):
                raise Http2Error(Reason.PROTOCOL_ERROR)
            if size < len(PREFACE):
                self._rest = data
                return
            self._greeted, at = True, len(PREFACE)
        while size - at >= HEAD.size:
            high, low, kind, flags, stream = HEAD.unpack_from(data, at)
            length = high << 8 | low
            if length > MAX_FRAME:
                raise Http2Error(Reason.FRAME_SIZE_ERROR)
            at += HEAD.size
            if at + length > size:
                at -= HEAD.size
                break
            self._take(kind, flags, stream & MAX_WINDOW, data[at : at + length])
            at += length
            if self._closing:
                return
        self._rest = data[at:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Take one frame."""
        if self._block_of is not None:
            if kind != CONTINUATION or stream != self._block_of[0]:
                raise Http2Error(Reason.PROTOCOL_ERROR)
        elif not self._settled:
            if kind != SETTINGS or flags & ACK:
                raise Http2Error(Reason.PROTOCOL_ERROR)
            self._settled = True
        if kind < len(_TAKES):
            _TAKES[kind](self, flags, stream, payload)
        else:  # of an extension: to be ignored (RFC 9113, 5.5)
            self._nuisance()

    def _nuisance(self) -> None:
        self._nuisances += 1
        if self._nuisances > NUISANCES:
            raise Http2Error(Reason.ENHANCE_YOUR_CALM)

    def _take_data(self, flags: int, number: int, payload: bytes) -> None:
        self._credit -= len(payload)
        if self._credit < 0:
            raise Http2Error(Reason.FLOW_CONTROL_ERROR)
        if self._credit < MAX_WINDOW // 2:
            self._write(window_update(0, MAX_WINDOW - self._credit))
            self._credit = MAX_WINDOW
        if number == 0 or number > self._highest:
            raise Http2Error(Reason.PROTOCOL_ERROR)
        if not payload and not flags & END_STREAM:
            self._nuisance()
        stream = self._streams.get(number)
        if stream is None:  # it was answered, or reset, while this was on its way
            self._nuisance()
            return
        if stream.complete:
            raise Http2Error(Reason.STREAM_CLOSED)
        stream.credit -= len(payload)
        if stream.credit < 0:
            raise Http2Error(Reason.FLOW_CONTROL_ERROR)
        data = _unpadded(payload) if flags & PADDED else payload
        self._incomplete += len(data)
        stream.feed(data)
        if self._streams.get(number) is not stream:
            return  # too large
        if flags & END_STREAM:
            self._finish(stream)
        elif stream.credit < WINDOW // 2 and stream not in self._starved:
            self._allow_more(stream)

    def _take_headers(self, flags: int, number: int, payload: bytes) -> None:
        if number % 2 == 0:
            raise Http2Error(Reason.PROTOCOL_ERROR)
        if flags & PADDED:
            payload = _unpadded(payload)
        if flags & WITH_PRIORITY:
            if len(payload) < 5:
                raise Http2Error(Reason.FRAME_SIZE_ERROR)
            payload = payload[5:]
        if flags & END_HEADERS:
            self._take_head(flags, number, payload)
        else:
            self._block_of, self._block, self._since = (number, flags), [payload], self._server.tick

    def _take_continuation(self, flags: int, _number: int, payload: bytes) -> None:
        if self._block_of is None:
            raise Http2Error(Reason.PROTOCOL_ERROR)
        self._block.append(payload)
        if len(self._block) > BLOCK_FRAMES or sum(map(len, self._block)) > MAX_HEADERS:
            raise Http2Error(Reason.ENHANCE_YOUR_CALM)
        if flags & END_HEADERS:
            (number, first), self._block_of = self._block_of, None
            self._take_head(first, number, b"".join(self._block))

    def _take_head(self, flags: int, number: int, block: bytes) -> None:
        """Take the whole headers of a request, or the trailers that end it."""
        head = self._reader.read(block)
        stream = self._streams.get(number)
        if stream is not None:
            if stream.complete or not flags & END_STREAM:
                raise Http2Error(Reason.PROTOCOL_ERROR)
            self._finish(stream)
            return
        if number <= self._highest:  # trailers of what was answered already
            self._nuisance()
            return
        self._highest = number
        if len(self._streams) >= STREAMS or self._last is not None:
            self._nuisance()
            self._write(reset(number, Reason.REFUSED_STREAM))
            return
        if head is None:
            self._nuisance()
            self._write(reset(number, Reason.PROTOCOL_ERROR))
            return
        stream = Stream(self, number, head, window=self._stream_window, tick=self._server.tick)
        self._streams[number] = stream
        stream.complete = bool(flags & END_STREAM)
        self._server.begin(stream)
        if stream.complete and self._streams.get(number) is stream:
            stream.finish()

    def _finish(self, stream: Stream) -> None:
        self._incomplete -= stream.size
        stream.finish()
        if self._starved:
            self._feed_starved()

    def _take_reset(self, _flags: int, number: int, payload: bytes) -> None:
        _check_length(payload, 4)
        if number == 0 or number > self._highest:
            raise Http2Error(Reason.PROTOCOL_ERROR)
        self._nuisance()
        stream = self._streams.get(number)
        if stream is not None:
            self._forget(stream)
            stream.exchange.gone()

    def _take_settings(self, flags: int, number: int, payload: bytes) -> None:
        self._nuisance()
        if number:
            raise Http2Error(Reason.PROTOCOL_ERROR)
        if flags & ACK:
            _check_length(payload, 0)
            return
        if len(payload) % 6:
            raise Http2Error(Reason.FRAME_SIZE_ERROR)
        for name, value in struct.iter_unpack(">HI", payload):
            if name == Setting.INITIAL_WINDOW_SIZE:
                if value > MAX_WINDOW:
                    raise Http2Error(Reason.FLOW_CONTROL_ERROR)
                for stream in self._streams.values():
                    stream.window += value - self._stream_window
                self._stream_window = value
            elif (name == Setting.ENABLE_PUSH and value > 1) or (
                name == Setting.MAX_FRAME_SIZE and not MAX_FRAME <= value < 2**24
            ):
                raise Http2Error(Reason.PROTOCOL_ERROR)
        self._write(frame(SETTINGS, ACK, 0))
        self._flush()

    def _take_ping(self, flags: int, number: int, payload: bytes) -> None:
        _check_length(payload, 8)
        if number:
            raise Http2Error(Reason.PROTOCOL_ERROR)
        self._nuisance()
        if not flags & ACK:
            self._write(frame(PING, ACK, 0, payload))
        elif payload == _THERE:
            self._asked = None
        elif payload == _LAST and self._draining is not None:
            self._drain()

    def _take_window_update(self, _flags: int, number: int, payload: bytes) -> None:
        _check_length(payload, 4)
        more = int.from_bytes(payload, "big") & MAX_WINDOW
        if not more or number > self._highest:
            raise Http2Error(Reason.PROTOCOL_ERROR)
        if number == 0:
            self._window += more
            over = self._window > MAX_WINDOW
        else:
            stream = self._streams.get(number)
            if stream is None:
                return
            stream.window += more
            over = stream.window > MAX_WINDOW
        if over:
            raise Http2Error(Reason.FLOW_CONTROL_ERROR)
        if self._waiting:
            if more < DRIBBLE:
                self._nuisance()
            self._flush()

    def _take_priority(self, _flags: int, _number: int, payload: bytes) -> None:
        _check_length(payload, 5)
        self._nuisance()

    def _take_push(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise Http2Error(Reason.PROTOCOL_ERROR)

    def _take_goaway(self, _flags: int, _number: int, _payload: bytes) -> None:
        self._nuisance()  # it opens no more streams, and closes when it has its answers

    # The end.

    def _drain(self) -> None:
        """Answer what has come, and no more."""
        self._draining = None
        self._last = self._highest
        self._write(goaway(self._last, Reason.NO_ERROR))
        if not self._streams:
            self._close()

    def _fail(self, reason: Reason) -> None:
        """End the connection, and say why."""
        self._write(goaway(self._highest, reason))
        self._close()
        self._leave_streams()

    def _close(self) -> None:
        """Close when everything written was taken."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def _leave_streams(self) -> None:
        streams, self._streams = self._streams, {}
        self._waiting.clear()
        for stream in streams.values():
            stream.exchange.gone()

    def _write(self, data: bytes) -> None:
        if not self._closing:
            self._transport.write(data)


_TAKES: tuple[Callable[[Connection, int, int, bytes], None], ...] = tuple(
    take
    for _, take in sorted(
        {
            DATA: Connection._take_data,
            HEADERS: Connection._take_headers,
            PRIORITY: Connection._take_priority,
            RST_STREAM: Connection._take_reset,
            SETTINGS: Connection._take_settings,
            PUSH_PROMISE: Connection._take_push,
            PING: Connection._take_ping,
            GOAWAY: Connection._take_goaway,
            WINDOW_UPDATE: Connection._take_window_update,
            CONTINUATION: Connection._take_continuation,
        }.items()
    )
)


def _check_length(payload: bytes, length: int) -> None:
    if len(payload) != length:
        raise Http2Error(Reason.FRAME_SIZE_ERROR)


def _unpadded(payload: bytes) -> bytes:
    """Return a payload without its padding (RFC 9113, 6.1)."""
    if not payload or payload[0] >= len(payload):
        raise Http2Error(Reason.PROTOCOL_ERROR)
    return payload[1 : len(payload) - payload[0]]
