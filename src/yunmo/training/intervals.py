"""95 % intervals: Wilson's for shares, the seeded percentile bootstrap for everything else, at bounded cost.

A bootstrap draws the rows again, with replacement. Nothing here copies rows for that: what a metric needs of a draw is
how often each row (or each cell of the confusion matrix) was drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from yunmo.training.metrics import (
    CALIBRATION_BINS,
    Floats,
    Integers,
    averages,
    calibration_bins,
    class_scores,
    divide,
    label_scores,
    regression_scores,
)

Z95 = 1.959963984540054
DRAWS = 1000
FEWEST_DRAWS = 100
FEWEST_ROWS = 10
"""With fewer rows than this a bootstrap says nothing; there is no interval then."""
WORK = 20_000_000
"""Rows (times classes, for ROC-AUC) drawn in all: a second or so; larger data get fewer draws, down to the fewest."""
CHUNK = 2_000_000
"""Numbers held in memory at once."""

Interval = tuple[float, float]


def wilson(successes: float, rows: float) -> Interval | None:
    """Wilson's 95 % score interval of a share (Wilson 1927), or None without rows."""
    if rows <= 0:
        return None
    share = successes / rows
    middle = (share + Z95**2 / (2 * rows)) / (1 + Z95**2 / rows)
    reach = Z95 / (1 + Z95**2 / rows) * math.sqrt(share * (1 - share) / rows + Z95**2 / (4 * rows**2))
    return min(max(0.0, middle - reach), share), max(min(1.0, middle + reach), share)


def confusion_intervals(matrix: Integers, seed: int) -> dict[str, Interval]:
    """Bootstrap macro precision, recall and F1 from a confusion matrix.

    Drawing rows again is drawing the cells of the matrix from a multinomial distribution, so the cost does not depend
    on the number of rows.
    """
    rows = int(matrix.sum())
    if rows < FEWEST_ROWS:
        return {}
    true, guessed = np.nonzero(matrix)
    shares = matrix[true, guessed] / rows
    classes = np.eye(len(matrix))
    random = np.random.default_rng(seed)
    found: dict[str, list[Floats]] = {"precision": [], "recall": [], "f1": []}
    for count in _chunks(DRAWS, len(shares) + 3 * len(matrix)):
        draws = random.multinomial(rows, shares, size=count).astype(np.float64)
        hits = draws[:, true == guessed] @ classes[true[true == guessed]]
        mean = averages(class_scores(hits, draws @ classes[true], draws @ classes[guessed]), hits)
        for name, values in found.items():
            values.append(mean[name])
    return {name: percentiles(np.concatenate(values)) for name, values in found.items()}


def probability_intervals(
    losses: Floats, correct: NDArray[np.bool_], confidence: Floats, seed: int
) -> dict[str, Interval]:
    """Bootstrap the log loss and the calibration error.

    Noise only ever adds to a calibration error, a draw's twice as much as the data's; that shift is taken off, or the
    interval would lie above the value it belongs to.

    Args:
        losses: log loss of each row.
        correct: whether the most likely class is the true one.
        confidence: its probability.
        seed: of the draws.
    """
    rows = len(losses)
    if rows < FEWEST_ROWS:
        return {}
    gaps = np.zeros((rows, CALIBRATION_BINS))
    gaps[np.arange(rows), calibration_bins(confidence)] = confidence - correct
    sums = np.concatenate([draws @ np.column_stack((losses, gaps)) for draws in _draws(rows, seed)]) / rows
    errors = np.abs(sums[:, 1:]).sum(1)
    shift = errors.mean() - np.abs(gaps.sum(0)).sum() / rows
    low, high = percentiles(errors)
    return {
        "log_loss": percentiles(sums[:, 0]),
        "calibration_error": (max(0.0, low - float(shift)), max(0.0, high - float(shift))),
    }


