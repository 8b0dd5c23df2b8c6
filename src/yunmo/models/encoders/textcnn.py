"""Convolutions over the tokens of a text, each kept where it is strongest (Kim 2014, https://arxiv.org/abs/1408.5882)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  the field's usual name
from torch import Tensor, nn

from yunmo.core import encoders as specs
from yunmo.core.fields import FieldStatistics
from yunmo.models.activations import activation
from yunmo.models.encoders.base import Encoder
from yunmo.models.encoders.pooling import maximum


class TextCnnEncoder(Encoder):
    """Filters of several widths, and of each the largest value over the text.

    A window begins at each real token; what it reaches beyond the end is 0. So padding changes nothing, and a text may
    be shorter than a filter.
    """

    def __init__(self, spec: specs.TextCnnEncoder, statistics: FieldStatistics) -> None:
        super().__init__()
        incoming = statistics.shape[-1]
        self.widths = spec.widths
        self.filters = nn.ModuleList(nn.Conv1d(incoming, spec.filters, width) for width in spec.widths)
        self.activation = activation(spec.activation)
        self.dropout = nn.Dropout(spec.dropout)
        self.features = spec.filters * len(spec.widths)

    def forward(self, values: Tensor, length: Tensor | None = None) -> Tensor:
        """Encode a batch: see `Encoder.forward`."""
        if length is not None:
            length = length.clamp(min=1)
        steps = values.transpose(1, 2)
        maps = [
            self.activation(layer(F.pad(steps, (0, width - 1))))
            for layer, width in zip(self.filters, self.widths, strict=True)
        ]
        pooled = torch.cat([maximum(each.transpose(1, 2), length) for each in maps], 1)
        features: Tensor = self.dropout(pooled)
        return features
