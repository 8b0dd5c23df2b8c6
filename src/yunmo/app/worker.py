"""A data worker: gate, hot paths, and the proxy to control. It imports no torch, SQLAlchemy, DBOS or FastAPI."""

from __future__ import annotations

import gc
import os

from yunmo.app.application import Application
from yunmo.app.process import allow_many_connections, child_arguments, serve_until_signal
from yunmo.app.proxy import ControlProxy
from yunmo.app.server import make_server
from yunmo.store.workspace import Workspace


def main() -> None:
    """Serve until told to stop."""
    arguments = child_arguments()
    allow_many_connections()
    settings = arguments.settings
    workspace = Workspace(arguments.home)
    proxy = ControlProxy(arguments.control_socket, max_upload=settings.max_upload)
    state = workspace.workers_folder / f"{os.getpid()}.json"
    application = Application(workspace.snapshot_path, state, settings, proxy)
    server = make_server(application, address=arguments.address, port=arguments.port)

    def stop() -> None:
        proxy.close_streams()
        server.stop()

    gc.freeze()
    serve_until_signal(server.serve, stop, settings.drain_timeout)


if __name__ == "__main__":
    main()
