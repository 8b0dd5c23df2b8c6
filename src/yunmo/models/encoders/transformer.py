"""Self-attention over the steps of a sequence or the tokens of a text.

Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762); norms before each part: Xiong et al. 2020
(https://arxiv.org/abs/2002.04745); rotary positions: Su et al. 2021 (https://arxiv.org/abs/2104.09864).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from yunmo.core import encoders as specs
from yunmo.core.errors import RecipeError
from yunmo.core.fields import FieldStatistics
from yunmo.models.activations import activation
from yunmo.models.encoders.base import Encoder
from yunmo.models.encoders.pooling import AttentionPool, maximum, mean, real

_BASE = 10_000.0
"""Longest period of a position's waves, over 2 pi, in steps."""
_POSITION_DEVIATION = 0.02


class TransformerEncoder(Encoder):
    """Layers of multi-head self-attention and a small network on each step, then pooled; padding is not attended to."""

    def __init__(self, spec: specs.TransformerEncoder, statistics: FieldStatistics) -> None:
        super().__init__()
        steps, incoming = statistics.shape
        size = spec.size or incoming
        _check(spec, size, statistics.name)
        self.project = nn.Linear(incoming, size) if size != incoming else nn.Identity()
        self.learned: nn.Parameter | None = None
        if spec.positions == "learned":
            self.learned = nn.Parameter(torch.randn(steps, size) * _POSITION_DEVIATION)
        self.positions = spec.positions
        self.layers = nn.ModuleList(_Layer(spec, size) for _ in range(spec.layers))
        self.norm = nn.LayerNorm(size) if spec.norm == "pre" else nn.Identity()
        self.dropout = nn.Dropout(spec.dropout)
        self.pool = spec.pool
        self.attention = AttentionPool(size) if spec.pool == "attention" else None
        self.features = size
        self.head_size = size // spec.heads

    def forward(self, values: Tensor, length: Tensor | None = None) -> Tensor:
        """Encode a batch: see `Encoder.forward`."""
        states: Tensor = self.project(values)
        steps, size = states.shape[1:]
        if self.learned is not None:
            states = states + self.learned[:steps]
        elif self.positions == "sinusoidal":
            cosine, sine = waves(steps, size, states)
            # Interleaved or side by side is the same to a network that learns its weights.
            states = states + torch.cat((sine, cosine), 1)[:, :size]
        turn = waves(steps, self.head_size, states) if self.positions == "rotary" else None
        if length is not None:
            # An empty text attends to one step of padding: a softmax over nothing is none.
            length = length.clamp(min=1)
        hidden = ~real(states, length).transpose(1, 2).unsqueeze(1) if length is not None else None
        states = self.dropout(states)
        for layer in self.layers:
            states = layer(states, hidden, turn)
        states = self.norm(states)
        if self.attention is not None:
            return self.attention(states, length)  # type: ignore[no-any-return]  # Module.__call__
        return maximum(states, length) if self.pool == "max" else mean(states, length)


class _Layer(nn.Module):
    """Attention and a feed-forward network, each added to what came in."""

    def __init__(self, spec: specs.TransformerEncoder, size: int) -> None:
        super().__init__()
        self.heads, self.head_size, self.before = spec.heads, size // spec.heads, spec.norm == "pre"
        self.queries_keys_values = nn.Linear(size, 3 * size)
        self.joined = nn.Linear(size, size)
        self.forward_network = nn.Sequential(
            nn.Linear(size, spec.feed_forward),
            activation(spec.activation),
            nn.Dropout(spec.dropout),
            nn.Linear(spec.feed_forward, size),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(2))
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, states: Tensor, hidden: Tensor | None, turn: tuple[Tensor, Tensor] | None) -> Tensor:
        first, second = self.norms
        if self.before:
            states = states + self.dropout(self.attend(first(states), hidden, turn))
            changed: Tensor = states + self.dropout(self.forward_network(second(states)))
            return changed
        states = first(states + self.dropout(self.attend(states, hidden, turn)))
        normed: Tensor = second(states + self.dropout(self.forward_network(states)))
        return normed

    def attend(self, states: Tensor, hidden: Tensor | None, turn: tuple[Tensor, Tensor] | None) -> Tensor:
        """Let each step ``[N, T, size]`` look at all that are not hidden."""
        parts = self.queries_keys_values(states).unflatten(2, (3, self.heads, self.head_size))
        queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind(0)
        if turn is not None:
            queries, keys = rotated(queries, *turn), rotated(keys, *turn)
        answers = attention(queries, keys, values, hidden, self.dropout)
        joined: Tensor = self.joined(answers.transpose(1, 2).flatten(2))
        return joined


def attention(
    queries: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None, dropout: nn.Module | None = None
) -> Tensor:
    """Return scaled dot-product attention, all ``[N, heads, T, size]``.

    Args:
        queries: what each step looks for.
        keys: what each step is found by.
        values: what each step gives.
        hidden: bool, broadcast to ``[N, heads, T, T]``: what is not looked at; at least one step must be left.
        dropout: on the shares.
    """
    scores = queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[3])
    if hidden is not None:
        scores = scores.masked_fill(hidden, float("-inf"))
    shares = scores.softmax(3)
    return (shares if dropout is None else dropout(shares)) @ values


def waves(steps: int, size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine ``[steps, ceil(size / 2)]`` of each position, in waves from short to long."""
    count = (size + 1) // 2
    rates = torch.exp(torch.arange(count, device=like.device) * (-math.log(_BASE) / count))
    angles = torch.arange(steps, device=like.device)[:, None] * rates
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def rotated(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn pairs of features ``[N, heads, T, size]`` by their position's angles: products then tell distances."""
    one, other = states.chunk(2, 3)
    return torch.cat((one * cosine - other * sine, one * sine + other * cosine), 3)


def _check(spec: specs.TransformerEncoder, size: int, name: str) -> None:
    where = f"recipe, input {name}, encoder"
    if size % spec.heads:
        raise RecipeError(
            f"a size of {size} can't be shared among {spec.heads} heads",
            where=where,
            remedy="Choose a size, or an embedding, that heads divides",
        )
    if spec.positions == "rotary" and size // spec.heads % 2:
        raise RecipeError(
            f"rotary positions need heads of an even size, not {size // spec.heads}",
            where=where,
            remedy="Choose other heads, or positions: sinusoidal",
        )
