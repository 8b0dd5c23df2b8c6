"""The report of a run as plain JSON data: everything that the page, the command line and the model card show of it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from yunmo.core.events import Decision, EpochFinished
from yunmo.core.fields import FieldStatistics
from yunmo.core.recipe import METRICS, Recipe, dump_recipe, recipe_data
from yunmo.training.data import Texts

FORMAT = 1
"""Version of the report's shape."""

LABELS = {
    "accuracy": "Accuracy",
    "precision": "Precision (macro)",
    "recall": "Recall (macro)",
    "f1": "F1 (macro)",
    "precision_micro": "Precision (micro)",
    "recall_micro": "Recall (micro)",
    "f1_micro": "F1 (micro)",
    "subset_accuracy": "Exact match",
    "hamming_loss": "Hamming loss",
    "roc_auc": "ROC-AUC",
    "calibration_error": "Calibration error",
    "log_loss": "Log loss",
    "mae": "Mean absolute error",
    "mse": "Mean squared error",
    "rmse": "Root mean squared error",
    "r2": "R²",
}
"""What people call each metric."""

SHARES = frozenset(
    {
        *("accuracy", "precision", "recall", "f1", "precision_micro", "recall_micro", "f1_micro"),
        *("calibration_error", "subset_accuracy", "hamming_loss"),
    }
)
"""Metrics that are shown in percent."""

_TASKS = {"category": "classification", "labels": "multi-label classification", "number": "regression"}

DECISIVE = {"category": "accuracy", "labels": "f1_micro", "number": "rmse"}
"""By type of output, the metric by which models are compared."""

_POINTS = {"accuracy": "accuracy", "f1_micro": "F1 (micro)"}

SHOWN = 300
"""Characters of a text that the report shows."""

_VERSIONS = ("yunmo", "torch", "numpy", "scikit-learn", "onnxruntime")


def make_report(
    *,
    name: str,
    recipe: Recipe,
    statistics: Mapping[str, FieldStatistics],
    rows: Mapping[str, int],
    cleaning: Mapping[str, Any],
    decisions: Sequence[Decision],
    history: Sequence[EpochFinished],
    test: Mapping[str, dict[str, Any]],
    validation: Mapping[str, dict[str, Any]],
    baselines: Mapping[str, dict[str, Any]],
    timing: Mapping[str, float],
    created: float | None = None,
) -> dict[str, Any]:
    """Bring together all that is known of a run.

    Args:
        name: of the model.
        recipe: resolved.
        statistics: of every field.
        rows: of each split.
        cleaning: what was left out and why, as preparing the data reports it.
        decisions: everything the recipe had left open.
        history: every epoch, in order.
        test: metrics of each output on the test split, from `evaluate`.
        validation: the same on the validation split.
        baselines: from `baselines`, or empty.
        timing: seconds of each step.
        created: seconds since 1970; None for now.
    """
    outputs = recipe.outputs or ()
    kinds = {str(type(field).__struct_config__.tag) for field in outputs}
    task = _TASKS[kinds.pop()] if len(kinds) == 1 else "mixed"
    best = [epoch.epoch for epoch in history if epoch.best]
    report = {
        "format": FORMAT,
        "name": name,
        "task": task,
        "created": time.time() if created is None else created,
        "data": {
            "rows": dict(rows),
            "digests": dict(recipe.data.digests),
            "cleaning": dict(cleaning),
            "inputs": [_field(field, statistics) for field in recipe.inputs or ()],
            "outputs": [_field(field, statistics) for field in outputs],
        },
        "decisions": list(decisions),
        "recipe": recipe_data(recipe),
        "recipe_yaml": dump_recipe(recipe),
        "training": {
            "history": list(history),
            "best_epoch": best[-1] if best else None,
            "kept_epoch": best[-1] if best and recipe.train.keep != "last" else len(history) or None,
        },
        "test": dict(test),
        "validation": dict(validation),
        "baselines": dict(baselines),
        "verdicts": {output: verdict(test[output], against) for output, against in baselines.items()},
        "timing": dict(timing),
        "environment": environment(),
    }
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(report))  # specs become dicts, NaN becomes null
    return plain


def add_texts(evaluation: Mapping[str, dict[str, Any]], texts: Mapping[str, Texts]) -> None:
    """Put the texts of the worst mistakes beside them.

    Args:
        evaluation: as `evaluate` gives it; the entries of each ``worst`` get ``text``, by field.
        texts: of the same rows, by field.
    """
    for values in evaluation.values() if texts else ():
        for entry in values["worst"]:
            row = entry["row"]
            entry["text"] = {name: column[row : row + 1][0][:SHOWN] for name, column in texts.items()}


