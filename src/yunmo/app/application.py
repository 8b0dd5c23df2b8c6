"""The one ASGI callable: gate, then the hot paths, then control. Workers and in-process sessions both serve it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from yunmo.app.guard import Guard
from yunmo.core.settings import Settings
from yunmo.monitoring.metrics import Metrics
from yunmo.monitoring.traces import Traces
from yunmo.serving.admission import Admission
from yunmo.serving.dataplane import DataPlane
from yunmo.serving.deployments import Deployments
from yunmo.serving.entry import Entry
from yunmo.serving.gate import Gate, Keyring
from yunmo.serving.http import App, Face
from yunmo.serving.log import RequestLog
from yunmo.serving.metrics_page import MetricsFace
from yunmo.serving.native.face import NativeFace
from yunmo.serving.observer import Observer, Silent
from yunmo.serving.oip.face import OipFace

if TYPE_CHECKING:
    from yunmo.serving.grpc.server import GrpcServer


class Application:
    """Composes what one data worker serves.

    Args:
        snapshot_path: the file that control publishes.
        state_path: where this process says what it has applied.
        settings: limits and times.
        control: the management API: the proxy to the control process, or the FastAPI application itself.
        metrics: counts what happens; None: nobody does.
        tracer: makes the spans of requests; None: nothing is traced.
        log: gets a line for every request; None: nothing does.
        stuck: called when a model hangs so that only a new process helps; None: nothing can be done.
    """

    def __init__(
        self,
        snapshot_path: Path,
        state_path: Path,
        settings: Settings,
        control: App,
        *,
        metrics: Metrics | None = None,
        tracer: Traces | None = None,
        log: RequestLog | None = None,
        stuck: Callable[[], None] | None = None,
    ) -> None:
        self._observer: Observer = metrics or Silent()
        self._log = log or RequestLog("off")
        self._tracer = tracer
        self._keyring = keyring = Keyring()
        self._max_body = settings.max_body
        self._request_timeout = settings.request_timeout
        self._guard = Guard(state_path, settings, self._observer, timeout=self._run_timeout, stuck=stuck)
        self._deployments = Deployments(
            snapshot_path,
            state_path,
            keyring,
            drain_timeout=settings.drain_timeout,
            open_predictor=self._guard.open,
            make_lane=self._guard.make_lane,
            quarantine=self._guard.quarantine,
        )
        self._admission = Admission(state_path.parent, state_path.stem)
        self._dataplane = dataplane = DataPlane(self._deployments, self._admission, timeout=settings.request_timeout)
        faces: list[Face] = [
            MetricsFace(metrics),
            OipFace(dataplane, max_body=settings.max_body),
            NativeFace(dataplane, max_body=settings.max_body),
        ]
        self._entry = Entry(Gate(keyring), faces, control, self._observer, self._log, dataplane.activity, tracer)
        self.handle = self._entry.handle
        """Answers requests of the HTTP server; `start` and `stop` are the caller's."""
        self.activity = dataplane.activity
        """What the HTTP server counts requests in."""
        self.refused = self._entry.refused
        """Is told of what the HTTP server refused."""

    def grpc_server(self, address: str, port: int) -> GrpcServer:
        """Return the gRPC server of this process; to be called on the event loop.

        Args:
            address: IP address to listen on.
            port: which other workers may share.
        """
        # Only now: most of what it imports is for gRPC alone.
        from yunmo.serving.grpc.server import GrpcServer
        from yunmo.serving.grpc.service import Service

        service = Service(
            self._dataplane,
            self._keyring,
            self._observer,
            self._log,
            max_message=self._max_body,
            tracer=self._tracer,
        )
        return GrpcServer(service, address=address, port=port)

    async def start(self) -> None:
        """Load what is deployed."""
        self._guard.start()
        await self._deployments.start()

    async def stop(self) -> None:
        """Drain what is deployed, after the last request was answered."""
        await self._deployments.stop()
        await self._dataplane.mirror.close()
        self._guard.stop()
        self._admission.close()
        self._log.close()

    def _run_timeout(self, key: str) -> float:
        """Return the seconds that a request to an endpoint may take, at present: a run need not take longer."""
        return self._deployments.limits(key).seconds(self._request_timeout)
