"""A request as it arrives on a connection, and the answer that goes back on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from yunmo.core.errors import SlowBody, YunmoError
from yunmo.serving.http import BODY_TIMEOUT, ClientGone, Request, Response, declared_length, too_large

if TYPE_CHECKING:
    from yunmo.serving.http1.connection import Connection

HIGH_WATER = 256 * 1024
"""Bytes of a body that wait to be read; beyond, the connection is not read from."""
SMALL = 4096
"""Parts of a body that are smaller are joined as they come: each alone would take fifty bytes more."""
DISCARDED = 1024 * 1024
"""A body of up to so many bytes that nobody wants is read and thrown away, so that its connection can go on."""

_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_NO_BODY = frozenset({204, 304})


class Http1Request(Request):
    """A request on a connection.

    Args:
        connection: it came on.
        method: in upper case.
        path: decoded, without the query.
        query: the text after ``?``.
        headers: in their order, names in lower case.
        persistent: the client keeps the connection after it.
        request_id: made by this process.
    """

    __slots__ = (
        "_buffered", "_by_name", "_chunks", "_connection", "_failure", "_gone", "_left", "_limit", "_on_left", "_owed",
        "_streams", "_waiter",
        "answered", "complete", "discarding", "ended", "expected", "headers", "persistent",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        method: str,
        path: str,
        query: str,
        headers: list[tuple[bytes, bytes]],
        persistent: bool,
        request_id: str,
    ) -> None:
        super().__init__(method, path, query, request_id)
        self.headers = headers
        self._by_name = dict(headers)
        if len(self._by_name) < len(headers):  # the first of each name, then
            self._by_name = dict(reversed(headers))
        self.persistent = persistent
        self.complete = False
        """The whole body has arrived."""
        self.answered = False
        """The head of the answer was written."""
        self.ended = False
        """The whole answer was written."""
        self.discarding = False
        """Nobody wants the rest of the body."""
        self.expected = False
        """The body was waited for."""
        self._connection = connection
        self._chunks: list[bytes | bytearray] = []
        self._buffered = 0
        self._limit = HIGH_WATER
        self._gone = False
        self._failure: YunmoError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._left: asyncio.Future[None] | None = None
        self._on_left: Callable[[], None] | None = None
        self._streams = False
        self._owed: int | None = None
        """Bytes that a started answer still has to have."""

    def header(self, name: str) -> str | None:
        """See `Request.header`."""
        value = self._by_name.get(name.encode("latin-1"))
        return None if value is None else value.decode("latin-1")

    def header_values(self, name: str) -> list[str]:
        """See `Request.header_values`."""
        wanted = name.encode("latin-1")
        return [value.decode("latin-1") for key, value in self.headers if key == wanted]

    async def receive(self) -> tuple[bytes, bool]:
        """See `Request.receive`."""
        while not self._chunks and not self.complete:
            await self._more()
        data = self._take()
        return data, not self.complete

    async def body(self, *, limit: int, timeout: float = BODY_TIMEOUT) -> bytes:
        """See `Request.body`."""
        if (declared_length(self) or 0) > limit:
            raise too_large(limit)
        if not self.complete:
            self._limit = max(limit, HIGH_WATER)
            try:
                async with asyncio.timeout(timeout):
                    while not self.complete and self._buffered <= limit:
                        await self._more()
            except TimeoutError:
                raise SlowBody(f"the body was not complete within {timeout:g} seconds") from None
        if self._buffered > limit:
            raise too_large(limit)
        return self._take()

    async def left(self) -> None:
        """Return when the client has closed its connection; to be called after the body was read."""
        if self._gone:
            return
        if self._left is None:
            self._left = asyncio.get_running_loop().create_future()
        await self._left

    def on_left(self, call: Callable[[], None] | None) -> None:
        """See `Request.on_left`."""
        self._on_left = call
        if call is not None and self._gone:
            call()

    def send(self, response: Response) -> None:
        """Answer with a whole body; HEAD gets the headers only."""
        body = response.body
        lines = f"x-request-id: {self.id}\r\n"
        if body:
            lines += f"content-length: {len(body)}\r\n"
            if response.content_type:
                lines += f"content-type: {response.content_type}\r\n"
        elif response.status not in _NO_BODY:
            lines += "content-length: 0\r\n"
        if response.headers:
            lines += _lines(response.headers)
        self._write_head(response.status, lines, b"" if self.method == "HEAD" else body)
        self._connection.answered(self)

    def start(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Begin an answer that comes in parts.

        Args:
            status: of the answer.
            headers: with the length, if it is known.
        """
        length = next((value for name, value in headers if name == "content-length"), None)
        if length is not None and self.method != "HEAD" and status not in _NO_BODY:
            self._owed = int(length)
        if length is None and status not in _NO_BODY:
            if self._connection.old:
                self.persistent = False  # it knows no chunks: the answer ends with the connection
            else:
                self._streams = True
                headers = [*headers, ("transfer-encoding", "chunked")]
        self._write_head(status, f"x-request-id: {self.id}\r\n{_lines(headers)}", b"")

    async def send_part(self, data: bytes) -> None:
        """Send a part of an answer that was started, when the client takes it.

        Raises:
            ClientGone: the client left.
        """
        if self._gone:
            raise ClientGone
        if data and self.method != "HEAD":
            if self._owed is not None:
                self._owed -= len(data)
                if self._owed < 0:
                    raise ValueError("an answer is longer than its Content-Length")
            self._connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._streams else data)
            await self._connection.drained()

    def end(self) -> None:
        """End an answer that was started."""
        if self._owed:
            raise ValueError("an answer is shorter than its Content-Length")
        if self._streams and self.method != "HEAD":
            self._connection.write(b"0\r\n\r\n")
        self._connection.answered(self)

    def feed(self, data: bytes) -> None:
        """Take a part of the body from the connection."""
        if self.discarding:
            return
        last = self._chunks[-1] if self._chunks else None
        if len(data) >= SMALL or last is None:
            self._chunks.append(data)
        elif isinstance(last, bytearray):
            last += data
        else:
            self._chunks.append(bytearray(data))
        self._buffered += len(data)
        if self._buffered > self._limit:
            self._connection.pause()
        self._wake()

    def finish(self) -> None:
        """Say that the body is complete."""
        self.complete = True
        self._wake()

    def fail(self, error: YunmoError) -> None:
        """Say that the body cannot be read to its end."""
        self._failure = error
        self.persistent = False
        self._wake()

    def leave(self) -> None:
        """Say that the client has left."""
        self._gone = True
        self._wake()
        if self._left is not None and not self._left.done():
            self._left.set_result(None)
        if self._on_left is not None:
            self._on_left()

    async def _more(self) -> None:
        """Wait for more of the body."""
        if self._failure is not None:
            raise self._failure
        if self._gone:
            raise ClientGone
        self._connection.proceed(self)
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take(self) -> bytes:
        chunks = self._chunks
        data = bytes(chunks[0]) if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._buffered = 0
        self._connection.resume()
        return data

    def _write_head(self, status: int, lines: str, body: bytes) -> None:
        self.answered = True
        if not self.complete and not self.discarding:
            self._forsake()
        connection = self._connection
        if "connection: close" in lines:
            self.persistent = False
        elif not (self.persistent and connection.persists):
            self.persistent = False
            lines += "connection: close\r\n"
        connection.write(b"%b%b%b\r\n%b" % (status_line(status), connection.date, lines.encode("latin-1"), body))

    def _forsake(self) -> None:
        """Nobody reads the rest of the body: throw it away if that ends soon, else give up the connection."""
        length = self.header("content-length")
        self.discarding = True
        self._chunks = []
        self._buffered = 0
        if length is None or not length.isdigit() or int(length) > DISCARDED:
            self.persistent = False
        else:
            self._connection.resume()


def _lines(headers: Iterable[tuple[str, str]]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in headers])


def status_line(status: int) -> bytes:
    """Return the first line of an answer."""
    return _LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status