def label_intervals(
    truth: NDArray[np.bool_], held: NDArray[np.bool_], losses: Floats, seed: int
) -> dict[str, Interval]:
    """Bootstrap precision, recall and F1 (macro and micro), Hamming and log loss of labels.

    Args:
        truth: whether a label holds, ``(rows, labels)``.
        held: whether it was answered, same shape.
        losses: log loss of each row.
        seed: of the draws.
    """
    rows, labels = truth.shape
    if rows < FEWEST_ROWS or rows * labels * FEWEST_DRAWS > 5 * WORK:
        return {}
    columns = np.concatenate((truth & held, truth, held), axis=1).astype(np.float64)
    each = np.column_stack((columns, (truth != held).mean(1), losses))
    sums = np.concatenate([draws @ each for draws in _draws(rows, seed, per_row=labels)])
    hits, support, answered = (sums[:, place * labels : (place + 1) * labels] for place in range(3))
    means = label_scores(hits, support, answered)[1]
    found = {**means, "hamming_loss": sums[:, -2] / rows, "log_loss": sums[:, -1] / rows}
    return {name: percentiles(values) for name, values in found.items()}


def regression_intervals(truth: Floats, residuals: Floats, seed: int) -> dict[str, Interval]:
    """Bootstrap MAE, MSE, RMSE and R²."""
    rows = len(truth)
    if rows < FEWEST_ROWS:
        return {}
    centered = truth - truth.mean()
    columns = np.column_stack((np.abs(residuals), residuals**2, centered, centered**2))
    means = np.concatenate([draws @ columns for draws in _draws(rows, seed)]) / rows
    scores = regression_scores(means[:, 0], means[:, 1], means[:, 3] - means[:, 2] ** 2)
    return {name: percentiles(values) for name, values in scores.items() if np.isfinite(values).any()}


def roc_auc_interval(positives: NDArray[np.bool_], scores: Floats, seed: int) -> Interval | None:
    """Bootstrap the mean ROC-AUC over classes.

    Args:
        positives: which rows are of each class, ``(rows, classes)``; every class has rows in it and out of it.
        scores: how sure the model is of each class, same shape.
        seed: of the draws.

    Returns:
        The interval; None for fewer than 10 rows, or where rows times classes are too many to draw them often enough.
    """
    rows, classes = scores.shape
    if rows < FEWEST_ROWS or not classes or rows * classes * FEWEST_DRAWS > 5 * WORK:
        return None
    orders = np.argsort(scores, axis=0, kind="stable")
    areas = []
    for draws in _draws(rows, seed, per_row=classes):
        each = [
            _areas(draws[:, orders[:, place]], positives[orders[:, place], place], scores[orders[:, place], place])
            for place in range(classes)
        ]
        table = np.stack(each)
        known = np.isfinite(table)
        areas.append(divide(np.where(known, table, 0).sum(0), known.sum(0)))
    return percentiles(np.concatenate(areas))


def _areas(draws: Floats, positive: NDArray[np.bool_], score: Floats) -> Floats:
    """Area under the ROC curve of each draw; rows are sorted by score. NaN where a draw has only one kind of row."""
    starts = np.flatnonzero(np.append(True, np.diff(score) != 0))
    inside = np.add.reduceat(draws * positive, starts, axis=1)
    outside = np.add.reduceat(draws * ~positive, starts, axis=1)
    below = np.cumsum(outside, axis=1) - outside / 2
    pairs = inside.sum(1) * outside.sum(1)
    areas = np.full(len(draws), np.nan)
    np.divide((inside * below).sum(1), pairs, out=areas, where=pairs > 0)
    return areas


def percentiles(values: Floats) -> Interval:
    """Return the 2.5th and the 97.5th percentile of the finite values."""
    low, high = np.percentile(values[np.isfinite(values)], (2.5, 97.5))
    return float(low), float(high)


def _draws(rows: int, seed: int, per_row: int = 1) -> Iterator[Floats]:
    """Yield how often each row is drawn: chunks of shape ``(draws, rows)``."""
    random = np.random.default_rng(seed)
    total = int(np.clip(WORK // (rows * per_row), FEWEST_DRAWS, DRAWS))
    for count in _chunks(total, rows):
        picked = random.integers(rows, size=(count, rows)) + np.arange(count)[:, None] * rows
        yield np.bincount(picked.ravel(), minlength=count * rows).reshape(count, rows).astype(np.float64)


def _chunks(total: int, width: int) -> Iterator[int]:
    """Split a number of draws so that a chunk of them, each so wide, stays within memory."""
    size = max(1, CHUNK // width)
    for start in range(0, total, size):
        yield min(size, total - start)
