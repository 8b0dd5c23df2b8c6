"""One vector of many steps, padding left out."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def real(states: Tensor, length: Tensor) -> Tensor:
    """Say which steps are real: ``[N, T, 1]`` for states ``[N, T, H]`` and lengths ``[N]``."""
    return (torch.arange(states.shape[1], device=states.device) < length[:, None]).unsqueeze(2)


def mean(states: Tensor, length: Tensor | None) -> Tensor:
    """Return the mean ``[N, H]`` over the real steps of ``[N, T, H]``."""
    if length is None:
        return states.mean(1)
    return (states * real(states, length)).sum(1) / length[:, None]


def maximum(states: Tensor, length: Tensor | None) -> Tensor:
    """Return the largest value of each feature ``[N, H]`` over the real steps of ``[N, T, H]``."""
    if length is None:
        return states.amax(1)
    return states.masked_fill(~real(states, length), float("-inf")).amax(1)


class AttentionPool(nn.Module):
    """A mean whose weights are learned: how much each step says (Yang et al. 2016, https://aclanthology.org/N16-1174).

    Args:
        features: of a step.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, features)
        self.score = nn.Linear(features, 1, bias=False)

    def forward(self, states: Tensor, length: Tensor | None) -> Tensor:
        """Return the weighted mean ``[N, H]`` over the real steps of ``[N, T, H]``."""
        scores: Tensor = self.score(self.hidden(states).tanh())
        if length is not None:
            scores = scores.masked_fill(~real(states, length), float("-inf"))
        pooled: Tensor = (states * scores.softmax(1)).sum(1)
        return pooled
