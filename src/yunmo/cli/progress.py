"""What a run looks like while it happens: live on a terminal, line by line elsewhere, NDJSON for machines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self

from yunmo.cli.output import duration, emit_line, grid, metric, stderr, stdout
from yunmo.core.events import (
    DataPrepared,
    EpochFinished,
    RecipeResolved,
    RunNotice,
    RunStarted,
    StepFinished,
    StepStarted,
    TrainingProgress,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import TaskID

    from yunmo.core.events import Envelope

STEPS = {
    "prepare": "Preparing data",
    "train": "Training",
    "evaluate": "Evaluating",
    "pack": "Packing",
    "sign": "Signing",
    "register": "Registering",
}
EPOCH_LINES = 20
"""About so many epochs leave a line above the bar; the bar shows all."""
LINE_EVERY = 10.0
"""Seconds between two lines of progress where no terminal redraws them."""


class View(Protocol):
    """Something that shows a run's events as they come."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def show(self, envelope: Envelope) -> None:
        """Show an event."""

    def note(self, message: str) -> None:
        """Show a line of our own."""


def view(as_json: bool) -> View:
    """Return the view that fits where stdout goes."""
    if as_json:
        return JsonView()
    return LiveView(stdout()) if sys.stdout.isatty() else LineView(stdout())


class JsonView:
    """Events as NDJSON."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()

    def show(self, envelope: Envelope) -> None:
        """Write an event as a line."""
        emit_line(envelope)

    def note(self, message: str) -> None:
        """Write to stderr, which machines leave to people."""
        stderr().print(message)


class LineView:
    """Events as lines of text that stay."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._last = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def note(self, message: str) -> None:
        """Write a line."""
        self.console.print(message)

    def show(self, envelope: Envelope) -> None:
        """Write what an event says, if it says something that is worth a line."""
        event = envelope.event
        if isinstance(event, TrainingProgress) and time.monotonic() - self._last < LINE_EVERY:
            return
        for part in render(event):
            self._last = time.monotonic()
            self.console.print(part)


class LiveView:
    """Events above a bar that is redrawn: the step at work, loss, validation result, time left."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self.console = console
        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[detail]}"),
            console=console,
            transient=True,
            refresh_per_second=8,
        )
        self._task: TaskID = self._progress.add_task("Waiting", total=None, detail="for its turn")
        self._validation = ""
        self._best: float | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def note(self, message: str) -> None:
        """Write a line above the bar."""
        self.console.print(message)

    def show(self, envelope: Envelope) -> None:
        """Move the bar, or write what the event says above it."""
        event = envelope.event
        if isinstance(event, TrainingProgress):
            done = (event.epoch - 1) * event.steps + event.step
            details = [f"epoch {event.epoch}/{event.epochs}", f"loss {event.loss:.3f}", self._validation]
            details.append(f"{duration(event.seconds_left)} left")
            self._update(
                "Training",
                total=event.epochs * event.steps,
                completed=done,
                detail=" · ".join(detail for detail in details if detail),
            )
            return
        if isinstance(event, EpochFinished):
            if event.best:
                self._best = event.value
            best = f" (best {metric(event.metric, self._best)})" if self._best is not None and not event.best else ""
            self._validation = f"validation {event.metric} {metric(event.metric, event.value)}{best}"
            if event.epoch % (event.epochs // EPOCH_LINES + 1) and event.epoch < event.epochs:
                return
        elif isinstance(event, StepStarted):
            self._update(STEPS.get(event.step, event.step), total=None, detail="")
        for part in render(event):
            self.console.print(part)

    def _update(self, description: str, **fields: Any) -> None:
        self._progress.update(self._task, description=description, **fields)


def render(event: object) -> Iterator[RenderableType]:
    """Yield what there is to read about an event; nothing for those that only count."""
    if isinstance(event, RunStarted) and event.attempt > 1:
        yield f"[dim]Going on from the last checkpoint (attempt {event.attempt})[/dim]"
    elif isinstance(event, StepFinished):
        yield f"[green]✓[/green] {STEPS.get(event.step, event.step)} [dim]{duration(event.seconds)}[/dim]"
    elif isinstance(event, DataPrepared):
        rows = ", ".join(f"{count:,} {split}" for split, count in event.rows.items())
        yield f"  [bold]Rows[/bold] {rows}"
        yield from (f"  [dim]{line}[/dim]" for line in cleaning_lines(event.cleaning))
    elif isinstance(event, RecipeResolved):
        yield decisions(event)
    elif isinstance(event, RunNotice):
        color = {"warning": "yellow", "error": "red"}.get(event.level, "dim")
        yield f"  [{color}]{_escaped(event.message)}[/{color}]"
    elif isinstance(event, TrainingProgress):
        yield f"  epoch {event.epoch}/{event.epochs}, loss {event.loss:.3f}, {duration(event.seconds_left)} left"
    elif isinstance(event, EpochFinished):
        star = " [green]best so far[/green]" if event.best else ""
        yield (
            f"  epoch {event.epoch:>{len(str(event.epochs))}}/{event.epochs}"
            f"  loss {event.train_loss:.4f}  validation loss {event.validation_loss:.4f}"
            f"  {event.metric} {metric(event.metric, event.value)}  [dim]{duration(event.seconds)}[/dim]{star}"
        )


def decisions(event: RecipeResolved) -> RenderableType:
    """Return the table of what was chosen, and why."""
    made = grid(("key", "chosen", "because"), title="What was left open, what it was given, and why")
    for decision in event.decisions:
        made.add_row(
            decision.key, f"[bold]{_escaped(decision.value)}[/bold]", f"[dim]{_escaped(decision.reason)}[/dim]"
        )
    return made if event.decisions else "  [dim]The recipe left nothing open[/dim]"


def cleaning_lines(cleaning: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each thing that cleaning found: where, what, how often, what was done, and the first rows."""
    for issue in cleaning.get("issues", ()):
        place = ", ".join(part for part in (issue.get("split"), issue.get("field")) if part)
        rows = list(issue.get("rows", ()))
        shown = f" ({', '.join(rows[:3])}{', …' if issue['count'] > 3 else ''})" if rows else ""
        count = f"{issue['count']:,} {'row' if issue['count'] == 1 else 'rows'}"
        yield _escaped(f"{place}: {issue['reason']}, {count}: {issue['action']}{shown}")


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


@contextmanager
def transfer(quiet: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """Give a callback that draws an upload on a terminal; unseen ones draw nothing."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("Uploading"), BarColumn(bar_width=28), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("upload", total=None)
        yield lambda sent, total: bar.update(task, completed=sent, total=total)


@contextmanager
def counted(what: str, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Give a callback that draws, on a terminal, how many of how many rows are done."""
    if quiet or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(bar_width=28), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
