"""The control process: the management API on a Unix socket that only this user can open."""

from __future__ import annotations

from yunmo.app.process import child_arguments, serve_until_signal
from yunmo.app.server import make_server
from yunmo.control.context import open_context
from yunmo.control.rest.app import create_app
from yunmo.store.workspace import Workspace


def main() -> None:
    """Serve until told to stop."""
    arguments = child_arguments()
    with open_context(Workspace(arguments.home), arguments.settings) as context:
        arguments.control_socket.unlink(missing_ok=True)
        server = make_server(create_app(context), uds=arguments.control_socket)
        serve_until_signal(server.serve, server.stop, arguments.settings.drain_timeout)


if __name__ == "__main__":
    main()
