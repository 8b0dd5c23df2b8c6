"""Running means of the weights, often better than the last ones (Polyak and Juditsky 1992)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

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


_LOOKAHEAD_STEPS = 5


class Lookahead:
    """Weights and norm statistics that return to their own running mean every few steps.

    Zhang et al. 2019 (https://arxiv.org/abs/1907.08610), with a mean that forgets less and less, as K. Jordan 2024.

    Args:
        network: the one that is trained.
        decay: share of the mean that each step keeps at the end of the run. It grows from 0 with the cube of progress.
        steps: of the whole run.
    """

    def __init__(self, network: Network, decay: float, steps: int) -> None:
        self._mean = {name: value.clone() for name, value in _floats(network).items()}
        self._decay, self._steps = decay**_LOOKAHEAD_STEPS, steps

    @torch.no_grad()
    def update(self, network: Network, step: int) -> None:
        """Take in the weights after a step, counted from 0, and maybe set them to the mean."""
        done = step + 1
        if done % _LOOKAHEAD_STEPS:
            return
        decay = self._decay * (done / self._steps) ** 3
        for name, value in _floats(network).items():
            value.copy_(self._mean[name].lerp_(value, 1 - decay))

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        return dict(self._mean)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        for name, value in self._mean.items():
            value.copy_(state[name])


def _floats(network: Network) -> dict[str, Tensor]:
    return {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
