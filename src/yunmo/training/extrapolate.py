"""From errors after short trainings to a range of the error after the whole one. No torch.

Errors of networks fall as a power of the rows they have learned from (Hestness et al. 2017,
https://arxiv.org/abs/1712.00409), with powers from 0.07 to 0.35 in many tasks, and never faster than statistics lets
them. A short training tells one point of that curve, two tell a slope; both are blurred by the rows they are judged on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z = 1.2815515655446004
"""A normal value is above this, or below its negative, in 10 % of cases each: ranges are to hold in 80 %."""
USUAL, USUAL_SPREAD = 0.2, 0.15
"""The power that is expected before anything is measured, and how much it differs from task to task."""
STEEP, STEEPEST = 0.4, 0.6
"""The power that the good end of a range allows for whatever was measured, and the steepest that is believed."""
_LOSS_SPREAD = 2.0
"""Deviation of a squared error, in units of its mean: a normal error has 1.4, others more."""


@dataclass(frozen=True, slots=True)
class Point:
    """A short training."""

    rows: int
    """Different rows that it learned from."""
    epochs: int
    """Passes over them."""
    error: float
    """Share of rows it got wrong, or share of the variance it left unexplained."""
    judged: int
    """Rows that this was found on."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The error after the whole training."""

    low: float
    middle: float
    high: float


def extrapolate(points: Sequence[Point], *, rows: int, epochs: int, judged: int, share: bool) -> Expected:
    """Return the range in which the error after the whole training is expected.

    What another pass over the same rows is worth differs from task to task: as much as other rows for the good end of
    the range, else the square root of it.

    Args:
        points: at least one, from small to large.
        rows: that the whole training learns from.
        epochs: that it has.
        judged: rows that its error will be found on, which blurs it once more.
        share: whether errors are shares of rows; else of the variance.
    """
    last = points[-1]
    error = _smooth(last, share)
    growth = max(1.0, rows / last.rows * math.sqrt(epochs / last.epochs))
    most = max(1.0, rows / last.rows * (epochs / last.epochs))
    power, spread = _slope(points, share)
    # Between very few rows and a few, errors fall much faster than later.
    slow = max(0.0, power - Z * spread) / 4
    # Of a single point, it is not known whether the network had begun to learn at all.
    fast = min(STEEPEST, max(power + Z * spread, STEEP)) if len(points) > 1 else STEEPEST
    trust = (1 / spread**2, 1 / USUAL_SPREAD**2)
    measured = (power * trust[0] + USUAL * trust[1]) / sum(trust)
    likely = min(fast, max(slow, (slow + measured) / 2))
    low, middle, high = error * most**-fast, error * growth**-likely, error * growth**-slow
    highest = 1.0 if share else math.inf
    return Expected(
        low=low * math.exp(-Z * _blur(low, last.judged, judged, share)),
        middle=min(highest, middle),
        high=min(highest, high * math.exp(Z * _blur(high, last.judged, judged, share))),
    )


def _slope(points: Sequence[Point], share: bool) -> tuple[float, float]:
    """Return the power between the first and the last point, and its deviation."""
    first, last = points[0], points[-1]
    growth = last.rows / first.rows * math.sqrt(last.epochs / first.epochs)
    if len(points) < 2 or growth <= 1:
        return USUAL, USUAL_SPREAD
    reach = math.log(growth)
    errors = _smooth(first, share), _smooth(last, share)
    blur = math.hypot(_deviation(errors[0], first.judged, share), _deviation(errors[1], last.judged, share))
    return math.log(errors[0] / errors[1]) / reach, max(blur / reach, 1e-3)


def _smooth(point: Point, share: bool) -> float:
    """Return an error that is not 0: nothing wrong in so many rows does not mean that nothing ever will be."""
    if share:
        return (point.error * point.judged + 1) / (point.judged + 2)
    return max(point.error, 1e-6)


def _blur(error: float, judged: int, later: int, share: bool) -> float:
    return math.hypot(_deviation(error, judged, share), _deviation(error, later, share))


def _deviation(error: float, rows: int, share: bool) -> float:
    """Return the deviation of the logarithm of an error that is found on so many rows."""
    if share:
        error = min(max(error, 1 / (rows + 2)), 0.999)
        return math.sqrt((1 - error) / (error * rows))
    return _LOSS_SPREAD / math.sqrt(rows)
