"""The one ASGI callable: gate, then the hot paths, then control. Workers and in-process sessions both serve it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from yunmo.core.settings import Settings
from yunmo.serving.dataplane import DataPlane
from yunmo.serving.deployments import Deployments, open_predictor
from yunmo.serving.gate import Gate, Keyring
from yunmo.serving.http import App, Receive, Scope, Send
from yunmo.serving.native.face import NativeFace


class Application:
    """Composes what one data worker serves.

    Args:
        snapshot_path: the file that control publishes.
        state_path: where this process says what it has applied.
        settings: limits and times.
        control: the management API: the proxy to the control process, or the FastAPI application itself.
    """

    def __init__(self, snapshot_path: Path, state_path: Path, settings: Settings, control: App) -> None:
        keyring = Keyring()
        self._deployments = Deployments(
            snapshot_path,
            state_path,
            keyring,
            drain_timeout=settings.drain_timeout,
            open_predictor=partial(open_predictor, max_pixels=settings.max_pixels),
        )
        dataplane = DataPlane(self._deployments, timeout=settings.request_timeout)
        self._gate = Gate(NativeFace(dataplane, control, max_body=settings.max_body), keyring)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the server's start and stop."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await self._gate(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Load what is deployed before the first connection is accepted; drain after the last was answered."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._deployments.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._deployments.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return
