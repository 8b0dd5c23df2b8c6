"""Muon: steps of equal size in every direction, for convolutions that a batch norm follows.

Keller Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon), as in their record on CIFAR-10: the momentum of a
weight matrix is made nearly orthogonal by Newton-Schulz iterations, and the weight is kept at a fixed length, which
a batch norm behind it makes free of consequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import overload

import torch
from torch import Tensor, nn

_ITERATIONS = 3
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration that brings singular values near 1 fastest (Jordan et al.)."""


class Muon(torch.optim.Optimizer):
    """Optimizer for convolution weights ``[out, in, height, width]``.

    Args:
        weights: what it trains.
        lr: length of a step, relative to weights of length ``sqrt(out)``.
        momentum: share of the old direction that each step keeps.
    """

    def __init__(self, weights: list[nn.Parameter], lr: float, momentum: float) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Change each weight once."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                momentum: Tensor = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                momentum.mul_(group["momentum"]).add_(weight.grad)
                direction = weight.grad.add(momentum, alpha=group["momentum"])
                even = orthogonalized(direction.reshape(len(direction), -1)).view(direction.shape)
                weight.mul_(len(weight) ** 0.5 / weight.norm()).add_(even, alpha=-group["lr"])
        return loss


def orthogonalized(matrix: Tensor) -> Tensor:
    """Return nearly the orthogonal matrix closest to ``[rows, columns]``: all singular values around 1."""
    a, b, c = _COEFFICIENTS
    wide: Tensor = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
