"""``yunmo deploy``, ``yunmo rollback`` and ``yunmo endpoints``: where models answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from yunmo.cli.complete import endpoint_names
from yunmo.cli.models import Version
from yunmo.cli.output import AsJson, emit, facts, say, table, when
from yunmo.cli.place import connect

if TYPE_CHECKING:
    from yunmo.core.resources import Endpoint, EndpointVersion

app = typer.Typer(help="Endpoints: stable names and URLs at which models answer.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.", autocompletion=endpoint_names)]

NONE = "none"
"""The word that takes a limit away."""


def deploy(
    reference: Version,
    endpoint: Annotated[str | None, typer.Option(help="Name of the endpoint. [the model's name]")] = None,
    canary: Annotated[
        int | None, typer.Option(metavar="PERCENT", help="Try it on 1 to 99 percent of the requests.")
    ] = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Try it on copies of the requests; nobody gets its answers.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let an endpoint answer with a model version; no request is lost in the change.

    With --canary or --shadow the version is tried beside the one that answers; without, it gets everything.
    """
    _check_trial(canary, shadow)
    with connect() as client:
        found = client.deploy(reference, endpoint, canary=canary, shadow=shadow)
    if as_json:
        emit(found)
        return
    _show(found)
    if canary is not None and found.canary is not None:
        say(f"[dim]Promote it: yunmo deploy {_name(found.canary)}{_option(found)}[/dim]")
    if canary is not None or shadow:
        say(f"[dim]Take it away: yunmo rollback {found.name}[/dim]")
    else:
        say(f"[dim]Ask it: yunmo predict {found.name} FILE[/dim]")


def rollback(endpoint: Name, as_json: AsJson = False) -> None:
    """Take canary and shadow away; without one, let an endpoint answer with the version it had before."""
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
            _name(each.live),
            f"{_name(each.canary)} {each.canary.weight} %" if each.canary else None,
            _name(each.shadow),
            _name(each.previous),
            _state(each),
            when(each.updated_at),
        )
        for each in found
    ]
    table(
        ("endpoint", "live", "canary", "shadow", "before", "state<", "changed<"),
        rows,
        empty="No endpoints. Make one with `yunmo deploy NAME:V`.",
    )


@app.command("show")
def show(endpoint: Name, as_json: AsJson = False) -> None:
    """Show the versions behind an endpoint, and its limits."""
    with connect() as client:
        found = client.endpoint(endpoint)
    if as_json:
        emit(found)
        return
    parts = (("live", found.live), ("canary", found.canary), ("shadow", found.shadow), ("before", found.previous))
    rows = [
        (role, _name(part), f"{part.weight} %", _part_state(role, part), part.digest.removeprefix("sha256:")[:12])
        for role, part in parts
        if part is not None
    ]
    say(f"[bold]{found.name}[/bold]  {_state(found)}")
    table(("part", "version", ">traffic", "state<", "digest<"), rows, empty="")
    _show_settings(found)


@app.command("set")
def set_(
    endpoint: Name,
    concurrency: Annotated[
        str | None, typer.Option(metavar="N|none", help="Requests in progress at once, over all workers.")
    ] = None,
    queue: Annotated[
        str | None, typer.Option(metavar="N|none", help="Rows in progress (waiting or running), over all workers.")
    ] = None,
    timeout: Annotated[str | None, typer.Option(metavar="TIME|none", help="Time a request may take: 2s, 1m.")] = None,
    sticky: Annotated[
        str | None,
        typer.Option(metavar="key|request", help="Whether each key, or chance, decides if the canary answers."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change an endpoint's limits; what is not named stays, `none` takes a limit away."""
    from yunmo.cli.values import count, seconds
    from yunmo.core.errors import InvalidInput

    changes: dict[str, Any] = {}
    if concurrency is not None:
        changes["concurrency"] = None if concurrency == NONE else count(concurrency, "--concurrency")
    if queue is not None:
        changes["queue"] = None if queue == NONE else count(queue, "--queue")
    if timeout is not None:
        changes["timeout"] = None if timeout == NONE else seconds(timeout, "--timeout")
    if sticky is not None:
        if sticky not in ("key", "request"):
            raise InvalidInput(f"{sticky!r} is nothing to stick to", where="--sticky", remedy="Write key or request")
        changes["sticky"] = sticky
    if not changes:
        raise InvalidInput(
            "nothing is to be changed", remedy="Name --concurrency, --queue, --timeout or --sticky, or see --help"
        )
    with connect() as client:
        found = client.set_endpoint(endpoint, **changes)
    if as_json:
        emit(found)
    else:
        _show_settings(found)


@app.command("rm")
def rm(endpoint: Name, as_json: AsJson = False) -> None:
    """Take an endpoint away; its models stay. Requests to it are refused from now on."""
    with connect() as client:
        client.delete_endpoint(endpoint)
    if as_json:
        emit({"removed": endpoint})
    else:
        say(f"Removed endpoint {endpoint}.")


@app.command("schema")
def schema(endpoint: Name, as_json: AsJson = False) -> None:  # noqa: ARG001 - JSON Schema is JSON in any case
    """Print the JSON Schemas of what an endpoint takes and answers."""
    with connect() as client:
        emit(client.schema(endpoint))


def _check_trial(canary: int | None, shadow: bool) -> None:
    """Refuse what no service is to be asked for."""
    from yunmo.core.errors import InvalidInput

    if canary is not None and shadow:
        raise InvalidInput("a version is tried as a canary or as a shadow", where="--shadow", remedy="Leave one out")
    if canary is not None and not 1 <= canary <= 99:
        raise InvalidInput(
            f"{canary} is not a canary's share",
            where="--canary",
            remedy="Write 1 to 99; for all traffic leave --canary out",
        )


def _show(found: Endpoint) -> None:
    before = f" (before: {_name(found.previous)})" if found.previous else ""
    line = f"Endpoint [bold]{found.name}[/bold] answers with [bold]{_name(found.live)}[/bold]"
    if found.canary:
        line += f" ({found.live.weight} %) and [bold]{_name(found.canary)}[/bold] ({found.canary.weight} %)"
    say(f"{line}{before}")
    if found.shadow:
        say(f"Shadow: [bold]{_name(found.shadow)}[/bold]; its answers are compared and never returned")


def _show_settings(found: Endpoint) -> None:
    limits = found.limits
    facts(
        [
            ("requests at once", _limit(limits.concurrency)),
            ("rows in progress", _limit(limits.queue)),
            ("seconds a request", _limit(limits.timeout)),
            ("canary decided by", "header yunmo-sticky, else " + ("the key" if found.sticky == "key" else "chance")),
            ("changed", when(found.updated_at)),
        ]
    )


def _name(part: EndpointVersion | None) -> str:
    return f"{part.model}:{part.version}" if part else ""


def _option(found: Endpoint) -> str:
    assumed = found.canary.model if found.canary else ""
    return "" if found.name == assumed else f" --endpoint {found.name}"


def _state(found: Endpoint) -> str:
    return "answers" if found.ready else "not ready"


def _part_state(role: str, part: EndpointVersion) -> str:
    if role == "before":
        return "loaded: back at once" if part.ready else "not loaded"
    return ("ready" if part.ready else "not ready") + (", in a process of its own" if part.isolated else "")


def _limit(value: float | None) -> str:
    return "default" if value is None else f"{value:g}"
