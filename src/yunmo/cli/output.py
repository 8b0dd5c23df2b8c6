"""What the command line writes: tables and text for people, JSON for machines; results on stdout, errors on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Answer with JSON on stdout, for machines.")]


WIDE = 140
"""Columns of a table that goes to a file or a pipe."""


def stdout() -> Console:
    """Return a console on stdout; where nobody looks at a terminal, lines may be long."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    return Console(highlight=False, soft_wrap=not terminal, width=None if terminal else WIDE)


def stderr() -> Console:
    """Return a console on stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def emit(value: object) -> None:
    """Write a value as indented JSON on stdout."""
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def emit_line(value: object) -> None:
    """Write a value as one line of JSON on stdout, at once."""
    import msgspec

    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Write a line for a person on stdout, with Rich's markup; it is not broken, so that a command can be copied."""
    stdout().print(text, soft_wrap=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Write a table on stdout, or one line if it would have no rows.

    Args:
        headings: of the columns; ``>`` before aligns right, ``<`` behind keeps the cells from being wrapped.
        rows: their cells.
        empty: what to say and do if there are none.
    """
    made = grid(headings)
    for row in rows:
        made.add_row(*(_cell(cell) for cell in row))
    if made.row_count:
        stdout().print(made)
    else:
        say(f"[dim]{empty}[/dim]")


def grid(headings: Sequence[str], *, title: str | None = None) -> Table:
    """Return an empty table in the house's style."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for heading in headings:
        justify: Literal["left", "right"] = "right" if heading.startswith(">") else "left"
        made.add_column(heading.strip("><"), justify=justify, overflow="fold", no_wrap=heading.endswith("<"))
    return made


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Write names and values on stdout, one pair a line."""
    from rich.table import Table

    made = Table.grid(padding=(0, 2))
    for name, value in pairs:
        made.add_row(f"[dim]{name}[/dim]", _cell(value))
    stdout().print(made)


def _cell(value: object) -> str:
    from rich.markup import escape

    return escape("" if value is None else str(value))


def when(seconds: float | None) -> str:
    """Return a time (seconds since 1970) as local date and time."""
    if seconds is None:
        return "never"
    return datetime.fromtimestamp(seconds, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def size(count: float) -> str:
    """Return a number of bytes for reading."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Return a length of time for reading: ``8.2 s``, ``1:05``, ``2:01:05``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def number(value: Any) -> str:
    """Return a number for reading, with four significant digits."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


SHARES = frozenset(
    {"accuracy", "precision", "recall", "f1", "f1_micro", "calibration_error", "subset_accuracy", "hamming_loss"}
)
"""Metrics that are read as percentages."""
_THREE_DECIMALS = frozenset({"roc_auc", "log_loss", "r2"})


def metric(name: str, value: float | None) -> str:
    """Return a metric's value for reading: percent for shares."""
    if value is None:
        return "-"
    if name in SHARES:
        return f"{value * 100:.1f} %"
    return f"{value:.3f}" if name in _THREE_DECIMALS else f"{value:.4g}"


_BARS = "▁▂▃▄▅▆▇█"


def curve(values: Sequence[float], width: int = 40) -> str:
    """Return a line of bars, the lowest value the lowest bar; at most ``width`` of them, each the mean of its part."""
    if not values:
        return ""
    count = min(width, len(values))
    edges = [round(place * len(values) / count) for place in range(count + 1)]
    means = [sum(values[low:high]) / (high - low) for low, high in pairwise(edges)]
    low, reach = min(means), max(means) - min(means)
    return "".join(_BARS[round((value - low) / reach * (len(_BARS) - 1)) if reach else 0] for value in means)
