"""How good answers of several labels at once are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yunmo.core.fields import FieldStatistics, LabelsOutput
from yunmo.data.fields.labels import USUAL_THRESHOLD
from yunmo.training import intervals, metrics
from yunmo.training.measured import WORST, check_answers, few_rows, pair
from yunmo.training.metrics import Floats, Integers

Held = NDArray[np.bool_]


def evaluate_labels(
    field: LabelsOutput, statistics: FieldStatistics, truth: Integers, probabilities: Floats, seed: int
) -> dict[str, Any]:
    """Measure labels against the truth.

    Args:
        field: the output; its threshold decides (none: 0.5).
        statistics: of it.
        truth: 0 or 1, ``(rows, labels)``.
        probabilities: same shape.
        seed: of the bootstrap.

    Returns:
        ``f1_micro`` (of all labels together), macro ``precision``, ``recall``, ``f1`` and ``roc_auc``,
        ``subset_accuracy`` (rows with exactly the true labels), ``hamming_loss`` (labels of rows that are wrong),
        ``log_loss`` (mean over labels), ``threshold``, ``labels_per_row`` (true and answered), ``per_class``,
        ``intervals`` (95 %), ``worst`` rows and ``notes``; definitions as in scikit-learn.

    Raises:
        DataError: there are no rows.
        ModelFailed: as `evaluate`.
    """
    categories = list(field.categories or statistics.categories)
    check_answers(field.name, truth, probabilities, (len(truth), len(categories)))
    threshold = field.threshold or USUAL_THRESHOLD
    true, held = truth.astype(np.bool_), probabilities >= threshold
    hits, support, answered = ((part.sum(0)).astype(np.float64) for part in (true & held, true, held))
    scores, means = metrics.label_scores(hits, support, answered)
    losses = metrics.label_log_losses(true, probabilities)
    exact, wrong = (true == held).all(1), (true != held).mean(1)
    areas = [metrics.roc_auc(true[:, place], probabilities[:, place]) for place in range(len(categories))]
    known = [place for place, area in enumerate(areas) if area is not None]
    area = float(np.mean([areas[place] for place in known])) if known else None
    found = {
        **intervals.label_intervals(true, held, losses, seed),
        "subset_accuracy": intervals.wilson(int(exact.sum()), len(true)),
        "roc_auc": intervals.roc_auc_interval(true[:, known], probabilities[:, known], seed) if known else None,
    }
    return {
        "type": "labels",
        "rows": len(true),
        "categories": categories,
        "threshold": threshold,
        **{name: float(value) for name, value in means.items()},
        "subset_accuracy": float(exact.mean()),
        "hamming_loss": float(wrong.mean()),
        "roc_auc": area,
        "log_loss": float(losses.mean()),
        "labels_per_row": {"true": float(true.sum(1).mean()), "predicted": float(held.sum(1).mean())},
        "intervals": {name: list(value) for name, value in found.items() if value},
        "per_class": {
            name: {
                "precision": float(scores.precision[place]),
                "recall": float(scores.recall[place]),
                "f1": float(scores.f1[place]),
                "support": int(support[place]),
                "roc_auc": areas[place],
                "precision_interval": pair(intervals.wilson(int(hits[place]), int(answered[place]))),
                "recall_interval": pair(intervals.wilson(int(hits[place]), int(support[place]))),
            }
            for place, name in enumerate(categories)
        },
        "worst": _worst(categories, true, held, losses),
        "notes": [*few_rows(len(true)), *_notes(categories, support)],
    }


def _worst(categories: Sequence[str], true: Held, held: Held, losses: Floats) -> list[dict[str, Any]]:
    """List the rows with a wrong label whose log loss is largest."""
    wrong = np.flatnonzero((true != held).any(1))
    return [
        {
            "row": int(row),
            "true": [categories[place] for place in np.flatnonzero(true[row]).tolist()],
            "predicted": [categories[place] for place in np.flatnonzero(held[row]).tolist()],
            "log_loss": float(losses[row]),
        }
        for row in wrong[np.argsort(-losses[wrong], kind="stable")][:WORST]
    ]


def _notes(categories: Sequence[str], support: Floats) -> list[str]:
    absent = [name for name, count in zip(categories, support, strict=True) if not count]
    if not absent:
        return []
    names = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
    return [f"Not among the rows, so without recall and ROC-AUC of their own: {names}"]
