"""Scaling as part of the network: fitted numbers in, no learning, so that the exported graph takes raw values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from yunmo.core.fields import FieldStatistics, Scale

_SMALLEST = 1e-8
"""A spread below this is a constant column: it is moved to 0 and not stretched."""


class Scaling(nn.Module):
    """``(value - center) / spread`` over the last axis, and back.

    Args:
        scale: ``standard`` (mean 0, deviation 1), ``min_max`` (0 to 1) or ``none``.
        statistics: of the field, from training data.
        unit: what one unit of the incoming value is in the statistics' units (pictures: 1/255).
    """

    center: Tensor
    spread: Tensor

    def __init__(self, scale: Scale, statistics: FieldStatistics, *, unit: float = 1.0) -> None:
        super().__init__()
        center, spread = center_and_spread(scale, statistics)
        # Not persistent: they are of the statistics, which travel beside the weights.
        self.register_buffer("center", torch.tensor(center) / unit, persistent=False)
        self.register_buffer("spread", torch.tensor(spread) / unit, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Scale float values ``[..., channels]``."""
        return (values - self.center) / self.spread

    def inverse(self, scaled: Tensor) -> Tensor:
        """Bring scaled values back to raw units."""
        return scaled * self.spread + self.center


def center_and_spread(scale: Scale, statistics: FieldStatistics) -> tuple[list[float], list[float]]:
    """Return what is subtracted and what is divided by, one entry per channel, part or column."""
    count = max(1, len(statistics.mean))
    if scale == "none" or not statistics.mean:
        return [0.0] * count, [1.0] * count
    if scale == "standard":
        center, spread = list(statistics.mean), list(statistics.deviation)
    else:
        center = list(statistics.minimum)
        spread = [high - low for low, high in zip(statistics.minimum, statistics.maximum, strict=True)]
    return center, [width if width > _SMALLEST else 1.0 for width in spread]
