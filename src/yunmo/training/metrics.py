"""Figures of merit on plain arrays. Only NumPy: a model can be evaluated where nothing for training is installed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

CALIBRATION_BINS = 15
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
"""What stands for a probability of 0 in the log loss: the resolution of the float32 in which networks answer."""


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Precision, recall, F1 and support of each class: arrays of shape ``(..., classes)``; 0 where undefined."""

    precision: Floats
    recall: Floats
    f1: Floats
    support: Floats
    present: NDArray[np.bool_]
    """Whether a class occurs among the true or the predicted ones: only those count in macro averages."""


def confusion_matrix(truth: Integers, predicted: Integers, classes: int) -> Integers:
    """Count rows by true class (first axis) and predicted class (second): int64 ``(classes, classes)``."""
    cells = np.bincount(truth.astype(np.int64) * classes + predicted.astype(np.int64), minlength=classes * classes)
    return cells.reshape(classes, classes)


def class_scores(hits: Floats, support: Floats, predicted: Floats) -> ClassScores:
    """Score each class from counts.

    Args:
        hits: rows of a class that were predicted as it, shape ``(..., classes)``.
        support: rows that are of a class, same shape.
        predicted: rows predicted as a class, same shape.
    """
    precision = divide(hits, predicted)
    recall = divide(hits, support)
    f1 = divide(2 * hits, support + predicted)
    return ClassScores(precision, recall, f1, support, (support + predicted) > 0)


def averages(scores: ClassScores, hits: Floats) -> dict[str, Floats]:
    """Average over classes.

    ``precision``, ``recall`` and ``f1`` are macro averages: the plain mean over the classes that occur, as in
    scikit-learn. Every row has one true and one predicted class, so the three micro averages are all equal to the
    accuracy.

    Returns:
        Arrays of shape ``(...)``, one value for each leading index of ``scores``.
    """
    accuracy = divide(hits.sum(-1), scores.support.sum(-1))
    occurring = scores.present.sum(-1)
    macro = {
        name: divide(np.where(scores.present, values, 0).sum(-1), occurring)
        for name, values in (("precision", scores.precision), ("recall", scores.recall), ("f1", scores.f1))
    }
    micro = {f"{name}_micro": accuracy for name in ("precision", "recall", "f1")}
    return {"accuracy": accuracy, **macro, **micro}


def scores_of(matrix: Integers) -> tuple[ClassScores, dict[str, Floats]]:
    """Score a confusion matrix ``(classes, classes)``: each class, and averages over them."""
    hits = np.diagonal(matrix).astype(np.float64)
    scores = class_scores(hits, matrix.sum(1).astype(np.float64), matrix.sum(0).astype(np.float64))
    return scores, averages(scores, hits)


def label_scores(hits: Floats, support: Floats, predicted: Floats) -> tuple[ClassScores, dict[str, Floats]]:
    """Score labels, of which a row may have several, from counts ``(..., labels)`` as `class_scores` takes them.

    Returns:
        Each label's scores, and ``(...)``: macro ``precision``, ``recall`` and ``f1`` over the labels that occur, and
        ``f1_micro`` of all true and answered labels together.
    """
    scores = class_scores(hits, support, predicted)
    means = averages(scores, hits)
    found = {name: means[name] for name in ("precision", "recall", "f1")}
    return scores, {**found, "f1_micro": divide(2 * hits.sum(-1), support.sum(-1) + predicted.sum(-1))}


def label_log_losses(truth: NDArray[np.bool_], probabilities: Floats) -> Floats:
    """Negative log of the probability given to each label's holding or not, in nats: their mean in each row.

    Args:
        truth: whether a label holds, ``(rows, labels)``.
        probabilities: that it does, same shape.
    """
    given = np.where(truth, probabilities, 1 - probabilities.astype(np.float64))
    losses: Floats = -np.log(np.clip(given, SMALLEST_PROBABILITY, 1.0)).mean(1)
    return losses


