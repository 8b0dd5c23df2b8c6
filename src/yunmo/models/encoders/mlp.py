"""Fully connected layers over the flattened field (multi-layer perceptron)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from yunmo.core import encoders as specs
from yunmo.core.fields import FieldStatistics
from yunmo.models.activations import activation
from yunmo.models.encoders.base import Encoder
from yunmo.models.encoders.flat import fit_steps, steps


class MlpEncoder(Encoder):
    """Linear, batch norm if asked for, activation and dropout, layer after layer."""

    def __init__(self, spec: specs.MlpEncoder, statistics: FieldStatistics) -> None:
        super().__init__()
        self.steps = steps(statistics)
        layers: list[nn.Module] = []
        incoming = math.prod(statistics.shape)
        for units in spec.hidden:
            layers.append(nn.Linear(incoming, units))
            if spec.batch_norm:
                layers.append(nn.BatchNorm1d(units))
            layers.append(activation(spec.activation))
            if spec.dropout:
                layers.append(nn.Dropout(spec.dropout))
            incoming = units
        self.layers = nn.Sequential(*layers)
        self.features = incoming

    def forward(self, values: Tensor, length: Tensor | None = None) -> Tensor:  # noqa: ARG002  padding is 0 already
        """Encode a batch: see `Encoder.forward`."""
        if self.steps is not None:
            values = fit_steps(values, self.steps)
        encoded: Tensor = self.layers(values.flatten(1))
        return encoded
