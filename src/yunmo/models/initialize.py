"""How weights begin: He et al. 2015 (https://arxiv.org/abs/1502.01852), Glorot and Bengio 2010, normal, constant."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from yunmo.core.recipe import InitializationSpec
from yunmo.models.members import MemberLinear


@torch.no_grad()
def initialize(network: nn.Module, spec: InitializationSpec) -> None:
    """Set the first weights in place; ``default`` leaves what each layer chose for itself. Norms are left alone."""
    if spec.method == "default":
        return
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.RNNBase, nn.Embedding)):
            for name, parameter in module.named_parameters(recurse=False):
                _fill(name, parameter, spec)
        elif isinstance(module, MemberLinear):
            for member in range(len(module.weight)):
                _fill("weight", module.weight[member].T, spec)
            nn.init.zeros_(module.bias)


def _fill(name: str, parameter: Tensor, spec: InitializationSpec) -> None:
    if name.startswith("bias"):
        nn.init.zeros_(parameter)
    elif spec.method == "kaiming":
        nn.init.kaiming_normal_(parameter)
    elif spec.method == "xavier":
        nn.init.xavier_uniform_(parameter)
    elif spec.method == "normal":
        nn.init.normal_(parameter, 0.0, spec.deviation)
    else:
        nn.init.constant_(parameter, spec.value)