def verdict(network: Mapping[str, Any], against: Mapping[str, Any]) -> dict[str, Any]:
    """Say in a sentence whether the network is worth it.

    Args:
        network: the network's metrics of one output on the test split.
        against: the baselines of that output, as `baselines` gives them.

    Returns:
        ``best`` (``network``, ``linear``, ``simple`` or ``undecided``), the ``metric`` compared and the ``sentence``.
    """
    metric = DECISIVE[network["type"]]
    sign = -1 if metric == "rmse" else 1
    simple, linear = against["simple"], against["linear"]
    mine, line, base = (sign * float(values[metric]) for values in (network, linear["metrics"], simple["metrics"]))
    apart = _apart(network, linear["metrics"], metric)
    if max(mine, line) <= base:
        best, sentence = "simple", f"Neither the network nor a linear model beats the {simple['name']}"
    elif mine > line and apart:
        better = _better("The network", "a linear model", metric, mine, line)
        best, sentence = "network", f"{better} (95 % intervals do not overlap)"
    elif mine > line:
        better = _better("The network", "a linear model", metric, mine, line)
        best, sentence = "undecided", f"{better}, but the 95 % intervals overlap: it may be chance"
    elif apart:
        best, sentence = "linear", f"{_better('A linear model', 'the network', metric, line, mine)}: use it"
    else:
        best, sentence = "linear", "A linear model is as good: use it"
    return {"best": best, "metric": metric, "sentence": sentence}


def _apart(one: Mapping[str, Any], other: Mapping[str, Any], metric: str) -> bool:
    first, second = one["intervals"].get(metric), other["intervals"].get(metric)
    return bool(first and second and (first[1] < second[0] or second[1] < first[0]))


def _better(who: str, whom: str, metric: str, one: float, other: float) -> str:
    if metric != "rmse":
        return f"{who} is better than {whom} by {(one - other) * 100:.1f} points of {_POINTS[metric]}"
    return f"{who} is better than {whom}: its error (RMSE) is smaller by {(1 - one / other) * 100:.1f} %"


def _field(field: Any, statistics: Mapping[str, FieldStatistics]) -> dict[str, Any]:
    known = statistics.get(field.name)
    kind = type(field).__struct_config__.tag
    return {
        "name": field.name,
        "type": kind,
        "shape": list(known.shape) if known else [],
        "missing": known.missing if known else 0,
    }


def environment() -> dict[str, Any]:
    """Return the versions and the machine a run depends on, without importing anything large."""
    versions = {}
    for package in _VERSIONS:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 1,
    }


def metric_names(report: Mapping[str, Any], output: str) -> list[str]:
    """Return the metrics to show first for an output: those of the recipe, or those usual for its task."""
    usual = METRICS[report["test"][output]["type"]]
    wanted = report["recipe"]["evaluate"]["metrics"]
    return [metric for metric in wanted if metric in usual] or list(usual)


def summary(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that matter on the test split, by name (``OUTPUT.METRIC`` where there are several outputs)."""
    several = len(report["test"]) > 1
    return {
        f"{output}.{metric}" if several else metric: float(values[metric])
        for output, values in report["test"].items()
        for metric in metric_names(report, output)
        if values[metric] is not None
    }


def headline(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a terminal shows of a report: labels and values, with 95 % intervals where there are some."""
    lines = []
    several = len(report["test"]) > 1
    for output, values in report["test"].items():
        before = f"{output}: " if several else ""
        lines += [(before + LABELS[metric], with_interval(metric, values)) for metric in metric_names(report, output)]
        against = report["baselines"].get(output)
        if against:
            metric = report["verdicts"][output]["metric"]
            lines += [
                (before + title(against[kind]["name"]), with_interval(metric, against[kind]["metrics"]))
                for kind in ("linear", "simple")
            ]
            lines.append((before + "Verdict", report["verdicts"][output]["sentence"]))
    return lines


def title(text: str) -> str:
    """Begin a text with a capital letter, and leave the rest."""
    return text[:1].upper() + text[1:]


def with_interval(metric: str, values: Mapping[str, Any]) -> str:
    """Format a metric, with its interval where it has one: ``97.4 % (95.0 to 98.9)``."""
    value, interval = values[metric], values["intervals"].get(metric)
    if value is None:
        return "not defined"
    text = format_metric(metric, value)
    if not interval:
        return text
    low, high = (format_metric(metric, bound).removesuffix(" %") for bound in interval)
    return f"{text} ({low} to {high})"


def format_metric(metric: str, value: float) -> str:
    """Format a metric for reading: shares in percent, others with four digits that count."""
    if metric in SHARES:
        return f"{value * 100:.1f} %"
    if metric in {"roc_auc", "log_loss", "r2"}:
        return f"{round(value, 3) + 0:.3f}"
    return format_number(value)


def format_number(value: float) -> str:
    """Format a number with four digits that count, and thousands separated."""
    if value and not 1e-3 <= abs(value) < 1e7:
        return f"{value:.3g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
