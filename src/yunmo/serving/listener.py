"""The listening side of a server: the connections of one process, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from abc import ABC, abstractmethod
from pathlib import Path

BACKLOG = 1024
CONNECTIONS = 8192
"""Connections that one process serves at a time; idle ones count too, so it must not be small."""


class Connected(asyncio.Protocol, ABC):
    """A connection, as the server that accepted it sees it."""

    @abstractmethod
    def stop(self) -> None:
        """Close when the requests that were read have been answered; at once if there is none."""

    @abstractmethod
    def abort(self) -> None:
        """Close now, whatever is under way."""

    @abstractmethod
    def look(self, tick: int) -> None:
        """End what takes too long; called once a second.

        Args:
            tick: seconds of the server's clock.
        """


class Listener(ABC):
    """Accepts connections on TCP or on a Unix socket. Several processes may serve the same port.

    Args:
        address: IP address to listen on.
        port: to listen on; the system spreads connections over the processes that do.
        uds: Unix socket to listen on instead; only this user can open it.
    """

    def __init__(self, *, address: str = "127.0.0.1", port: int = 0, uds: Path | None = None) -> None:
        self._address = address
        self._uds = uds
        self.port = port
        """Where it listens; once it does, also where the port was left open by 0."""
        self._connections: set[Connected] = set()
        self._stop = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self.stopping = False
        """Whether connections end after the answers that are under way."""
        self.tick = 0
        """Seconds since the server began to serve."""

    @abstractmethod
    def connect(self) -> Connected:
        """Return what handles a new connection."""

    async def listen(self) -> None:
        """Accept connections from now on; `serve` does so too if this was not called.

        Raises:
            OSError: it cannot listen there.
        """
        loop = asyncio.get_running_loop()
        if self._uds is not None:
            self._uds.unlink(missing_ok=True)
            self._listening = await loop.create_unix_server(self.connect, str(self._uds), backlog=BACKLOG)
            self._uds.chmod(0o600)
        else:
            listening = socket.socket(socket.AF_INET6 if ":" in self._address else socket.AF_INET, socket.SOCK_STREAM)
            try:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                listening.bind((self._address, self.port))
                self.port = listening.getsockname()[1]
                self._listening = await loop.create_server(self.connect, sock=listening, backlog=BACKLOG)
            except BaseException:
                listening.close()
                raise
        self._beat(loop)

    async def serve(self) -> None:
        """Serve until `stop`, and then until the last request under way was answered.

        Raises:
            OSError: it cannot listen there.
        """
        if not hasattr(self, "_listening"):
            await self.listen()
        try:
            await self._stop.wait()
            self._listening.close()
            for connection in list(self._connections):
                connection.stop()
            await self._empty.wait()
        finally:
            self._timer.cancel()
            self._listening.close()
            for connection in list(self._connections):
                connection.abort()
            if self._uds is not None:
                self._uds.unlink(missing_ok=True)

    def stop(self) -> None:
        """Accept no more connections, and let `serve` end when those there are have ended."""
        self.stopping = True
        self._stop.set()

    def enter(self, connection: Connected) -> bool:
        """Count a connection that was opened; say whether it may stay."""
        self._connections.add(connection)
        self._empty.clear()
        return len(self._connections) <= CONNECTIONS

    def leave(self, connection: Connected) -> None:
        """Count a connection that was closed."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self.tick += 1
        for connection in list(self._connections):
            with contextlib.suppress(RuntimeError):  # a transport that is closing
                connection.look(self.tick)
        self._timer = loop.call_later(1.0, self._beat, loop)
