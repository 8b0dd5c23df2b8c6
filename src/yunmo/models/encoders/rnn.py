"""Recurrent networks over the steps of a sequence; a picture's rows are its steps.

Plain: Elman 1990; LSTM: Hochreiter and Schmidhuber 1997; GRU: Cho et al. 2014 (https://arxiv.org/abs/1406.1078).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from yunmo.core import encoders as specs
from yunmo.core.fields import FieldStatistics
from yunmo.models.encoders.base import Encoder
from yunmo.models.encoders.pooling import AttentionPool, maximum, mean


class RnnEncoder(Encoder):
    """Stacked recurrent layers, padding left out, and the last state or all states pooled over time.

    Padding stands at the end of a sequence, so a forward layer meets it last and its states there are ignored. A
    backward layer gets each sequence turned round within its own length. So no packing is needed, and the exported
    graph runs at any batch and length.
    """

    def __init__(self, spec: specs.RnnEncoder, statistics: FieldStatistics) -> None:
        super().__init__()
        self.picture = statistics.type == "image"
        incoming = statistics.shape[1] * statistics.shape[2] if self.picture else statistics.shape[-1]
        self.project = None
        if spec.project is not None:
            self.project = nn.Sequential(nn.Linear(incoming, spec.project), nn.GELU(), nn.LayerNorm(spec.project))
            incoming = spec.project
        directions = 2 if spec.bidirectional else 1
        self.ahead, self.back = nn.ModuleList(), nn.ModuleList()
        for _ in range(spec.layers):
            self.ahead.append(_Recurrent(spec, incoming))
            if spec.bidirectional:
                self.back.append(_Recurrent(spec, incoming))
            incoming = spec.hidden * directions
        self.pool = spec.pool
        self.attention = AttentionPool(incoming) if spec.pool == "attention" else None
        self.dropout = nn.Dropout(spec.dropout)
        self.features = incoming * (2 if spec.pool == "mean_max" else 1)

    def forward(self, values: Tensor, length: Tensor | None = None) -> Tensor:
        """Encode a batch: see `Encoder.forward`."""
        if self.picture:
            values = values.permute(0, 2, 3, 1).flatten(2)
        if length is not None:
            length = length.clamp(min=1)
        states, hidden = values if self.project is None else self.project(values), 0
        for index, ahead in enumerate(self.ahead):
            if index:
                states = self.dropout(states)
            forward: Tensor = ahead(states)
            hidden = forward.shape[2]
            if len(self.back):
                backward = _turned(self.back[index](_turned(states, length)), length)
                states = torch.cat((forward, backward), 2)
            else:
                states = forward
        pooled: Tensor = self.dropout(self._pooled(states, length, hidden))
        return pooled

    def _pooled(self, states: Tensor, length: Tensor | None, hidden: int) -> Tensor:
        if self.pool == "last":
            last = states[:, -1, :hidden] if length is None else _at(states[:, :, :hidden], length - 1)
            # A backward layer has read everything when it is at the first step.
            return torch.cat((last, states[:, 0, hidden:]), 1) if len(self.back) else last
        if self.attention is not None:
            weighted: Tensor = self.attention(states, length)
            return weighted
        pooled = []
        if self.pool != "max":
            pooled.append(mean(states, length))
        if self.pool != "mean":
            pooled.append(maximum(states, length))
        return torch.cat(pooled, 1)


def _at(states: Tensor, index: Tensor) -> Tensor:
    """Return the state ``[N, H]`` of each sequence at its own step."""
    return states.gather(1, index[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)


def _turned(states: Tensor, length: Tensor | None) -> Tensor:
    """Turn each sequence round within its own length; padding stays where it is."""
    if length is None:
        return states.flip(1)
    step = torch.arange(states.shape[1], device=states.device)[None]
    index = torch.where(step < length[:, None], length[:, None] - 1 - step, step)
    return states.gather(1, index[:, :, None].expand(-1, -1, states.shape[2]))


Attribute = int | float | str | bool | Sequence[int] | Sequence[float] | Sequence[str] | Sequence[bool]

_ONNX_GATES = {"rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
"""Which of torch's gates stands at each place in ONNX. LSTM: i, f, g, o and i, o, f, c; GRU: r, z, n and z, r, h."""


class _Recurrent(nn.Module):
    """One recurrent layer in one direction, that exports as ONNX's own RNN, LSTM or GRU operator.

    torch 2.13's exporter unrolls recurrent modules step by step, which freezes the number of steps in the graph.
    """

    def __init__(self, spec: specs.RnnEncoder, incoming: int) -> None:
        super().__init__()
        self.kind, self.activation = spec.cell, spec.activation
        self.cell: nn.RNNBase
        if spec.cell == "rnn":
            self.cell = nn.RNN(incoming, spec.hidden, nonlinearity=spec.activation, batch_first=True)
        else:
            self.cell = (nn.LSTM if spec.cell == "lstm" else nn.GRU)(incoming, spec.hidden, batch_first=True)
        self._begin(spec.hidden)

    def _begin(self, hidden: int) -> None:
        """Orthogonal state weights keep long gradients alive (Saxe et al. 2014); Glorot for inputs; biases 0."""
        for name, parameter in self.cell.named_parameters():
            for gate in torch.split(parameter.data, hidden):
                if name.startswith("bias"):
                    nn.init.zeros_(gate)
                elif name.startswith("weight_hh"):
                    nn.init.orthogonal_(gate)
                else:
                    nn.init.xavier_uniform_(gate)

    def forward(self, values: Tensor) -> Tensor:
        """Return the states of all steps: ``[N, T, C]`` to ``[N, T, H]``."""
        if torch.onnx.is_in_onnx_export():
            return self._exported(values)
        states: Tensor = self.cell(values)[0]
        return states

    def _exported(self, values: Tensor) -> Tensor:
        hidden, gates = self.cell.hidden_size, _ONNX_GATES[self.kind]
        ordered = [
            torch.cat([getattr(self.cell, name).unflatten(0, (-1, hidden))[gate] for gate in gates])
            for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        ]
        inputs = (values.transpose(0, 1), ordered[0][None], ordered[1][None], torch.cat(ordered[2:])[None])
        attributes: dict[str, Attribute] = {"hidden_size": hidden}
        if self.kind == "rnn":
            attributes["activations"] = [self.activation.capitalize()]
        if self.kind == "gru":
            attributes["linear_before_reset"] = 1
        batch, steps = values.shape[:2]
        states: Tensor = torch.onnx.ops.symbolic(
            self.kind.upper(), inputs, attributes, dtype=values.dtype, shape=(steps, 1, batch, hidden), version=18
        )
        return states.squeeze(1).transpose(0, 1)
