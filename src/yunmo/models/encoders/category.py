"""Categories as features. Index 0 is 'unknown'; the training data's categories follow."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812  the field's usual name
from torch import Tensor, nn

from yunmo.core import encoders as specs
from yunmo.core.fields import FieldStatistics
from yunmo.models.encoders.base import Encoder


class OneHotEncoder(Encoder):
    """One feature for each category and one for 'unknown'."""

    def __init__(self, spec: specs.OneHotEncoder, statistics: FieldStatistics) -> None:  # noqa: ARG002  has no keys
        super().__init__()
        self.features = len(statistics.categories) + 1

    def forward(self, values: Tensor, length: Tensor | None = None) -> Tensor:  # noqa: ARG002  for sequences
        """Encode a batch: see `Encoder.forward`."""
        return F.one_hot(values, self.features).float()


class OrdinalEncoder(Encoder):
    """The index of the category, 0 ('unknown') to 1 (the last)."""

    def __init__(self, spec: specs.OrdinalEncoder, statistics: FieldStatistics) -> None:  # noqa: ARG002  has no keys
        super().__init__()
        self.features = 1
        self.last = max(1, len(statistics.categories))

    def forward(self, values: Tensor, length: Tensor | None = None) -> Tensor:  # noqa: ARG002  for sequences
        """Encode a batch: see `Encoder.forward`."""
        return values.float().unsqueeze(1) / self.last


class EmbeddingEncoder(Encoder):
    """A learned vector for each category."""

    def __init__(self, spec: specs.EmbeddingEncoder, statistics: FieldStatistics) -> None:
        super().__init__()
        self.vectors = nn.Embedding(len(statistics.categories) + 1, spec.size)
        self.features = spec.size

    def forward(self, values: Tensor, length: Tensor | None = None) -> Tensor:  # noqa: ARG002  for sequences
        """Encode a batch: see `Encoder.forward`."""
        vectors: Tensor = self.vectors(values)
        return vectors
