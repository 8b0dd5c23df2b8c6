"""``yunmo keys``: who may use the service."""

from __future__ import annotations

from typing import Annotated

import typer

from yunmo.cli.output import AsJson, emit, say, table, when
from yunmo.cli.place import connect

app = typer.Typer(help="Keys: who may use the service, and for what.", no_args_is_help=True)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="predict, read, write or admin; may be given several times. [predict]")
    ] = None,
    endpoint: Annotated[
        list[str] | None, typer.Option(help="An endpoint it may call; may be given several times. [all]")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="How long it is valid: 90s, 30m, 12h, 7d. [for ever]")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. Its secret is shown this once."""
    from yunmo.cli.values import seconds

    expires_in = seconds(expires, "--expires") if expires is not None else None
    with connect() as client:
        created = client.create_key(name, scopes=scope or ["predict"], endpoints=endpoint, expires_in=expires_in)
    if as_json:
        emit(created)
        return
    say(f"[bold]{created.secret}[/bold]")
    say(f"[dim]Keep it: it is not shown again. Key {created.key.id}, for {', '.join(created.key.scopes)}.[/dim]")


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List the keys, without their secrets."""
    with connect() as client:
        found = client.keys()
    if as_json:
        emit(found)
        return
    rows = [
        (
            key.id,
            key.name,
            f"ym_{key.prefix}_…",
            ", ".join(key.scopes),
            "all" if key.endpoints is None else ", ".join(key.endpoints),
            when(key.expires_at),
        )
        for key in found
    ]
    table(("id", "name", "key", "scopes", "endpoints", "expires"), rows, empty="No keys.")


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `yunmo keys ls` shows it.")], as_json: AsJson = False
) -> None:
    """End a key's life; requests with it are refused from now on."""
    with connect() as client:
        client.revoke_key(key_id)
    if as_json:
        emit({"revoked": key_id})
    else:
        say(f"Revoked {key_id}.")
