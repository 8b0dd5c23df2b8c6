"""``yunmo up``: the service."""

from __future__ import annotations

from typing import Annotated

import typer

from yunmo.cli.output import AsJson
from yunmo.cli.place import home


def up(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; anything but loopback is reachable by others.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="HTTP port; 0: any free one.")] = None,
    grpc_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="gRPC port; 0: any free one, as is usual with --port 0.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Start the service of this workspace and keep it running until Ctrl-C."""
    from yunmo.app.supervisor import up as start

    return start(home(), host=host, port=port, grpc_port=grpc_port, as_json=as_json)
