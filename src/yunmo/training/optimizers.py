"""Optimizers by the names that recipes use.

RMSprop: Hinton 2012; Adam: Kingma and Ba 2015; AdamW: Loshchilov and Hutter 2019; Muon: see there.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from yunmo.core.recipe import TrainSpec
from yunmo.models.encoders.base import Encoder
from yunmo.models.encoders.pretrained import PretrainedEncoder
from yunmo.models.encoders.whitening import Whitening
from yunmo.training.muon import Muon

_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)
_MOMENTUM, _MUON_MOMENTUM, _REST_MOMENTUM = 0.9, 0.6, 0.85


class Optimizers:
    """The optimizer of a recipe; with ``muon`` it is two, which step together.

    Args:
        network: what is trained.
        spec: resolved; weight decay leaves biases and norms alone.
    """

    def __init__(self, network: nn.Module, spec: TrainSpec) -> None:
        weights, biases, norms = _groups(network)
        apart = _scale_free(network) if spec.optimizer == "muon" else []
        chosen = {id(weight) for weight in apart}
        lr = spec.lr or 0.0
        # Rates are relative here; `set_rate` multiplies them.
        rest = spec.rest_lr / lr if apart and lr else 1.0
        norm = spec.norm_lr / lr if apart and lr and spec.norm_lr else rest
        groups: list[dict[str, Any]] = [
            {
                "params": [weight for weight in weights if id(weight) not in chosen],
                "weight_decay": spec.weight_decay or 0.0,
                "factor": rest,
            },
            {"params": biases, "weight_decay": 0.0, "factor": rest},
            {"params": norms, "weight_decay": 0.0, "factor": norm},
        ]
        groups = _with_pretrained(groups, network, lr)
        self._parts = [_optimizer([group for group in groups if group["params"]], spec)]
        if apart:
            momentum = _MUON_MOMENTUM if spec.momentum is None else spec.momentum
            self._parts.append(Muon(apart, lr, momentum))

    def set_rate(self, lr: float) -> None:
        """Set the learning rate of the coming step."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = lr * group.get("factor", 1.0)

    def zero_grad(self) -> None:
        """Forget the last step's gradients."""
        for part in self._parts:
            part.zero_grad()

    def step(self) -> None:
        """Change the weights by their gradients."""
        for part in self._parts:
            part.step()

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps, as tensors named ``PART.INDEX.KEY``. Rates are the schedule's."""
        return {
            f"{number}.{index}.{key}": value
            for number, part in enumerate(self._parts)
            for index, values in part.state_dict()["state"].items()
            for key, value in values.items()
            if isinstance(value, Tensor)
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        for number, part in enumerate(self._parts):
            weights = [weight for group in part.param_groups for weight in group["params"]]
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in tensors.items():
                owner, index, key = name.split(".", 2)
                if int(owner) == number:
                    state.setdefault(int(index), {})[key] = _laid_out(tensor, weights[int(index)])
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


def _with_pretrained(groups: list[dict[str, Any]], network: nn.Module, lr: float) -> list[dict[str, Any]]:
    """Return groups in which the parameters of pretrained encoders have groups and rates of their own."""
    for module in network.modules():
        if isinstance(module, PretrainedEncoder) and module.spec.lr is not None and lr:
            own = {id(parameter) for parameter in module.parameters()}
            split = []
            for group in groups:
                inside = [parameter for parameter in group["params"] if id(parameter) in own]
                outside = [parameter for parameter in group["params"] if id(parameter) not in own]
                split += [
                    {**group, "params": outside},
                    {**group, "params": inside, "factor": module.spec.lr / lr},
                ]
            groups = [group for group in split if group["params"]]
    return groups


def _laid_out(tensor: Tensor, weight: Tensor) -> Tensor:
    """Return a moment as its weight lies in memory (channels_last): the fused steps rely on it."""
    if tensor.shape != weight.shape:
        return tensor.clone()
    return torch.empty_like(weight, dtype=tensor.dtype).detach().copy_(tensor)


def _optimizer(groups: list[dict[str, Any]], spec: TrainSpec) -> torch.optim.Optimizer:
    lr = spec.lr or 0.0
    momentum = _MOMENTUM if spec.momentum is None else spec.momentum
    name = spec.optimizer
    if name == "muon":
        name, momentum = spec.rest or "adamw", _REST_MOMENTUM
    match name:
        case "adam":
            return torch.optim.Adam(groups, lr, betas=(spec.betas[0], spec.betas[1]), fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr, betas=(spec.betas[0], spec.betas[1]), fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr, momentum=momentum)
        case "momentum" | "nesterov":
            return torch.optim.SGD(groups, lr, momentum=momentum, nesterov=name == "nesterov", fused=True)
        case _:
            return torch.optim.SGD(groups, lr, fused=True)


def _groups(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Return what is trained: weights, which decay; biases; and what norms have."""
    weights: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    norms: list[nn.Parameter] = []
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if isinstance(module, _NORMS):
                norms.append(parameter)
            else:
                (biases if name.startswith("bias") else weights).append(parameter)
    return weights, biases, norms


def _scale_free(network: nn.Module) -> list[nn.Parameter]:
    """Return the weights of convolutions whose result a batch norm scales, but the first of those on raw channels."""
    weights: list[nn.Parameter] = []
    raw = True
    for module in network.modules():
        if isinstance(module, (Encoder, Whitening)):
            raw = isinstance(module, Encoder)
        elif isinstance(module, nn.Sequential):
            layers = [layer for layer in module if not isinstance(layer, _POOLS)]
            for layer, following in itertools.pairwise(layers):
                if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                    weights += [] if raw else layer.parameters(recurse=False)
                    raw = False
    return weights
