"""``yunmo runs``: what was trained, is trained, and waits to be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yunmo.cli.output import AsJson, emit, emit_line, facts, metric, say, stdout, table, when
from yunmo.cli.place import connect

if TYPE_CHECKING:
    from yunmo.core.events import AnyEvent
    from yunmo.core.resources import Run

app = typer.Typer(help="Runs: executions of recipes; they survive crashes and can be resumed.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="As `yunmo runs ls` shows it.")]


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List the runs, newest first."""
    with connect() as client:
        found = client.runs()
    if as_json:
        emit(found)
        return
    rows = [
        (run.id, run.name, run.status, _result(run), run.dataset, when(run.created_at))
        for run in sorted(found, key=lambda run: run.id, reverse=True)
    ]
    table(
        ("id", "name", "status", "result", "dataset", "begun"),
        rows,
        empty="No runs. Begin one with `yunmo train DATA`.",
    )


@app.command("show")
def show(
    run_id: Id,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report as one self-contained HTML page.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a run: what it did, what it was given, and its report."""
    from yunmo.cli.report import show_report

    with connect() as client:
        run = client.run(run_id)
        done = run.status == "succeeded"
        if html is not None:
            html.write_text(client.report_html(run.id), encoding="utf-8")
        report = client.report(run.id) if done else None
    if as_json:
        emit({"run": run, "report": report})
        return
    facts(
        [
            ("run", run.id),
            ("name", run.name),
            ("status", run.status),
            ("model", f"{run.model}:{run.version}" if run.version else "none"),
            ("dataset", run.dataset),
            ("attempt", run.attempt),
            ("begun", when(run.created_at)),
            ("changed", when(run.updated_at)),
        ]
    )
    if run.problem:
        from yunmo.core.errors import from_problem

        say(f"[red]error:[/red] {from_problem(run.problem)}")
    if report is not None:
        show_report(report)
    if html is not None:
        say(f"Wrote {html}")


@app.command("logs")
def logs(
    run_id: Id,
    process: Annotated[bool, typer.Option("--process", help="What its process wrote, instead of its events.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a run's events, and follow them until it ends (Ctrl-C: stop following; the run goes on)."""
    from yunmo.cli.progress import LineView

    with connect() as client:
        if process:
            text = client.log(run_id)
            if as_json:
                emit({"log": text})
            else:
                typer.echo(text, nl=False)
            return
        shown = LineView(stdout())
        for envelope in client.events(run_id):
            if as_json:
                emit_line(envelope)
            else:
                shown.show(envelope)
                for line in _ending(run_id, envelope.event):
                    say(line)


def _ending(run_id: str, event: AnyEvent) -> Iterator[str]:
    """Yield what is to be said of an event that ends a run."""
    from rich.markup import escape

    from yunmo.core.errors import from_problem
    from yunmo.core.events import RunCancelled, RunFailed, RunFinished

    if isinstance(event, RunFinished):
        yield f"[green]✓[/green] Registered as [bold]{escape(event.model)}:{event.version}[/bold]"
    elif isinstance(event, RunFailed):
        yield f"[red]✗[/red] {escape(str(from_problem(event.problem)))}"
    elif isinstance(event, RunCancelled):
        yield f"Stopped. Resume with: yunmo runs resume {run_id}"


@app.command("cancel")
def cancel(run_id: Id, as_json: AsJson = False) -> None:
    """Stop a run; it writes its checkpoint first and can be resumed."""
    with connect() as client:
        run = client.cancel(run_id)
    if as_json:
        emit(run)
    else:
        say(f"Stopping {run.id}. Resume with: yunmo runs resume {run.id}")


@app.command("resume")
def resume(
    run_id: Id,
    detach: Annotated[bool, typer.Option("--detach", help="Don't wait for it.")] = False,
    as_json: AsJson = False,
) -> int | None:
    """Let a stopped or failed run go on from its last checkpoint, and show it."""
    from yunmo.cli.train import watch

    with connect() as client:
        stopped = client.run(run_id).status in ("failed", "cancelled")
        shown = [envelope.sequence for envelope in client.events(run_id)] if stopped and not detach else []
        run = client.resume(run_id)
        if not detach:
            return watch(client, run, as_json, after=max(shown, default=0))
    if as_json:
        emit(run)
    else:
        say(f"Run {run.id} goes on.")
    return None


def _result(run: Run) -> str:
    if run.problem:
        return str(run.problem.get("detail", ""))
    pairs: list[tuple[str, Any]] = list((run.summary or {}).items())[:1]
    return ", ".join(f"{name} {metric(name, value)}" for name, value in pairs)
