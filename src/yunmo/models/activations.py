"""Activation functions by the names that recipes use."""

from __future__ import annotations

from torch import nn

from yunmo.core.encoders import Activation

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def activation(name: Activation | None) -> nn.Module:
    """Return a new activation module; the identity for ``None``."""
    return nn.Identity() if name is None else _ACTIVATIONS[name]()
