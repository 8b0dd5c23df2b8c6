"""``yunmo advise``: before anything is trained, which network to take, and what it will cost and reach."""

from __future__ import annotations

import os
import signal
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yunmo.cli.output import AsJson, duration, emit, grid, metric, number, say, size, stderr, stdout
from yunmo.cli.place import home
from yunmo.cli.train import recipe_of

if TYPE_CHECKING:
    from yunmo.core.advice import Advice, Candidate, Range, Yardstick

_MOST_DECISIONS = 8


def advise(
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
    budget: Annotated[str | None, typer.Option(help="Time for the whole run: 90, 90s, 5m, 1h. [5m]")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A key of the recipe, such as train.epochs=20."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say within 20 seconds which network to take, and what it will cost and reach; nothing is kept."""
    from yunmo.app.advising import advise as ask
    from yunmo.core.settings import load_settings

    recipe, folder = recipe_of(source, test, validation, None, budget, settings or [])
    command = ["yunmo", "train", str(source)]
    for option, value in (("--test", test), ("--validation", validation), ("--target", target), ("--budget", budget)):
        command += [option, str(value)] if value is not None else []
    for setting in settings or []:
        command += ["--set", setting]
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)  # so that what was started is ended with us
    file = home() / "settings.yaml"
    known = load_settings(file.read_text(encoding="utf-8") if file.is_file() else None, os.environ, where=str(file))
    with _waiting(as_json):
        advice = ask(recipe, folder, target=target, command=command, settings=known)
    if as_json:
        emit(advice)
    else:
        _show(advice)


def _waiting(as_json: bool) -> AbstractContextManager[Any]:
    """Show that something goes on, on a terminal."""
    shown = stderr()
    if as_json or not shown.is_terminal:
        return nullcontext()
    return shown.status("Trying networks on a sample, for at most 20 seconds …")


def _show(advice: Advice) -> None:
    from rich.markup import escape

    rows, looked = advice.rows, sum(advice.sampled.values())
    about = "" if advice.read == 1 else "about "
    counts = f"{rows['train']:,} rows to learn from, {rows['validation']:,} to choose by, {rows['test']:,} to test on"
    say(f"[bold]{escape(advice.data)}[/bold]: {about}{counts}; {looked:,} of them were looked at")
    shown = [each for each in advice.decisions if each.key.startswith(("inputs", "outputs"))]
    for decision in shown[:_MOST_DECISIONS]:
        say(f"  [dim]{escape(decision.key)}[/dim] {escape(decision.value)} [dim]{escape(decision.reason)}[/dim]")
    if len(shown) > _MOST_DECISIONS:
        say(f"  [dim]… and {len(shown) - _MOST_DECISIONS} more, with --json[/dim]")
    named = "R²" if advice.metric == "r2" else advice.metric
    made = grid(("network<", ">epochs<", ">training<", ">whole run<", ">memory<", f">{named} expected<"))
    for candidate in advice.candidates:
        made.add_row(*_cells(candidate, advice))
    linear = advice.linear
    made.add_row(f"[dim]{linear.name}[/dim]", "", "", "", "", _range(linear.metric, advice))
    stdout().print(made)
    say(f"[green]▍[/green] [bold]{escape(advice.recommended)}[/bold]: {escape(advice.reason)}")
    say(f"  {escape(advice.command)}")
    say("\nWhat was tried:")
    for each in advice.candidates:
        say(f"  {escape(each.name)}: [dim]{_tried(each, advice)}[/dim]")
        if each.metric is not None and each.name != advice.recommended:
            say(f"    [dim]{escape(each.command)}[/dim]")
    say(f"  {linear.name}: [dim]{_tried(linear, advice)}[/dim]")
    busy = f", {advice.load:.1f} processes at work" if advice.load is not None else ""
    say(f"\n[dim]Measured in {duration(advice.seconds)} on {advice.cores} cores{busy}; times grow with the load.[/dim]")


def _cells(candidate: Candidate, advice: Advice) -> list[str]:
    from rich.markup import escape

    name = escape(candidate.name)
    if candidate.name == advice.recommended:
        name = f"[bold]{name}[/bold]"
    seconds = candidate.seconds
    return [
        name,
        number(candidate.epochs),
        duration(seconds.epochs) if seconds else "-",
        duration(seconds.run) if seconds else "-",
        size(candidate.memory) if candidate.memory is not None else "-",
        _range(candidate.metric, advice),
    ]


def _range(found: Range | None, advice: Advice) -> str:
    if found is None:
        return "-"
    return f"{metric(advice.metric, found.low).removesuffix(' %')} to {metric(advice.metric, found.high)}"


def _tried(network: Candidate | Yardstick, advice: Advice) -> str:
    """Say what the last short training reached, or why there was none."""
    from rich.markup import escape

    if not network.probes:
        return escape(network.note or "")
    last = network.probes[-1]
    passes = f", {last.epochs} epochs" if last.epochs > 1 else ""
    return f"{metric(advice.metric, last.value)} from {last.rows:,} rows{passes}"
