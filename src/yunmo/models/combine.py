"""What comes between encoders and answers: fully connected layers, then one head per output."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from yunmo.core.recipe import CombineSpec
from yunmo.models.activations import activation
from yunmo.models.members import MemberLinear


class Combine(nn.Module):
    """Hidden layers and heads, as one network or as several members of an ensemble.

    Args:
        spec: the recipe's ``combine``.
        features: length of the joined feature vector.
        outputs: length of each head's answer, by output.
    """

    def __init__(self, spec: CombineSpec, features: int, outputs: Mapping[str, int]) -> None:
        super().__init__()
        self.members = spec.members
        self.names = tuple(outputs)
        layers: list[nn.Module] = []
        incoming = features
        for units in spec.hidden:
            layers.append(_linear(spec.members, incoming, units))
            if spec.batch_norm:
                layers.append(_MemberNorm(spec.members, units) if spec.members > 1 else nn.BatchNorm1d(units))
            layers.append(activation(spec.activation))
            if spec.dropout:
                layers.append(nn.Dropout(spec.dropout))
            incoming = units
        self.hidden = nn.Sequential(*layers)
        self.heads = nn.ModuleList(_linear(spec.members, incoming, size) for size in outputs.values())
        self.straight = nn.ModuleList()
        if spec.linear:
            self.straight.extend(_linear(spec.members, features, size) for size in outputs.values())
        for layer in (*(self.heads if spec.zero_heads else ()), *self.straight):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, features: Tensor, *, separate: bool = False) -> dict[str, Tensor]:
        """Answer a batch.

        Args:
            features: ``[N, features]``; with ``separate``, ``[members * N, features]``, one member's rows first.
            separate: whether members have rows of their own (in training) or all see the same.

        Returns:
            ``[members, N, size]`` for each output
        """
        if self.members > 1:
            rows = features.shape[0] // self.members if separate else features.shape[0]
            features = features.reshape(-1, rows, features.shape[1]).expand(self.members, -1, -1)
        hidden = self.hidden(features)
        answers = {}
        for index, name in enumerate(self.names):
            answer = self.heads[index](hidden)
            if len(self.straight):
                answer = answer + self.straight[index](features)
            answers[name] = answer if self.members > 1 else answer.unsqueeze(0)
        return answers


def _linear(members: int, incoming: int, outgoing: int) -> nn.Module:
    return MemberLinear(members, incoming, outgoing) if members > 1 else nn.Linear(incoming, outgoing)


class _MemberNorm(nn.Module):
    """Batch norm of each member's units on their own."""

    def __init__(self, members: int, units: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(members * units)

    def forward(self, values: Tensor) -> Tensor:
        members, rows, units = values.shape
        normed: Tensor = self.norm(values.transpose(0, 1).reshape(rows, members * units))
        return normed.reshape(rows, members, units).transpose(0, 1)
