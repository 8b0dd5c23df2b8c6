"""A data worker: gate, hot paths, and the proxy to control. It imports no torch, SQLAlchemy, DBOS or FastAPI."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys

from yunmo.app.application import Application
from yunmo.app.guard import tell_crashes
from yunmo.app.process import allow_many_connections, child_arguments, serve_until_signal
from yunmo.app.proxy import ControlProxy
from yunmo.monitoring.metrics import Metrics
from yunmo.monitoring.slots import shared_folder
from yunmo.monitoring.traces import Traces
from yunmo.serving.http1.server import Http1Server
from yunmo.serving.listener import Listener
from yunmo.serving.log import RequestLog
from yunmo.store.workspace import Workspace


def main() -> None:
    """Serve until told to stop."""
    arguments = child_arguments()
    allow_many_connections()
    settings = arguments.settings
    workspace = Workspace(arguments.home)
    proxy = ControlProxy(arguments.control_socket, max_upload=settings.max_upload)
    state = workspace.workers_folder / f"{os.getpid()}.json"
    tell_crashes(state.with_suffix(".fault"))
    metrics = Metrics(shared_folder(workspace.home)) if settings.metrics else None
    tracer = Traces(settings.traces) if settings.traces is not None else None
    log = RequestLog(
        settings.request_log if settings.log_level in ("debug", "info") else "off",
        dropped=metrics.log_dropped if metrics is not None else lambda _: None,
    )
    application = Application(
        workspace.snapshot_path,
        state,
        settings,
        proxy,
        metrics=metrics,
        tracer=tracer,
        log=log,
        stuck=lambda: os.kill(os.getpid(), signal.SIGTERM),  # others drain, and the supervisor starts another worker
    )
    server = Http1Server(
        application.handle,
        address=arguments.address,
        port=arguments.port,
        refused=application.refused,
        activity=application.activity,
    )

    ends = contextlib.ExitStack()
    """Where the end of the servers is begun."""
    ends.callback(server.stop)

    def stop() -> None:
        proxy.close_streams()
        ends.close()

    async def serve() -> None:
        # What is deployed is loaded before the first connection is accepted, and drained after the last was answered.
        await application.start()
        servers: list[Listener] = [server]
        if arguments.grpc_port is not None:
            grpc = application.grpc_server(arguments.address, arguments.grpc_port)
            ends.callback(grpc.stop)
            servers.append(grpc)
        _tune_interpreter()
        await asyncio.gather(*(each.serve() for each in servers))
        await application.stop()
        if metrics is not None:
            metrics.close()
        if tracer is not None:
            tracer.close()

    serve_until_signal(serve, stop, settings.drain_timeout)


def _tune_interpreter() -> None:
    """Set what suits a process that answers thousands of short requests a second."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # by default every seventh request pays for a collection that finds nothing
    sys.setswitchinterval(0.001)  # a model's thread that is done must not wait 5 ms for the event loop's


if __name__ == "__main__":
    main()
