"""The HTTP/1.1 server of one process."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

from yunmo.core.errors import YunmoError
from yunmo.serving.http1.connection import Connection, Handle
from yunmo.serving.listener import Listener
from yunmo.serving.observer import Activity


class Http1Server(Listener):
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
        super().__init__(address=address, port=port, uds=uds)
        self._handle = handle
        self.activity = activity or Activity()
        """Counts the requests that were read and are not handled yet."""
        self.refused = refused
        """Is told of what was no request."""
        self._date = b""
        self._dated = -1

    def connect(self) -> Connection:
        """See `Listener.connect`."""
        return Connection(self, self._handle)

    @property
    def date(self) -> bytes:
        """The Date header of this second."""
        if self._dated != self.tick:
            self._dated, self._date = self.tick, f"date: {formatdate(usegmt=True)}\r\n".encode()
        return self._date
