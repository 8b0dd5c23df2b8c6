"""The weighted mean of a learned vector of each n-gram (Joulin et al. 2016, https://arxiv.org/abs/1607.01759)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  the field's usual name
from torch import Tensor, nn

from yunmo.core import encoders as specs
from yunmo.core.fields import FieldStatistics
from yunmo.core.tokenizers import HASHES
from yunmo.models.encoders.base import Encoder

_DEVIATION = 0.1
"""Of the first vectors: texts begin nearly alike, and a rare n-gram stays near nothing unless it is learned."""
_SMALLEST = 1e-6


class BagEncoder(Encoder):
    """Means of the vectors of a text's words, and of its characters' n-grams, each weighted by rarity.

    The weights of a text's tokens have the length 1, so that long texts are no louder than short ones. A text without a
    known token is 0.
    """

    weights: Tensor
    """Of each token in each group ``[tokens, groups]``: 0 for tokens of other groups and for padding."""

    def __init__(self, spec: specs.BagEncoder, statistics: FieldStatistics) -> None:
        super().__init__()
        rarity = _rarity(statistics) if spec.rarity else torch.ones(token_count(statistics))
        rarity[0] = 0.0
        # Not persistent: they are of the statistics, which travel beside the weights.
        self.register_buffer("weights", _groups(rarity, statistics), persistent=False)
        self.vectors = nn.Embedding(len(rarity), spec.size)
        nn.init.normal_(self.vectors.weight, 0.0, _DEVIATION)
        self.token_dropout = spec.token_dropout
        self.dropout = nn.Dropout(spec.dropout)
        self.features = spec.size * self.weights.shape[1]

    def forward(self, values: Tensor, length: Tensor | None = None) -> Tensor:  # noqa: ARG002  padding weighs nothing
        """Encode a batch of token numbers int32 ``[N, T]``: see `Encoder.forward`."""
        weights = F.embedding(values, self.weights).transpose(1, 2)
        weights = weights / weights.square().sum(2, keepdim=True).clamp_min(_SMALLEST).sqrt()
        if self.training and self.token_dropout:
            kept = torch.rand(values.shape, device=values.device) >= self.token_dropout
            weights = weights * kept.unsqueeze(1) / (1 - self.token_dropout)
        if torch.onnx.is_in_onnx_export():
            means = weights @ self.vectors(values)
        else:
            # The same without the vectors of a whole batch in memory.
            bags = values.unsqueeze(1).expand_as(weights).flatten(0, 1)
            sums = F.embedding_bag(
                bags, self.vectors.weight, mode="sum", per_sample_weights=weights.flatten(0, 1).contiguous()
            )
            means = sums.view(*weights.shape[:2], -1)
        features: Tensor = self.dropout(means.flatten(1))
        return features


def token_count(statistics: FieldStatistics) -> int:
    """Return how many numbers a token of a text field may have."""
    return len(statistics.buckets) + 1 if statistics.buckets else len(statistics.pieces) + 2


def _rarity(statistics: FieldStatistics) -> Tensor:
    """Return the inverse document frequency of each token, as scikit-learn's (smooth); 1 where none was counted."""
    counts = torch.tensor(statistics.bucket_counts, dtype=torch.float64)
    if not len(counts):
        return torch.ones(token_count(statistics))
    frequency = ((1 + statistics.count) / (1 + counts)).log() + 1
    return torch.cat((torch.zeros(1), frequency.float()))


def _groups(rarity: Tensor, statistics: FieldStatistics) -> Tensor:
    """Tell n-grams of words from those of characters, if there are both."""
    characters = torch.zeros(len(rarity), dtype=torch.bool)
    if statistics.buckets:
        characters[1:] = torch.tensor(statistics.buckets) >= HASHES
    groups = [rarity * ~characters, rarity * characters]
    return torch.stack([group for group in groups if group.any()] or groups[:1], 1)
