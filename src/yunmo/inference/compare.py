"""How far answers are from those expected: the one measure of golden examples and of parity."""

from __future__ import annotations

from typing import Any

import numpy as np

TOLERANCE = 1e-4
"""Largest `difference` at which two answers count as the same."""


def difference(found: Any, expected: Any, deviation: float | None) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return how far each row's answer is off; NaN and infinity are infinitely far.

    Args:
        found: probabilities [N, K] or numbers [N].
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
