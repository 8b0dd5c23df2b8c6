"""Tokens of a text as a sequence of vectors, which every encoder of sequences reads."""

from __future__ import annotations

import msgspec
import torch
from torch import Tensor, nn

from yunmo.core.fields import FieldStatistics, TextField
from yunmo.models.encoders.bag import token_count


class TokenEmbedding(nn.Module):
    """A learned vector for each token.

    Args:
        field: the text; its ``dropout`` is the share of tokens that are left out while training.
        statistics: of the field.
    """

    def __init__(self, field: TextField, statistics: FieldStatistics) -> None:
        super().__init__()
        size = field.vector_size
        self.vectors = nn.Embedding(token_count(statistics), size)
        nn.init.normal_(self.vectors.weight, 0.0, size**-0.5)
        # All of them, as in Kim's CNN-static (2014, https://arxiv.org/abs/1408.5882).
        self.vectors.weight.requires_grad_(field.embeddings is None or not field.embeddings.frozen)
        self.dropout = field.dropout

    def begin_with(self, numbers: Tensor, vectors: Tensor) -> None:
        """Take vectors that were learned elsewhere.

        Args:
            numbers: of tokens, int64 ``[K]``.
            vectors: of these tokens, float32 ``[K, embedding]``.
        """
        with torch.no_grad():
            self.vectors.weight[numbers] = vectors

    def forward(self, values: Tensor, length: Tensor) -> Tensor:
        """Embed token numbers int32 ``[N, T]`` as ``[N, T, embedding]``; T is cut to the longest text where it can be.

        Args:
            values: token numbers.
            length: int64 ``[N]``, how many of them are real.
        """
        if not torch.onnx.is_in_onnx_export():
            values = values[:, : max(1, int(length.max()))]
        vectors: Tensor = self.vectors(values)
        if self.training and self.dropout:
            vectors = vectors * (torch.rand(values.shape, device=values.device) >= self.dropout).unsqueeze(2)
        return vectors


def embedded(field: TextField, statistics: FieldStatistics) -> FieldStatistics:
    """Return the statistics of the sequence that a text is once its tokens are embedded."""
    return msgspec.structs.replace(statistics, type="sequence", shape=(statistics.shape[0], field.vector_size))
