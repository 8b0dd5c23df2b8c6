"""The HTTP server under an ASGI callable: granian, within this process's event loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from yunmo.serving.http import App

BACKLOG = 1024
CONNECTIONS = 8192
"""Connections that one process serves at a time; idle ones count too, so it must not be small."""
HEADER_TIMEOUT_MS = 15_000
"""Milliseconds for a request's headers: a client that dribbles them is cut off."""


def make_server(app: App, *, address: str = "127.0.0.1", port: int = 0, uds: Path | None = None) -> Any:
    """Return a server for TCP or for a Unix socket; await its ``serve()``, end it with ``stop()``.

    Several processes may serve the same port: the system spreads connections over them.
    """
    server: Any = Server(
        app,
        address=address,
        port=port,
        uds=uds,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT_MS),
        websockets=False,
        backlog=BACKLOG,
        backpressure=CONNECTIONS,
        log_enabled=False,
    )
    if uds is not None:
        server.uds_permissions = 0o600
    return server
