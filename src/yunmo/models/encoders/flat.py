"""The field's values as they are."""

from __future__ import annotations

import math

import torch.nn.functional as F  # noqa: N812  the field's usual name
from torch import Tensor

from yunmo.core import encoders as specs
from yunmo.core.fields import FieldStatistics
from yunmo.models.encoders.base import Encoder


class FlatEncoder(Encoder):
    """Flattens; optionally clips, so that one odd cell can't dominate a row."""

    def __init__(self, spec: specs.FlatEncoder, statistics: FieldStatistics) -> None:
        super().__init__()
        self.clip = spec.clip
        self.steps = steps(statistics)
        self.features = math.prod(statistics.shape)

    def forward(self, values: Tensor, length: Tensor | None = None) -> Tensor:  # noqa: ARG002  padding is 0 already
        """Encode a batch: see `Encoder.forward`."""
        if self.steps is not None:
            values = fit_steps(values, self.steps)
        flat = values.flatten(1)
        return flat if self.clip is None else flat.clamp(-self.clip, self.clip)


def steps(statistics: FieldStatistics) -> int | None:
    """Return the number of steps of a sequence field, ``None`` for other types."""
    return statistics.shape[0] if statistics.type == "sequence" else None


def fit_steps(values: Tensor, count: int) -> Tensor:
    """Cut or zero-pad sequences ``[N, T, C]`` to ``count`` steps, for layers that need a fixed length."""
    return F.pad(values, (0, 0, 0, count))[:, :count]
