"""Our server on a Unix socket, and bare connections to it."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from yunmo.serving.http1.connection import Handle
from yunmo.serving.http1.server import Http1Server

WAIT = 20.0
"""Seconds that nothing here should ever take."""


@dataclass
class Answer:
    """One HTTP answer, read to its end."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    interim: list[int] = field(default_factory=list)
    """Statuses of 1xx answers before it."""

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Cut(Exception):
    """The connection ended before the answer did."""


class Connection:
    """A bare HTTP/1.1 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def head(self) -> tuple[int, list[tuple[str, str]]]:
        """Read the head of an answer."""
        try:
            head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), WAIT)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Cut from error
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        return int(first.split(" ")[1]), [
            (name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)
        ]

    async def answer(self, method: str = "GET") -> Answer:
        """Read one answer."""
        interim = []
        while (found := await self.head())[0] < 200:
            interim.append(found[0])
        status, headers = found
        reply = Answer(status, headers, b"", interim)
        if method == "HEAD" or status in (204, 304):
            return reply
        try:
            if reply.header("transfer-encoding") == "chunked":
                while chunk := await self.chunk():
                    reply.body += chunk
            elif (length := reply.header("content-length")) is not None:
                reply.body = await asyncio.wait_for(self.reader.readexactly(int(length)), WAIT)
            else:
                reply.body = await asyncio.wait_for(self.reader.read(), WAIT)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Cut from error
        return reply

    async def chunk(self) -> bytes:
        """Read one chunk of a body, b"" at its end."""
        try:
            size = int(await asyncio.wait_for(self.reader.readuntil(b"\r\n"), WAIT), 16)
            data = await asyncio.wait_for(self.reader.readexactly(size + 2), WAIT)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Cut from error
        return data[:-2]

    async def ask(
        self, method: str, path: str, headers: list[tuple[str, str | bytes]] | None = None, body: bytes = b""
    ) -> Answer:
        """Send one request with a body of known length and read its answer."""
        await self.send(request(method, path, headers, body))
        return await self.answer(method)

    async def closed(self) -> bool:
        """Say whether the server has nothing more to say and closes the connection."""
        try:
            return await asyncio.wait_for(self.reader.read(), WAIT) == b""
        except ConnectionError:
            return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def request(
    method: str, path: str, headers: list[tuple[str, str | bytes]] | None = None, body: bytes | None = b""
) -> bytes:
    """Return a request's bytes; without a body (None) it says nothing of its length."""
    lines = [f"{method} {path} HTTP/1.1".encode(), b"host: x"]
    for name, value in headers or []:
        lines.append(name.encode() + b": " + (value.encode() if isinstance(value, str) else value))
    if body is not None and (body or method in ("POST", "PUT")):
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


class Served:
    """A server in this loop."""

    def __init__(self, server: Http1Server, socket: Path) -> None:
        self._server = server
        self._socket = socket
        self._stack = contextlib.AsyncExitStack()

    @property
    def stopping(self) -> bool:
        return self._server.stopping

    def stop(self) -> None:
        """Have the server end, as SIGTERM does."""
        self._server.stop()

    async def connect(self) -> Connection:
        connection = Connection(*await asyncio.open_unix_connection(str(self._socket)))
        self._stack.push_async_callback(connection.close)
        return connection

    async def close(self) -> None:
        await self._stack.aclose()


@contextlib.asynccontextmanager
async def serving(handle: Handle) -> AsyncIterator[Served]:
    """Serve as data workers and sessions do."""
    with tempfile.TemporaryDirectory(prefix="yunmo-wire") as folder:
        path = Path(folder) / "s"
        server = Http1Server(handle, uds=path)
        task = asyncio.ensure_future(server.serve())
        served = Served(server, path)
        try:
            await until(path.exists)
            yield served
        finally:
            await served.close()
            server.stop()
            await asyncio.wait_for(task, WAIT)


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run a test on the loop that data workers have."""

    async def main() -> None:
        async with asyncio.timeout(60):
            await work()

    uvloop.run(main())


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(WAIT):
        while not condition():
            await asyncio.sleep(0.002)
