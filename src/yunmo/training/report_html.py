"""The report as one self-contained page: no scripts, nothing loaded from anywhere, every text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from yunmo.training import plots
from yunmo.training.report import DECISIVE, LABELS, format_metric, format_number, metric_names, title, with_interval

PLOTTED_OUTPUTS = 3
"""Outputs that get plots; with more the page would be too large, and they keep their figures and tables."""
TABLE_ROWS = 100
YAML_LETTERS = 60_000


def render_html(report: Mapping[str, Any]) -> str:
    """Draw the page of a report.

    Args:
        report: as `make_report` gives it. Names in it are a user's data and are escaped.
    """
    environment = Environment(
        loader=PackageLoader("yunmo.training"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": format_number,
        "percent": lambda share: f"{share * 100:.1f} %",
        "short": lambda text: plots.shorten(str(text), 60),
        "plain": _plain,
        "duration": duration,
    }
    training = report["training"]
    text = report["recipe_yaml"]
    page: str = environment.get_template("report.html").render(
        report=report,
        created=datetime.fromtimestamp(report["created"], UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0"),
        outputs=[_output(report, name, place < PLOTTED_OUTPUTS) for place, name in enumerate(report["test"])],
        curves=plots.training_curves(training["history"], training["kept_epoch"]),
        recipe=text if len(text) <= YAML_LETTERS else text[:YAML_LETTERS] + "\n… (the whole recipe is in recipe.yaml)",
        table_rows=TABLE_ROWS,
    )
    return page


def _output(report: Mapping[str, Any], name: str, plotted: bool) -> dict[str, Any]:
    """Prepare what the page shows of one output."""
    test, against = report["test"][name], report["baselines"].get(name)
    validation = report["validation"].get(name, {})
    metrics = metric_names(report, name)
    models = [("Network", test)]
    if against:
        models += [(title(against[kind]["name"]), against[kind]["metrics"]) for kind in ("linear", "simple")]
    return {
        "name": name,
        "test": test,
        "tiles": [_tile(metric, test, validation) for metric in metrics],
        "verdict": report["verdicts"].get(name),
        "against": against,
        "models": [label for label, _ in models],
        "figures": [(LABELS[metric], [with_interval(metric, values) for _, values in models]) for metric in metrics],
        "folds": _folds(report, name, metrics),
        "plots": _plots(test, models) if plotted else {},
    }


def _folds(report: Mapping[str, Any], name: str, metrics: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return label, and mean, deviation and the value of each fold, of each metric; none without cross-validation."""
    found = report.get("cross_validation")
    if found is None:
        return []
    rows = []
    for metric in metrics:
        values = found["outputs"][name][metric]
        cells = [values["mean"], values["deviation"], *values["values"]]
        rows.append((LABELS[metric], ["–" if cell is None else format_metric(metric, cell) for cell in cells]))
    return rows


def _tile(metric: str, test: Mapping[str, Any], validation: Mapping[str, Any]) -> dict[str, str]:
    """Return label, value, interval and the value on validation of one metric."""
    value, _, interval = with_interval(metric, test).partition(" (")
    held = validation.get(metric)
    return {
        "label": LABELS[metric],
        "value": value,
        "interval": interval.removesuffix(")"),
        "validation": format_metric(metric, held) if held is not None else "",
    }


def _plots(test: Mapping[str, Any], models: list[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    comparison = plots.comparison(DECISIVE[test["type"]], models) if len(models) > 1 else None
    if test["type"] == "labels":
        return {"comparison": comparison}
    if test["type"] == "number":
        return {
            "comparison": comparison,
            "estimates": plots.estimates(test["pairs"]),
            "residuals": plots.residuals(test["residuals"]["histogram"]),
        }
    areas = {name: values["roc_auc"] for name, values in test["per_class"].items()}
    matrix = test["confusion_matrix"]
    return {
        "comparison": comparison,
        "confusion": plots.confusion(matrix, test["categories"]) if matrix else None,
        "reliability": plots.reliability(test["calibration"]),
        "roc": plots.roc(test["roc"], areas),
    }


def duration(seconds: float) -> str:
    """Format a time: ``0.4 s``, ``42 s``, ``3 min 20 s``."""
    if seconds < 0.1:
        return "under 0.1 s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _plain(value: Any) -> str:
    """Write a value of a nested report as a short text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        shown = ", ".join(_plain(inner) for inner in value[:10])
        return (f"{shown}, … ({len(value):,} in all)" if len(value) > 10 else shown) or "none"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else format_number(value)
