"""The control process: the management API on a Unix socket that only this user can open."""

from __future__ import annotations

from yunmo.app.process import child_arguments, serve_until_signal
from yunmo.control.context import open_context
from yunmo.control.rest.app import create_app
from yunmo.serving.http1.bridge import serve_asgi
from yunmo.serving.http1.server import Http1Server
from yunmo.store.workspace import Workspace


def main() -> None:
    """Serve until told to stop."""
    arguments = child_arguments()
    with open_context(Workspace(arguments.home), arguments.settings) as context:
        app = create_app(context)
        server = Http1Server(serve_asgi(app), uds=arguments.control_socket)

        async def serve() -> None:
            async with app.router.lifespan_context(app):
                await server.serve()

        serve_until_signal(serve, server.stop, arguments.settings.drain_timeout)


if __name__ == "__main__":
    main()
