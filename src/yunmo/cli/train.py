"""``yunmo train``: from data or a recipe to a signed model, in front of one's eyes."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yunmo.cli.output import AsJson, emit, emit_line, say
from yunmo.cli.place import connect
from yunmo.core.errors import InvalidInput

if TYPE_CHECKING:
    from yunmo.cli.progress import View
    from yunmo.client.client import Client
    from yunmo.core.resources import Run


def train(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="Data (folder, zip, tar, CSV, JSON Lines, Parquet, npz), or a recipe (.yaml, .yml).",
            show_default=False,
        ),
    ],
    test: Annotated[Path | None, typer.Option(help="Data to test on. [a part of SOURCE, held out]")] = None,
    validation: Annotated[Path | None, typer.Option(help="Data to choose on. [a part of SOURCE, held out]")] = None,
    target: Annotated[str | None, typer.Option(help="Column of a table to predict.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model. [SOURCE's name]")] = None,
    budget: Annotated[str | None, typer.Option(help="Time for the whole run: 90, 90s, 5m, 1h. [5m]")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A key of the recipe, such as train.epochs=20."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Begin the run and don't wait for it.")] = False,
    as_json: AsJson = False,
) -> int | None:
    """Train a model: fields, network and settings are inferred and shown; a recipe gives full control."""
    from yunmo.cli.progress import transfer

    recipe, folder = recipe_of(source, test, validation, name, budget, settings or [])
    with connect() as client:
        with transfer(as_json) as progress:
            run = client.train(recipe, target=target, folder=folder, progress=progress)
        if detach:
            if as_json:
                emit(run)
            else:
                say(f"Began run [bold]{run.id}[/bold]. Follow it: yunmo runs logs {run.id}")
            return None
        return watch(client, run, as_json)


def recipe_of(
    source: Path, test: Path | None, validation: Path | None, name: str | None, budget: str | None, settings: list[str]
) -> tuple[dict[str, Any], Path]:
    """Return the recipe that a command line means, and the folder that its paths are relative to.

    Raises:
        RecipeError: the recipe, or a ``--set``, that does not fit.
        InvalidInput: no such file, or a budget that is no length of time.
    """
    import yaml

    from yunmo.cli.values import seconds
    from yunmo.core.recipe import parse_recipe, with_settings

    if not source.exists():
        raise InvalidInput("no such file or folder", where=str(source))
    data: dict[str, Any]
    if source.is_file() and source.suffix.lower() in (".yaml", ".yml"):
        text = source.read_text(encoding="utf-8", errors="replace")
        parse_recipe(text, where=str(source))
        data, folder = yaml.safe_load(text), source.resolve().parent
    else:
        data, folder = {"data": {"train": str(source.resolve())}}, Path.cwd()
    for split, path in (("test", test), ("validation", validation)):
        if path is not None:
            if not path.exists():
                raise InvalidInput("no such file or folder", where=str(path))
            data["data"][split] = str(path.resolve())
    if name is not None:
        data["name"] = name
    if budget is not None:
        data["train"] = {**(data.get("train") or {}), "budget": seconds(budget, "--budget")}
    return with_settings(data, settings), folder


def watch(client: Client, run: Run, as_json: bool, *, after: int = 0) -> int | None:
    """Show a run until it ends, then its report. Ctrl-C stops it cleanly.

    Args:
        client: where the run is.
        run: the run.
        as_json: NDJSON of its events, then of the run and its report.
        after: sequence number of the last event that is not shown.

    Returns:
        An exit status, or None for success.

    Raises:
        YunmoError: why the run failed.
    """
    from yunmo.cli.main import INTERRUPTED
    from yunmo.cli.progress import view
    from yunmo.core.errors import Cancelled, Unavailable, from_problem
    from yunmo.core.events import RunCancelled, RunFailed, RunFinished

    with contextlib.ExitStack() as stack:
        with view(as_json) as shown:
            shown.note(f"Run [bold]{run.id}[/bold], model [bold]{run.name}[/bold]")
            followed = _Followed(client, run.id, shown, stack)
            ending = followed.until_it_ends(after)
        if isinstance(ending, RunFinished):
            _finish(followed.client, run.id, as_json)
            return None
        if isinstance(ending, RunFailed):
            raise from_problem(ending.problem)
        resume = f"yunmo runs resume {run.id}"
        if not isinstance(ending, RunCancelled):
            raise Unavailable(
                "the events end before the run does", where=run.id, remedy=f"See: yunmo runs show {run.id}"
            )
        if not followed.interrupted:
            raise Cancelled("the run was stopped by someone", where=run.id, remedy=f"Go on with: {resume}")
        if as_json:
            emit_line({"run": followed.client.run(run.id), "report": None})
        typer.echo(f"resume with: {resume}", err=True)
        return INTERRUPTED


class _Followed:
    """A run that is shown.

    Args:
        client: where it is.
        run_id: the run.
        shown: what shows its events.
        stack: what closes a session that is opened on the way.
    """

    def __init__(self, client: Client, run_id: str, shown: View, stack: contextlib.ExitStack) -> None:
        self.client = client
        self.interrupted = False
        """Whether Ctrl-C was pressed."""
        self._run_id = run_id
        self._shown = shown
        self._stack = stack

    def until_it_ends(self, after: int) -> object:
        """Show the events after one, and return the last."""
        from yunmo.core.errors import Unavailable

        event: object = None
        while True:
            try:
                for envelope in self.client.events(self._run_id, after=after):
                    after, event = envelope.sequence, envelope.event
                    self._shown.show(envelope)
                return event
            except KeyboardInterrupt:
                if self.interrupted:
                    raise
                self.interrupted = True
                self._shown.note("[yellow]Stopping; the checkpoint is kept (Ctrl-C again: don't wait)[/yellow]")
                _cancel(self.client, self._run_id)
            except Unavailable:
                if not self.client.uds:
                    raise
                self._move()

    def _move(self) -> None:
        """Go on in another session: the command that carried the run out in its own has ended."""
        self.client = self._stack.enter_context(connect())
        if self.client.run(self._run_id).status in ("queued", "running"):
            self.client.resume(self._run_id)
            if self.interrupted:
                _cancel(self.client, self._run_id)


def _cancel(client: Client, run_id: str) -> None:
    from yunmo.core.errors import Conflict

    try:
        client.cancel(run_id)
    except Conflict:
        return  # it ended in the meantime, and its last event is on the way


def _finish(client: Client, run_id: str, as_json: bool) -> None:
    from yunmo.cli.report import show_report

    run = client.run(run_id)
    report = client.report(run_id)
    if as_json:
        emit_line({"run": run, "report": report})
        return
    show_report(report)
    model = f"{run.model}:{run.version}"
    say(f"[green]✓[/green] Packed, signed and registered as [bold]{model}[/bold]")
    say(f"  Report: {page(client, run)}")
    say(f"\nNext:\n  yunmo deploy {model}\n  yunmo up\n  yunmo predict {run.model} FILE")


def page(client: Client, run: Run) -> str:
    """Return where the run's report can be looked at: a file of this workspace, or a URL."""
    from yunmo.cli.place import home

    digest = client.model(f"{run.model}:{run.version}").digest
    file = home() / "bundles" / digest.removeprefix("sha256:") / "report.html"
    return str(file) if client.uds and file.is_file() else f"{client.url}/api/v1/runs/{run.id}/report"
