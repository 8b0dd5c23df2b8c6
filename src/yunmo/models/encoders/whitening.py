"""A first convolution computed from the data: it makes the values of small patches uncorrelated and equally strong.

Coates and Ng 2012 (https://doi.org/10.1007/978-3-642-35289-8_30) for learning features; frozen and with each filter's
negative, as in K. Jordan's CIFAR-10 record (2024, https://arxiv.org/abs/2404.00498).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  the field's usual name
from torch import Tensor, nn

_SMOOTHING = 5e-4
"""Added to the variance of each direction, so that noise in the weakest is not blown up."""
_APART = 2
"""Pixels between patches of the sample: closer ones say nearly the same."""


class Whitening(nn.Module):
    """A convolution that is not trained, but kept with the weights.

    Until `fit` it answers 0.

    Args:
        channels: of the pictures.
        filters: at most so many; there are no more than two for each value of a patch.
        kernel: height and width of a patch.
        stride: pixels between two patches.
    """

    weight: Tensor

    def __init__(self, channels: int, filters: int, *, kernel: int, stride: int) -> None:
        super().__init__()
        self.features = 2 * max(1, min(filters // 2, channels * kernel * kernel))
        self._stride = stride
        self.register_buffer("weight", torch.zeros(self.features, channels, kernel, kernel))

    @torch.no_grad()
    def fit(self, pictures: Tensor) -> None:
        """Compute the filters: the strongest principal directions over their deviation, and their negatives.

        Args:
            pictures: sample of scaled training pictures ``[N, C, H, W]``.
        """
        half, kernel = self.features // 2, self.weight.shape[2]
        patches = F.unfold(pictures, kernel, padding=1, stride=_APART).transpose(1, 2).flatten(0, 1).double()
        variance, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (directions / (variance + _SMOOTHING).sqrt()).T.flip(0)[:half]
        # The sign of a principal direction is arbitrary; fixed, the filters depend on the sample alone.
        strongest = filters.gather(1, filters.abs().argmax(1, keepdim=True))
        filters = (filters * strongest.sign()).float().view(half, *self.weight.shape[1:])
        self.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, pictures: Tensor) -> Tensor:
        """Filter pictures ``[N, C, H, W]``."""
        return F.conv2d(pictures, self.weight, stride=self._stride, padding=1)
