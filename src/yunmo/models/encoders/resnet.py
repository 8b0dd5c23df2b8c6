"""A small residual convolutional network for pictures.

Residual blocks are He et al. 2016 (https://arxiv.org/abs/1512.03385); few wide stages, each with a max pooling, follow
the ResNet-9 that won DAWNBench (D. Page 2018); folding pixels into channels is Shi et al. 2016
(https://arxiv.org/abs/1609.05158), the other way round. A whitened stem, convolutions that begin as the identity and
norms without scale are K. Jordan's (2024, https://arxiv.org/abs/2404.00498).
"""

from __future__ import annotations

from torch import Tensor, nn

from yunmo.core import encoders as specs
from yunmo.core.errors import RecipeError
from yunmo.core.fields import FieldStatistics
from yunmo.models.activations import activation
from yunmo.models.encoders.base import Encoder
from yunmo.models.encoders.whitening import Whitening


class ResnetEncoder(Encoder):
    """A stem, stages that each halve the map, and one pooling over what is left.

    Raises:
        RecipeError: the picture is too small for the stages, or ``blocks`` and ``filters`` do not match.
    """

    def __init__(self, spec: specs.ResnetEncoder, statistics: FieldStatistics) -> None:
        super().__init__()
        blocks = _checked_blocks(spec, statistics)
        layers = _stem(spec, statistics.shape[2])
        incoming = layers[0].features if isinstance(layers[0], Whitening) else spec.filters[0]
        layers += [_block(incoming, spec) for _ in range(blocks[0])]
        for outgoing, count in zip(spec.filters[1:], blocks[1:], strict=True):
            # Pooled before norm and activation, which then have a quarter of the work.
            layers.append(_convolution(incoming, outgoing, spec, pool=True))
            layers += [_block(outgoing, spec) for _ in range(count)]
            incoming = outgoing
        self.layers = nn.Sequential(*layers)
        self.pool = spec.pool
        self.dropout = nn.Dropout(spec.dropout)
        self.features = incoming

    def fit(self, values: Tensor) -> None:
        """Compute a whitened stem from a sample: see `Encoder.fit`."""
        stem = self.layers[0]
        if isinstance(stem, Whitening):
            stem.fit(values)

    def forward(self, values: Tensor, length: Tensor | None = None) -> Tensor:  # noqa: ARG002  for sequences
        """Encode a batch: see `Encoder.forward`."""
        maps: Tensor = self.layers(values)
        pooled = maps.amax((2, 3)) if self.pool == "max" else maps.mean((2, 3))
        features: Tensor = self.dropout(pooled)
        return features


def _checked_blocks(spec: specs.ResnetEncoder, statistics: FieldStatistics) -> tuple[int, ...]:
    """Return the blocks after the stem and each stage, if picture and specification fit."""
    height, width, _ = statistics.shape
    where = f"recipe, input {statistics.name}, encoder"
    blocks = spec.blocks * len(spec.filters) if len(spec.blocks) == 1 else spec.blocks
    if len(blocks) != len(spec.filters):
        raise RecipeError(
            f"{len(spec.filters)} filters but {len(blocks)} blocks",
            where=where,
            remedy="Give blocks one entry, or as many as filters has",
        )
    halvings = len(spec.filters) - (spec.stem in ("conv", "whitened"))
    if min(height, width) >> halvings < 1 or (spec.stem == "patch" and (height % 2 or width % 2)):
        raise RecipeError(
            f"pictures of {height}x{width} pixels can't be halved {halvings} times",
            where=where,
            remedy="Use fewer filters (stages), stem: conv, or a larger, even size for the input",
        )
    return blocks


def _stem(spec: specs.ResnetEncoder, channels: int) -> list[nn.Module]:
    filters = spec.filters[0]
    if spec.stem == "whitened":
        return [Whitening(channels, filters, kernel=3, stride=1), activation(spec.activation)]
    if spec.stem == "whitened_half":
        return [Whitening(channels, filters, kernel=4, stride=2), activation(spec.activation)]
    if spec.stem == "patch":
        return [nn.PixelUnshuffle(2), _convolution(4 * channels, filters, spec)]
    return [_convolution(channels, filters, spec)]


def _convolution(incoming: int, outgoing: int, spec: specs.ResnetEncoder, *, pool: bool = False) -> nn.Sequential:
    convolution = nn.Conv2d(incoming, outgoing, 3, padding=1, bias=False)
    # Not within blocks: what came in is added there anyway.
    if pool and spec.start == "identity" and outgoing >= incoming:
        nn.init.dirac_(convolution.weight.data[:incoming])
    norm = nn.BatchNorm2d(outgoing, momentum=spec.norm_momentum)
    norm.weight.requires_grad_(spec.norm_scale)
    pooling = [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(convolution, *pooling, norm, activation(spec.activation))


def _block(filters: int, spec: specs.ResnetEncoder) -> nn.Module:
    return _TwoConvolutions(filters, spec) if spec.block == "two" else _OneConvolution(filters, spec)


class _OneConvolution(nn.Module):
    """A convolution with norm and activation whose result is added to what came in."""

    def __init__(self, filters: int, spec: specs.ResnetEncoder) -> None:
        super().__init__()
        self.branch = _convolution(filters, filters, spec)

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = maps + self.branch(maps)
        return out


class _TwoConvolutions(nn.Module):
    """Two convolutions whose result is added to what came in.

    It begins as the identity: the last norm's scale is 0 and always learned (Goyal et al. 2017,
    https://arxiv.org/abs/1706.02677). No activation stands between that norm and the sum, since ReLU would pass no
    gradient at 0 and the block never wake.
    """

    def __init__(self, filters: int, spec: specs.ResnetEncoder) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(filters, momentum=spec.norm_momentum)
        nn.init.zeros_(norm.weight)
        last = nn.Sequential(nn.Conv2d(filters, filters, 3, padding=1, bias=False), norm)
        self.branch = nn.Sequential(_convolution(filters, filters, spec), last)

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = maps + self.branch(maps)
        return out
