"""``yunmo deploy``, ``yunmo rollback`` and ``yunmo endpoints``: where models answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from yunmo.cli.models import Version
from yunmo.cli.output import AsJson, emit, say, table, when
from yunmo.cli.place import connect

if TYPE_CHECKING:
    from yunmo.core.resources import Endpoint

app = typer.Typer(help="Endpoints: stable names and URLs at which models answer.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.")]


def deploy(
    reference: Version,
    endpoint: Annotated[str | None, typer.Option(help="Name of the endpoint. [the model's name]")] = None,
    as_json: AsJson = False,
) -> None:
    """Let an endpoint answer with a model version; no request is lost in the change."""
    with connect() as client:
        found = client.deploy(reference, endpoint)
    if as_json:
        emit(found)
        return
    _show(found)
    say(f"[dim]Ask it: yunmo predict {found.name} FILE[/dim]")


def rollback(endpoint: Name, as_json: AsJson = False) -> None:
    """Let an endpoint answer with the version it had before."""
    with connect() as client:
        found = client.rollback(endpoint)
    if as_json:
        emit(found)
    else:
        _show(found)


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List the endpoints."""
    with connect() as client:
        found = client.endpoints()
    if as_json:
        emit(found)
        return
    rows = [
        (
            each.name,
            f"{each.model}:{each.version}",
            each.previous,
            "answers" if each.ready else "not ready",
            when(each.updated_at),
        )
        for each in found
    ]
    table(
        ("endpoint", "model", "before", "state", "changed"),
        rows,
        empty="No endpoints. Make one with `yunmo deploy NAME:V`.",
    )


@app.command("schema")
def schema(endpoint: Name, as_json: AsJson = False) -> None:  # noqa: ARG001 - JSON Schema is JSON in any case
    """Print the JSON Schemas of what an endpoint takes and answers."""
    with connect() as client:
        emit(client.schema(endpoint))


def _show(found: Endpoint) -> None:
    before = f" (before: {found.previous})" if found.previous else ""
    say(f"Endpoint [bold]{found.name}[/bold] answers with [bold]{found.model}:{found.version}[/bold]{before}")
