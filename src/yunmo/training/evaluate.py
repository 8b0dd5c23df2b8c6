"""How good predictions are: everything the report, the API and the command line show, as plain JSON data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yunmo.core.errors import DataError
from yunmo.core.fields import CategoryOutput, FieldStatistics, LabelsOutput, OutputField
from yunmo.training import intervals, metrics
from yunmo.training.evaluate_labels import evaluate_labels
from yunmo.training.measured import WORST, check_answers, few_rows, pair
from yunmo.training.metrics import Floats, Integers

Tensors = dict[str, NDArray[Any]]
Predict = Callable[[Tensors], Tensors]

MATRIX_CLASSES = 200
"""Up to so many classes the confusion matrix is given in full; beyond, only its most frequent mistakes."""
CURVE_CLASSES = 8
CURVE_POINTS = 80
PAIRS = 400
"""Rows whose true and predicted numbers are kept for a plot."""
HISTOGRAM_BINS = 31


def predict_split(predict: Predict, inputs: Mapping[str, NDArray[Any]], batch: int = 256) -> Tensors:
    """Predict all rows, batch by batch, so that memory-mapped inputs are never read whole.

    Args:
        predict: what answers a batch: the network, a bundle's predictor, a baseline.
        inputs: encoded fields by tensor name; the first axis is the row.
        batch: rows in a call.

    Raises:
        DataError: there are no rows.
    """
    rows = len(next(iter(inputs.values()))) if inputs else 0
    if not rows:
        raise DataError("there are no rows to predict")
    parts = [
        predict({name: np.ascontiguousarray(values[start : start + batch]) for name, values in inputs.items()})
        for start in range(0, rows, batch)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def evaluate(
    outputs: Sequence[OutputField],
    statistics: Mapping[str, FieldStatistics],
    truth: Mapping[str, NDArray[Any]],
    predicted: Mapping[str, NDArray[Any]],
    *,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Measure predictions against the truth.

    Args:
        outputs: the fields to measure.
        statistics: of the outputs, by name (their categories).
        truth: by output, the index of the class (int, ``(rows,)``), the labels (0 or 1, ``(rows, labels)``) or the
            number (float, ``(rows,)``).
        predicted: by output, probabilities ``(rows, classes)`` or ``(rows, labels)``, or numbers ``(rows,)``.
        seed: of the bootstrap.

    Returns:
        By output name, JSON-able metrics. Category: ``accuracy``, macro ``precision``, ``recall`` and ``f1``,
        ``f1_micro``, ``roc_auc``, ``calibration_error``, ``log_loss``, ``per_class``, ``confusion_matrix``, …; labels:
        as `evaluate_labels` says; number: ``mae``, ``mse``, ``rmse``, ``r2``, ``residuals``, …; all: ``rows``,
        ``intervals`` (95 %), ``worst`` mistakes (``row`` counts from 0) and
        ``notes`` on what could not be measured. What is not defined is None.

    Raises:
        DataError: there are no rows, or a true value is missing or unknown.
        ModelFailed: the model answered NaN or infinity, or not as many values as there are rows or classes.
    """
    found = {}
    for field in outputs:
        name, true, answered = field.name, truth[field.name], predicted[field.name]
        if isinstance(field, CategoryOutput):
            found[name] = _category(field, statistics[name], true, answered, seed)
        elif isinstance(field, LabelsOutput):
            found[name] = evaluate_labels(field, statistics[name], true, answered, seed)
        else:
            found[name] = _number(name, true, answered, seed)
    return found


