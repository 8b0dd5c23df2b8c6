"""A report on the terminal: metrics with intervals beside the baselines, and whether the network is worth it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.markup import escape

from yunmo.cli.output import curve, grid, metric, number, say, stdout
from yunmo.core.recipe import METRICS

MOST_CLASSES = 12
"""Classes shown one by one."""
MOST_MISTAKES = 3


def show_report(report: Mapping[str, Any]) -> None:
    """Draw a run's report: curves, the network beside its baselines on the test split, the classes, the verdict."""
    _curves((report.get("training") or {}).get("history") or ())
    for name, found in report.get("test", {}).items():
        against = (report.get("baselines") or {}).get(name) or {}
        others = [against[kind] for kind in ("linear", "simple") if kind in against]
        title = f"Report on {report.get('name')}: {name}, on {found.get('rows', 0):,} test rows it never saw"
        headings = ("metric<", ">network<", "95 % interval<", *(f">{other['name']}" for other in others))
        shown = grid(headings, title=title)
        for key in _wanted(report, found):
            cells = [metric(key, other["metrics"].get(key)) for other in others]
            shown.add_row(_label(key), f"[bold]{metric(key, found.get(key))}[/bold]", interval(found, key), *cells)
        stdout().print(shown)
        _classes(found)
        _mistakes(found)
        for note in found.get("notes", ()):
            say(f"[dim]{escape(note)}[/dim]")
        verdict = (report.get("verdicts") or {}).get(name)
        if verdict:
            color = {"network": "green", "undecided": "yellow"}.get(verdict.get("best"), "red")
            say(f"[{color}]▍[/{color}] [bold]{escape(verdict['sentence'])}[/bold]")
    _folds(report)


def _folds(report: Mapping[str, Any]) -> None:
    """Draw what cross-validation found: mean and deviation over the folds."""
    folds = report.get("cross_validation")
    if not folds:
        return
    kind = f"{folds['folds']} folds, {folds['method']}" + (f" by {folds['column']}" if folds["column"] else "")
    for name, found in folds["outputs"].items():
        shown = grid(("metric<", ">mean<", ">deviation<", "folds<"), title=f"Cross-validation: {name} ({escape(kind)})")
        for key in _wanted(report, report["test"][name]):
            values = found[key]
            each = "  ".join(metric(key, value) for value in values["values"])
            shown.add_row(_label(key), metric(key, values["mean"]), metric(key, values["deviation"]), each)
        stdout().print(shown)


def _curves(history: Sequence[Mapping[str, Any]]) -> None:
    """Draw loss and validation result over the epochs, a line of bars each."""
    if len(history) < 2:
        return
    name = str(history[-1]["metric"])
    for title, key, unit in (("training loss", "train_loss", "loss"), (f"validation {name}", "value", name)):
        values = [float(epoch[key]) for epoch in history]
        ends = f"{metric(unit, values[0])} → {metric(unit, values[-1])}"
        say(f"  [dim]{title:<20}[/dim] [cyan]{curve(values)}[/cyan]  {ends}")
    say("")


def _mistakes(found: Mapping[str, Any]) -> None:
    """Name the most frequent mistakes."""
    most = [
        f"{escape(each['true'])} taken for {escape(each['predicted'])} ({each['count']})"
        for each in (found.get("confusions") or ())[:MOST_MISTAKES]
    ]
    if most:
        say(f"[dim]Most frequent mistakes:[/dim] {', '.join(most)}")


def _wanted(report: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return the metrics to show: those that the recipe wants, or those usual for the task."""
    usual = METRICS.get(str(found.get("type")), ())
    wanted = ((report.get("recipe") or {}).get("evaluate") or {}).get("metrics") or ()
    return [key for key in wanted if key in usual] or list(usual)


def _label(key: str) -> str:
    macro = " (macro)" if key in ("precision", "recall", "f1") else ""
    return key.removesuffix("_micro").replace("_", " ") + (" (micro)" if key.endswith("_micro") else macro)


def show_metrics(evaluation: Mapping[str, Any]) -> None:
    """Draw what an evaluation found: metrics with 95 % intervals, then the classes."""
    for name, found in outputs_of(evaluation):
        kind = str(found.get("type", "category"))
        shown = grid(("metric<", ">value<", "95 % interval<"), title=f"{name}: {found.get('rows', 0):,} rows")
        for key in METRICS.get(kind, ()):
            if key in found:
                shown.add_row(_label(key), metric(key, found[key]), interval(found, key))
        stdout().print(shown)
        _classes(found)
        for note in found.get("notes", ()):
            say(f"[dim]{escape(note)}[/dim]")


def outputs_of(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the metrics of each output by its name."""
    if "outputs" in evaluation:
        yield from evaluation["outputs"].items()
    else:
        yield str(evaluation.get("output", "")), evaluation


def interval(found: Mapping[str, Any], key: str) -> str:
    """Return the 95 % interval of a metric for reading."""
    pair = (found.get("intervals") or {}).get(key)
    return f"[dim]{metric(key, pair[0]).removesuffix(' %')} to {metric(key, pair[1])}[/dim]" if pair else ""


def _classes(found: Mapping[str, Any]) -> None:
    per_class: Mapping[str, Mapping[str, Any]] = found.get("per_class") or {}
    if not per_class:
        return
    shown = grid(("class", ">precision", ">recall", ">f1", ">rows"))
    for name, scores in list(per_class.items())[:MOST_CLASSES]:
        cells = [metric(key, scores.get(key)) for key in ("precision", "recall", "f1")]
        shown.add_row(escape(name), *cells, number(scores.get("support")))
    stdout().print(shown)
    if len(per_class) > MOST_CLASSES:
        say(f"[dim]… and {len(per_class) - MOST_CLASSES} more classes, with --json[/dim]")
