"""A running mean of the weights, often better than the last ones (Polyak and Juditsky 1992)."""

from __future__ import annotations

import copy

import torch

from yunmo.models.network import Network


class Average:
    """An exponential moving average of a network's weights and norm statistics.

    Args:
        network: the one that is trained; the average begins as its copy.
        decay: share of the old mean that each step keeps. It grows from 0.1, so that the beginning is forgotten.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: Network, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for mean, value in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)
