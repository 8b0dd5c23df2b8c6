"""Judging answers: whether they are numbers, and how far they are from those expected (golden examples, parity)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from yunmo.core.errors import ModelFailed

TOLERANCE = 1e-4
"""Largest `difference` at which two answers count as the same."""
INT8_TOLERANCE = 0.02
"""The same for a graph quantised to int8: the last digit of a float, which processors do not share, may move what it is
rounded to by a whole step."""
_HALF = TOLERANCE / 5e-3
"""A float16 has 3 digits: its answers may differ by 0.5 %."""


def check_finite(name: str, answer: Any) -> None:
    """Refuse NaN and infinity.

    Args:
        name: of the output.
        answer: an array of floats.

    Raises:
        ModelFailed: there is one.
    """
    # One sum instead of a look at each value: it is finite if they all are, bar the largest of float64.
    if not math.isfinite(answer.sum(dtype=np.float64)) and not np.isfinite(answer).all():
        raise ModelFailed(f"the model answered {name!r} with something that is no number")


def difference(found: Any, expected: Any, deviation: float | None) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return how far each row's answer is off; NaN and infinity are infinitely far.

    Args:
        found: probabilities [N, K], of categories or labels, or numbers [N].
        expected: of the same shape.
        deviation: None for probabilities, which are compared as they are; for a number the standard deviation of its
            training values: it is compared relative to its size, or to this where it is near 0.

    Returns:
        float64 [N].
    """
    expected = np.asarray(expected, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        off = np.abs(np.asarray(found, dtype=np.float64) - expected)
    if deviation is not None:
        off = off / np.maximum(np.abs(expected), deviation or 1.0)
    worst: np.ndarray[Any, np.dtype[np.float64]] = np.nan_to_num(off, nan=np.inf).reshape(len(off), -1).max(axis=1)
    return worst


def tensor_difference(found: Any, expected: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return how far each row of a tensor is off: floats relative to the tensor's own size, all else 0 or infinity.

    Args:
        found: [N, ...] of any datatype; texts as objects.
        expected: of the same shape; None and NaN stand for any float that is not finite.

    Returns:
        float64 [N].
    """
    found = np.asarray(found)
    rows = len(found)
    if found.dtype.kind != "f":
        same = found == np.asarray(expected, dtype=found.dtype)
        return np.where(np.asarray(same).reshape(rows, -1).all(axis=1), 0.0, np.inf)
    wide = found.astype(np.float64)
    wanted = np.asarray(expected, dtype=np.float64)
    known = np.isfinite(wanted)
    size = float(np.abs(wanted[known]).mean()) if known.any() else 0.0
    with np.errstate(invalid="ignore"):
        off = np.abs(wide - wanted) / np.maximum(np.abs(wanted), size or 1.0)
    off = np.where(known, np.nan_to_num(off, nan=np.inf), np.where(np.isfinite(wide), np.inf, 0.0))
    if found.dtype == np.float16:
        off = off * _HALF
    worst: np.ndarray[Any, np.dtype[np.float64]] = off.reshape(rows, -1).max(axis=1, initial=0.0)
    return worst
