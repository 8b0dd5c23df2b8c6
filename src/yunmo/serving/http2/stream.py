"""One request on a connection, and the answer that goes back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from yunmo.serving.http2.frames import DEFAULT_WINDOW
from yunmo.serving.http2.headers import RequestHead

if TYPE_CHECKING:
    from yunmo.serving.http2.connection import Connection

WINDOW = 256 * 1024
"""Bytes that a client may send on a stream before it is allowed more."""


class Exchange(ABC):
    """What a request means to the server: told of what comes, it answers with `Stream.answer`."""

    __slots__ = ()

    @abstractmethod
    def received(self, body: bytes) -> None:
        """The body is complete."""

    @abstractmethod
    def too_large(self) -> None:
        """The body has more bytes than the stream's limit; this has to answer."""

    @abstractmethod
    def slow(self) -> None:
        """The body was not complete in time; this has to answer."""

    @abstractmethod
    def gone(self) -> None:
        """The client wants no answer any more, or its connection has ended."""


class Stream:
    """A request whose headers have arrived.

    Args:
        connection: it came on.
        number: of the stream.
        head: the headers.
        window: bytes that the client takes before it allows more.
        tick: of the server's clock.
    """

    __slots__ = (
        "_chunks", "_connection", "complete", "credit", "exchange", "head", "limit", "number", "outgoing", "since",
        "size", "trailers", "window",
    )  # fmt: skip

    exchange: Exchange
    """The server sets it."""

    def __init__(self, connection: Connection, number: int, head: RequestHead, *, window: int, tick: int) -> None:
        self._connection = connection
        self.number = number
        self.head = head
        self.window = window
        """Bytes that may be sent now."""
        self.since = tick
        self.credit = WINDOW
        """Bytes that the client may send now."""
        self.limit = DEFAULT_WINDOW
        """Bytes that the body may have; the server sets it."""
        self.size = 0
        """Bytes of the body that have arrived."""
        self.complete = False
        """The whole body has arrived."""
        self._chunks: list[bytes] = []
        self.outgoing = memoryview(b"")
        """What of the answer waits for the client to take more."""
        self.trailers = b""

    def feed(self, data: bytes) -> None:
        """Take a part of the body."""
        self.size += len(data)
        if self.size > self.limit:
            self.exchange.too_large()
        else:
            self._chunks.append(data)

    def finish(self) -> None:
        """The body is complete."""
        self.complete = True
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self.exchange.received(body)

    def answer(self, head: bytes, body: bytes = b"", trailers: bytes = b"") -> None:
        """Send the whole answer; if the client left, nobody gets it.

        Args:
            head: block of its headers.
            body: sent as the client takes it.
            trailers: block of the headers behind the body; none: there is neither.
        """
        self._connection.answer(self, head, body, trailers)