def best_threshold(truth: NDArray[np.bool_], probabilities: Floats) -> tuple[float, float, float]:
    """Find the probability from which a label best counts as holding: 0.05 to 0.95 in steps of 0.05.

    Args:
        truth: whether a label holds, ``(rows, labels)``.
        probabilities: that it does, same shape.

    Returns:
        The threshold (of equally good ones the nearest to 0.5), its F1 (micro), and that of 0.5.
    """
    found: dict[float, float] = {}
    for step in sorted(range(1, 20), key=lambda step: abs(step - 10)):
        held = probabilities >= step / 20
        found[step / 20] = float(2 * (truth & held).sum() / max(1, int(truth.sum()) + int(held.sum())))
    best = max(found, key=found.__getitem__)
    return best, found[best], found[0.5]


def roc_curve(positive: NDArray[np.bool_], score: Floats) -> tuple[Floats, Floats]:
    """Trace the receiver operating characteristic, one point for each distinct score.

    Args:
        positive: which rows are of the class, ``(rows,)``; some are and some are not.
        score: how sure the model is of the class, ``(rows,)``.

    Returns:
        Rates of false and of true positives, both from 0 to 1, as the threshold falls.
    """
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    true = np.cumsum(positive[order])[ends]
    false = ends + 1 - true
    return np.append(0.0, false / false[-1]), np.append(0.0, true / true[-1])


def roc_auc(positive: NDArray[np.bool_], score: Floats) -> float | None:
    """Area under the ROC curve: how often a row of the class scores higher than one that is not (ties count half).

    Returns:
        A share from 0 to 1, or None where all rows, or none, are of the class.
    """
    if positive.all() or not positive.any():
        return None
    false, true = roc_curve(positive, score)
    return float(np.trapezoid(true, false))


def log_losses(truth: Integers, probabilities: Floats) -> Floats:
    """Negative log of the probability given to the true class, in nats, for each row."""
    given = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    losses: Floats = -np.log(np.clip(given, SMALLEST_PROBABILITY, 1.0))
    return losses


def calibration_bins(confidence: Floats) -> Integers:
    """Put each confidence in one of 15 bins of equal width over 0 to 1; a bin holds its upper edge, as in Guo 2017."""
    return np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)


def calibration(correct: NDArray[np.bool_], confidence: Floats) -> tuple[float, list[dict[str, Any]]]:
    """Compare confidence with accuracy: the expected calibration error of Guo et al. (2017), 15 bins of equal width.

    Args:
        correct: whether the most likely class is the true one, ``(rows,)``.
        confidence: its probability, ``(rows,)``.

    Returns:
        The error (mean distance of confidence and accuracy, weighted by the bins' rows) and the bins: ``low``,
        ``high``, ``count`` and, where it is not 0, mean ``confidence`` and ``accuracy``.
    """
    index = calibration_bins(confidence)
    counts = np.bincount(index, minlength=CALIBRATION_BINS)
    sure = np.bincount(index, weights=confidence, minlength=CALIBRATION_BINS)
    right = np.bincount(index, weights=correct, minlength=CALIBRATION_BINS)
    error = float(np.abs(sure - right).sum() / len(confidence))
    bins = [
        {
            "low": place / CALIBRATION_BINS,
            "high": (place + 1) / CALIBRATION_BINS,
            "count": int(counts[place]),
            "confidence": float(sure[place] / counts[place]) if counts[place] else None,
            "accuracy": float(right[place] / counts[place]) if counts[place] else None,
        }
        for place in range(CALIBRATION_BINS)
    ]
    return error, bins


def regression_scores(absolute: Floats, squared: Floats, spread: Floats) -> dict[str, Floats]:
    """Name the usual errors of estimated numbers.

    Args:
        absolute: mean absolute error.
        squared: mean squared error.
        spread: variance of the true numbers; where it is 0, R² is NaN.

    Returns:
        ``mae`` and ``rmse`` in the unit of the target, ``mse`` in its square, ``r2`` without unit.
    """
    r2 = np.full_like(squared, np.nan)
    np.divide(squared, spread, out=r2, where=spread > 0)
    return {"mae": absolute, "mse": squared, "rmse": np.sqrt(squared), "r2": 1 - r2}


def divide(top: Floats | Integers, bottom: Floats | Integers) -> Floats:
    """Divide, with 0 where the divisor is 0."""
    quotient = np.zeros(np.broadcast_shapes(top.shape, bottom.shape))
    np.divide(top, bottom, out=quotient, where=bottom > 0)
    return quotient