def flatten(evaluation: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Put the metrics of a model's only output at the top (``output`` names it); several stay under ``outputs``."""
    if len(evaluation) != 1:
        return {"outputs": dict(evaluation)}
    (name, values), *_ = evaluation.items()
    return {"output": name, **values}


def _category(
    field: CategoryOutput, statistics: FieldStatistics, truth: Integers, probabilities: Floats, seed: int
) -> dict[str, Any]:
    categories = list(field.categories or statistics.categories)
    check_answers(field.name, truth, probabilities, (len(truth), len(categories)))
    if truth.min() < 0 or truth.max() >= len(categories):
        row = int(np.flatnonzero((truth < 0) | (truth >= len(categories)))[0])
        raise DataError("a true class that the model does not know", where=f"output {field.name!r}, row {row}")
    predicted = probabilities.argmax(1)
    correct, confidence = predicted == truth, probabilities.max(1).astype(np.float64)
    matrix = metrics.confusion_matrix(truth, predicted, len(categories))
    scores, means = metrics.scores_of(matrix)
    losses = metrics.log_losses(truth, probabilities)
    error, bins = metrics.calibration(correct, confidence)
    areas, area, area_interval = _roc_auc(truth, probabilities, seed)
    accuracy = intervals.wilson(int(correct.sum()), len(truth))
    found = {
        "accuracy": accuracy,
        "f1_micro": accuracy,
        **intervals.confusion_intervals(matrix, seed),
        "roc_auc": area_interval,
        **intervals.probability_intervals(losses, correct, confidence, seed),
    }
    return {
        "type": "category",
        "rows": len(truth),
        "categories": categories,
        **{name: float(value) for name, value in means.items()},
        "roc_auc": area,
        "calibration_error": error,
        "log_loss": float(losses.mean()),
        "intervals": {name: list(value) for name, value in found.items() if value},
        "per_class": _per_class(categories, matrix, scores, areas),
        **_confusions(categories, matrix),
        "calibration": bins,
        "roc": _curves(categories, truth, probabilities, areas),
        "worst": _worst_classes(categories, truth, predicted, probabilities),
        "notes": _class_notes(categories, matrix, areas, area_interval),
    }


def _roc_auc(
    truth: Integers, probabilities: Floats, seed: int
) -> tuple[list[float | None], float | None, intervals.Interval | None]:
    """Measure ROC-AUC of each class against the rest, their mean (two classes: the one value), and its interval."""
    classes = probabilities.shape[1]
    areas = [metrics.roc_auc(truth == place, probabilities[:, place]) for place in range(classes)]
    known = [place for place, area in enumerate(areas) if area is not None]
    if not known:
        return areas, None, None
    used = known[-1:] if classes == 2 else known
    interval = intervals.roc_auc_interval(truth[:, None] == np.array(used), probabilities[:, used], seed)
    return areas, float(np.mean([area for area in (areas[place] for place in used) if area is not None])), interval


def _per_class(
    categories: Sequence[str], matrix: Integers, scores: metrics.ClassScores, areas: Sequence[float | None]
) -> dict[str, dict[str, Any]]:
    hits, predicted = np.diagonal(matrix), matrix.sum(0)
    return {
        name: {
            "precision": float(scores.precision[place]),
            "recall": float(scores.recall[place]),
            "f1": float(scores.f1[place]),
            "support": int(scores.support[place]),
            "roc_auc": areas[place],
            "precision_interval": pair(intervals.wilson(int(hits[place]), int(predicted[place]))),
            "recall_interval": pair(intervals.wilson(int(hits[place]), int(scores.support[place]))),
        }
        for place, name in enumerate(categories)
    }


def _confusions(categories: Sequence[str], matrix: Integers) -> dict[str, Any]:
    """Give the matrix, unless there are very many classes, and the most frequent mistakes."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:WORST]
    most = [(int(cell // len(matrix)), int(cell % len(matrix))) for cell in order]
    return {
        "confusion_matrix": matrix.tolist() if len(categories) <= MATRIX_CLASSES else None,
        "confusions": [
            {"true": categories[true], "predicted": categories[guess], "count": int(wrong[true, guess])}
            for true, guess in most
            if wrong[true, guess]
        ],
    }


def _curves(
    categories: Sequence[str], truth: Integers, probabilities: Floats, areas: Sequence[float | None]
) -> dict[str, dict[str, list[float]]]:
    """Thin the ROC curves (two classes: the second's; many: the classes with the smallest areas) for a plot."""
    known = sorted((area, place) for place, area in enumerate(areas) if area is not None)
    shown = [place for _, place in known[:CURVE_CLASSES]]
    curves = {}
    for place in sorted(shown)[-1:] if len(categories) == 2 else sorted(shown):
        false, true = metrics.roc_curve(truth == place, probabilities[:, place])
        kept = np.unique(np.linspace(0, len(false) - 1, CURVE_POINTS).round().astype(int))
        curves[categories[place]] = {
            "false_positive_rate": [round(float(value), 5) for value in false[kept]],
            "true_positive_rate": [round(float(value), 5) for value in true[kept]],
        }
    return curves


def _worst_classes(
    categories: Sequence[str], truth: Integers, predicted: Integers, probabilities: Floats
) -> list[dict[str, Any]]:
    """List the mistakes in which the model was surest."""
    wrong = np.flatnonzero(predicted != truth)
    order = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:WORST]
    return [
        {
            "row": int(row),
            "true": categories[truth[row]],
            "predicted": categories[predicted[row]],
            "probability": float(probabilities[row, predicted[row]]),
            "true_probability": float(probabilities[row, truth[row]]),
        }
        for row in order
    ]


def _class_notes(
    categories: Sequence[str], matrix: Integers, areas: Sequence[float | None], area_interval: object
) -> list[str]:
    rows = int(matrix.sum())
    absent = [name for name, support in zip(categories, matrix.sum(1), strict=True) if not support]
    notes = few_rows(rows)
    if absent:
        names = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
        notes.append(f"Not among the rows, so without recall and ROC-AUC of its own: {names}")
    if all(area is None for area in areas):
        notes.append("All rows are of one class: ROC-AUC is not defined")
    elif area_interval is None and rows >= intervals.FEWEST_ROWS:
        notes.append("Too many rows and classes for an interval of ROC-AUC")
    if len(categories) > MATRIX_CLASSES:
        notes.append(f"More than {MATRIX_CLASSES} classes: the most frequent mistakes instead of the confusion matrix")
    return notes


def _number(name: str, truth: Floats, predicted: Floats, seed: int) -> dict[str, Any]:
    check_answers(name, truth, predicted, (len(truth),))
    truth, predicted = truth.astype(np.float64), predicted.astype(np.float64)
    residuals = predicted - truth
    scores = metrics.regression_scores(
        np.array(np.abs(residuals).mean()), np.array((residuals**2).mean()), np.array(truth.var())
    )
    notes = few_rows(len(truth))
    if truth.var() == 0:
        notes.append("All true values are equal: R² is not defined")
    found = intervals.regression_intervals(truth, residuals, seed)
    return {
        "type": "number",
        "rows": len(truth),
        **{key: None if math.isnan(value) else float(value) for key, value in scores.items()},
        "intervals": {key: list(value) for key, value in found.items()},
        "residuals": _residuals(residuals),
        "pairs": _pairs(truth, predicted, seed),
        "worst": [
            {
                "row": int(row),
                "true": float(truth[row]),
                "predicted": float(predicted[row]),
                "residual": float(residuals[row]),
            }
            for row in np.argsort(-np.abs(residuals), kind="stable")[:WORST]
        ],
        "notes": notes,
    }


def _residuals(residuals: Floats) -> dict[str, Any]:
    """Describe predicted minus true: mean, deviation, quantiles, and a histogram of the middle 99 %."""
    low, high = np.percentile(residuals, (0.5, 99.5))
    reach = max(abs(low), abs(high), 1e-12)
    counts, edges = np.histogram(np.clip(residuals, -reach, reach), bins=HISTOGRAM_BINS, range=(-reach, reach))
    return {
        "mean": float(residuals.mean()),
        "deviation": float(residuals.std()),
        "quantiles": {
            str(share): float(np.quantile(residuals, share)) for share in (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
        },
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def _pairs(truth: Floats, predicted: Floats, seed: int) -> list[list[float]]:
    """Keep true and predicted number of some rows, drawn at random, for a plot."""
    rows = np.arange(len(truth))
    if len(rows) > PAIRS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, PAIRS, replace=False))
    return [[float(truth[row]), float(predicted[row])] for row in rows]
