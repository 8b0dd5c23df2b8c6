"""What measuring has in common for every type of output."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from yunmo.core.errors import DataError, ModelFailed
from yunmo.training import intervals

WORST = 20
"""Mistakes that are listed."""


def check_answers(name: str, truth: NDArray[Any], predicted: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Refuse what cannot be measured.

    Args:
        name: of the output.
        truth: ``(rows, ...)``.
        predicted: what the model answered.
        shape: that it should have.

    Raises:
        DataError: there are no rows, or a true value is missing.
        ModelFailed: NaN or infinity, or another shape.
    """
    where = f"output {name!r}"
    if not len(truth):
        raise DataError("there are no rows to evaluate", where=where)
    if predicted.shape != shape:
        raise ModelFailed(f"the model answered values of shape {predicted.shape}, not {shape}", where=where)
    if not np.isfinite(truth).all():
        row = int(np.flatnonzero(~np.isfinite(truth))[0])
        raise DataError("the true value is missing", where=f"{where}, row {row}", remedy="Leave such rows out")
    bad = np.flatnonzero(~np.isfinite(predicted).reshape(len(predicted), -1).all(1))
    if len(bad):
        raise ModelFailed(
            f"the model answered NaN or infinity for {len(bad)} of {len(truth)} rows",
            where=f"{where}, row {bad[0]}",
            remedy="Train again with a lower learning rate, or look for extreme values in the inputs",
        )


def pair(interval: intervals.Interval | None) -> list[float] | None:
    """Return an interval as JSON has it."""
    return list(interval) if interval else None


def few_rows(rows: int) -> list[str]:
    """Return the note that so few rows tell little, if they do."""
    if rows >= intervals.FEWEST_ROWS:
        return []
    return [f"Only {rows} row{'s' if rows > 1 else ''}: too few for most intervals, and for any conclusion"]
