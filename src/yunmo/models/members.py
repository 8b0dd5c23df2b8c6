"""Independent linear layers computed as one batched product, for small ensembles.

That many small networks, trained side by side and averaged, are a strong and cheap model of tables is TabM's finding
(Gorishniy et al. 2025, https://arxiv.org/abs/2410.24210); here members share nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class MemberLinear(nn.Module):
    """``members`` linear layers of one shape.

    Args:
        members: how many.
        incoming: features in.
        outgoing: features out.
    """

    def __init__(self, members: int, incoming: int, outgoing: int) -> None:
        super().__init__()
        limit = 1 / math.sqrt(max(1, incoming))
        # As torch.nn.Linear begins its weights; biases begin at 0.
        self.weight = nn.Parameter(torch.empty(members, incoming, outgoing).uniform_(-limit, limit))
        self.bias = nn.Parameter(torch.zeros(members, 1, outgoing))

    def forward(self, values: Tensor) -> Tensor:
        """Apply each member to its rows: ``[members, N, incoming]`` to ``[members, N, outgoing]``."""
        return torch.baddbmm(self.bias, values, self.weight)
