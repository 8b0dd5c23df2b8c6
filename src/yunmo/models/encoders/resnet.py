"""A small residual convolutional network for pictures.

Residual blocks are He et al. 2016 (https://arxiv.org/abs/1512.03385); few wide stages, each with a max pooling, follow
the ResNet-9 that won DAWNBench (D. Page 2018); folding pixels into channels is Shi et al. 2016
(https://arxiv.org/abs/1609.05158), the other way round.
"""

from __future__ import annotations

from torch import Tensor, nn

from yunmo.core import encoders as specs
from yunmo.core.encoders import Activation
from yunmo.core.errors import RecipeError
from yunmo.core.fields import FieldStatistics
from yunmo.models.activations import activation
from yunmo.models.encoders.base import Encoder


class ResnetEncoder(Encoder):
    """A stem, stages that each halve the map, and one pooling over what is left.

    Raises:
        RecipeError: the picture is too small for the stages, or ``blocks`` and ``filters`` do not match.
    """

    def __init__(self, spec: specs.ResnetEncoder, statistics: FieldStatistics) -> None:
        super().__init__()
        height, width, channels = statistics.shape
        where = f"recipe, input {statistics.name}, encoder"
        blocks = spec.blocks * len(spec.filters) if len(spec.blocks) == 1 else spec.blocks
        if len(blocks) != len(spec.filters):
            raise RecipeError(
                f"{len(spec.filters)} filters but {len(blocks)} blocks",
                where=where,
                remedy="Give blocks one entry, or as many as filters has",
            )
        halvings = len(spec.filters) - (spec.stem == "conv")
        if min(height, width) >> halvings < 1 or (spec.stem == "patch" and (height % 2 or width % 2)):
            raise RecipeError(
                f"pictures of {height}x{width} pixels can't be halved {halvings} times",
                where=where,
                remedy="Use fewer filters (stages), stem: conv, or a larger, even size for the input",
            )
        stem = spec.filters[0]
        layers: list[nn.Module] = []
        if spec.stem == "patch":
            layers.append(nn.PixelUnshuffle(2))
            channels *= 4
        layers.append(_convolution(channels, stem, spec.activation))
        layers += [_Residual(stem, spec.activation) for _ in range(blocks[0])]
        incoming = stem
        for outgoing, count in zip(spec.filters[1:], blocks[1:], strict=True):
            layers += [_convolution(incoming, outgoing, spec.activation), nn.MaxPool2d(2)]
            layers += [_Residual(outgoing, spec.activation) for _ in range(count)]
            incoming = outgoing
        self.layers = nn.Sequential(*layers)
        self.pool = spec.pool
        self.dropout = nn.Dropout(spec.dropout)
        self.features = incoming

    def forward(self, values: Tensor, length: Tensor | None = None) -> Tensor:  # noqa: ARG002  for sequences
        """Encode a batch: see `Encoder.forward`."""
        maps: Tensor = self.layers(values)
        pooled = maps.amax((2, 3)) if self.pool == "max" else maps.mean((2, 3))
        features: Tensor = self.dropout(pooled)
        return features


def _convolution(incoming: int, outgoing: int, name: Activation) -> nn.Sequential:
    convolution = nn.Conv2d(incoming, outgoing, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outgoing), activation(name))


class _Residual(nn.Module):
    """Two convolutions whose result is added to what came in.

    It begins as the identity: the last norm's weight is 0 (Goyal et al. 2017, https://arxiv.org/abs/1706.02677). No
    activation stands between that norm and the sum, since ReLU would pass no gradient at 0 and the block never wake.
    """

    def __init__(self, filters: int, name: Activation) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(filters)
        nn.init.zeros_(norm.weight)
        last = nn.Sequential(nn.Conv2d(filters, filters, 3, padding=1, bias=False), norm)
        self.branch = nn.Sequential(_convolution(filters, filters, name), last)

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = maps + self.branch(maps)
        return out
