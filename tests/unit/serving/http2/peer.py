"""A server of HTTP/2 in this process, a transport that remembers, and a client nobody here wrote: the library h2."""

from __future__ import annotations

import asyncio
from typing import Any

import h2.config
import h2.connection
import h2.events

from yunmo.serving.http2.connection import Connection, Http2Server
from yunmo.serving.http2.frames import header_block
from yunmo.serving.http2.stream import Exchange, Stream

HEAD = header_block((("content-type", "text/plain"),), status=200)
END = header_block((("grpc-status", "0"),))
REFUSAL = header_block((("said", "no"),), status=400)
REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/echo"),
    (":authority", "x"),
    ("authorization", "Bearer key"),
]


class Echo(Exchange):
    """Answers with what came, at once or when it is told to."""

    __slots__ = ("body", "ends", "server", "stream")

    def __init__(self, server: Server, stream: Stream) -> None:
        self.server = server
        self.stream = stream
        self.body: bytes | None = None
        self.ends: list[str] = []

    def received(self, body: bytes) -> None:
        self.ends.append("received")
        self.body = body
        if not self.server.later:
            self.answer()

    def answer(self, body: bytes | None = None) -> None:
        assert self.body is not None
        self.stream.answer(HEAD, self.body if body is None else body, END)

    def too_large(self) -> None:
        self.ends.append("too large")
        self.stream.answer(REFUSAL)

    def slow(self) -> None:
        self.ends.append("slow")
        self.stream.answer(REFUSAL)

    def gone(self) -> None:
        self.ends.append("gone")


class Server(Http2Server):
    """Remembers its exchanges."""

    def __init__(self, limit: int = 1_000_000) -> None:
        super().__init__()
        self.limit = limit
        self.later = False
        self.exchanges: dict[int, Echo] = {}

    def begin(self, stream: Stream) -> None:
        stream.limit = self.limit
        self.exchanges[stream.number] = exchange = Echo(self, stream)
        stream.exchange = exchange


class Transport(asyncio.Transport):
    """Takes everything; a test says when it is full."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.closed: str | None = None
        self.reading = True

    def write(self, data: Any) -> None:
        assert self.closed is None
        self.sent += data

    def close(self) -> None:
        self.closed = self.closed or "closed"

    def abort(self) -> None:
        self.closed = "aborted"

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Peer:
    """A connection and its client."""

    def __init__(self, server: Server | None = None) -> None:
        self.server = server or Server()
        self.transport = Transport()
        self.connection: Connection = self.server.connect()
        self.connection.connection_made(self.transport)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.events: list[Any] = []

    def begin(self) -> Peer:
        """Greet each other."""
        self.h2.initiate_connection()
        return self.exchange()

    def exchange(self, step: int | None = None) -> Peer:
        """Pass on what both sides have to say, until neither has more; bytes go in pieces of ``step``."""
        while (mine := self.h2.data_to_send()) or self.transport.sent:
            for at in range(0, len(mine), step or max(len(mine), 1)):
                if self.transport.closed is None:
                    self.connection.data_received(mine[at : at + (step or len(mine))])
            theirs, self.transport.sent = bytes(self.transport.sent), bytearray()
            self.events += self.h2.receive_data(theirs)
        return self

    def raw(self, data: bytes) -> bytes:
        """Send bytes of no library, and return what comes."""
        self.connection.data_received(data)
        said, self.transport.sent = bytes(self.transport.sent), bytearray()
        return said

    def ask(self, body: bytes = b"hello", headers: list[tuple[str, str]] = REQUEST) -> int:
        """Send a request and return its stream."""
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, headers)
        self.h2.send_data(number, body, end_stream=True)
        self.exchange()
        return number

    def data(self, number: int) -> bytes:
        return b"".join(each.data for each in self.of(h2.events.DataReceived, number))

    def of(self, kind: type[Any], number: int | None = None) -> list[Any]:
        """Return what happened of a kind."""
        return [
            each
            for each in self.events
            if isinstance(each, kind) and (number is None or getattr(each, "stream_id", None) == number)
        ]

    def beat(self, seconds: int) -> Peer:
        """Let time pass."""
        for _ in range(seconds):
            self.server.tick += 1
            self.connection.look(self.server.tick)
            if self.transport.closed is None:
                self.exchange()
        return self
