"""The listening side: connections of one process, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

from yunmo.core.errors import YunmoError
from yunmo.serving.http1.connection import Connection, Handle
from yunmo.serving.observer import Activity

BACKLOG = 1024
CONNECTIONS = 8192
"""Connections that one process serves at a time; idle ones count too, so it must not be small."""


class Http1Server:
    """An HTTP/1.1 server on TCP or on a Unix socket. Several processes may serve the same port.

    Args:
        handle: answers requests.
        address: IP address to listen on.
        port: to listen on; the system spreads connections over the processes that do.
        uds: Unix socket to listen on instead; only this user can open it.
        refused: is told of what was no request: the error that it was answered with, and its id.
        activity: where requests are counted.
    """

    def __init__(
        self,
        handle: Handle,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        uds: Path | None = None,
        refused: Callable[[YunmoError, str], None] = lambda *_: None,
        activity: Activity | None = None,
    ) -> None:
        self._handle = handle
        self.activity = activity or Activity()
        """Counts the requests that were read and are not handled yet."""
        self.refused = refused
        """Is told of what was no request."""
        self._address = address
        self._port = port
        self._uds = uds
        self._connections: set[Connection] = set()
        self._stop = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self.stopping = False
        """Whether connections end after the answer that is under way."""
        self.tick = 0
        """Seconds since the server began to serve."""
        self.date = b""
        """The Date header of this second."""

    async def serve(self) -> None:
        """Serve until `stop`, and then until the last request under way was answered.

        Raises:
            OSError: it cannot listen there.
        """
        loop = asyncio.get_running_loop()
        server = await self._listen(loop)
        self._beat(loop)
        try:
            await self._stop.wait()
            server.close()
            for connection in list(self._connections):
                connection.stop()
            await self._empty.wait()
        finally:
            self._timer.cancel()
            server.close()
            for connection in list(self._connections):
                connection.abort()
            if self._uds is not None:
                self._uds.unlink(missing_ok=True)

    def stop(self) -> None:
        """Accept no more connections, and let `serve` end when those there are have ended."""
        self.stopping = True
        self._stop.set()

    def enter(self, connection: Connection) -> bool:
        """Count a connection that was opened; say whether it may stay."""
        self._connections.add(connection)
        self._empty.clear()
        return len(self._connections) <= CONNECTIONS

    def leave(self, connection: Connection) -> None:
        """Count a connection that was closed."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    async def _listen(self, loop: asyncio.AbstractEventLoop) -> asyncio.Server:
        def connect() -> Connection:
            return Connection(self, self._handle)

        if self._uds is not None:
            self._uds.unlink(missing_ok=True)
            server = await loop.create_unix_server(connect, str(self._uds), backlog=BACKLOG)
            self._uds.chmod(0o600)
            return server
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.bind((self._address, self._port))
            return await loop.create_server(connect, sock=listening, backlog=BACKLOG)
        except BaseException:
            listening.close()
            raise

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        """Once a second: the date, and a look at every connection."""
        self.tick += 1
        self.date = f"date: {formatdate(usegmt=True)}\r\n".encode()
        for connection in list(self._connections):
            with contextlib.suppress(RuntimeError):  # a transport that is closing
                connection.look(self.tick)
        self._timer = loop.call_later(1.0, self._beat, loop)
