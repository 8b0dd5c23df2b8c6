"""Convolutional networks: layer by layer as a recipe says."""

from __future__ import annotations

from torch import Tensor, nn

from yunmo.core import encoders as specs
from yunmo.core.errors import RecipeError
from yunmo.core.fields import FieldStatistics
from yunmo.models.activations import activation
from yunmo.models.encoders.base import Encoder


class CnnEncoder(Encoder):
    """Convolutions, poolings and dense layers in the recipe's order (LeCun et al. 1998); the last map is flattened.

    Raises:
        RecipeError: a map becomes smaller than one pixel, or a convolution follows a dense layer.
    """

    def __init__(self, spec: specs.CnnEncoder, statistics: FieldStatistics) -> None:
        super().__init__()
        height, width, channels = statistics.shape
        layers: list[nn.Module] = []
        flat: int | None = None
        for index, layer in enumerate(spec.layers):
            where = f"recipe, input {statistics.name}, encoder.layers[{index}]"
            if isinstance(layer, specs.DenseLayer):
                incoming = channels * height * width if flat is None else flat
                layers += ([nn.Flatten()] if flat is None else []) + _dense(layer, incoming)
                flat = layer.dense
                continue
            if flat is not None:
                raise RecipeError("a dense layer leaves no map to convolve or pool", where=where)
            if isinstance(layer, specs.ConvLayer):
                height, width = (_convolved(size, layer) for size in (height, width))
                layers += _convolution(layer, channels)
                channels = layer.conv
            else:
                height, width = (_pooled(size, layer) for size in (height, width))
                layers.append(_pooling(layer))
            if min(height, width) < 1:
                raise RecipeError(
                    "no pixel is left of the picture after this layer",
                    where=where,
                    remedy="Use fewer or smaller layers, padding: same, or a larger size for the input",
                )
        if flat is None:
            layers.append(nn.Flatten())
        self.layers = nn.Sequential(*layers)
        self.features = channels * height * width if flat is None else flat

    def forward(self, values: Tensor, length: Tensor | None = None) -> Tensor:  # noqa: ARG002  for sequences
        """Encode a batch: see `Encoder.forward`."""
        encoded: Tensor = self.layers(values)
        return encoded


def _padding(layer: specs.ConvLayer) -> int:
    """Pixels added at the end of each axis in sum: 'same' keeps ceil(size / stride)."""
    if layer.padding == "same":
        return layer.kernel - 1
    return 0 if layer.padding == "valid" else 2 * layer.padding


def _convolved(size: int, layer: specs.ConvLayer) -> int:
    return (size + _padding(layer) - layer.kernel) // layer.stride + 1


def _pooled(size: int, layer: specs.PoolLayer) -> int:
    return (size - layer.size) // (layer.stride or layer.size) + 1


def _convolution(layer: specs.ConvLayer, channels: int) -> list[nn.Module]:
    total = _padding(layer)
    modules: list[nn.Module] = []
    if total % 2:  # an even kernel with 'same': one more pixel right and below, as is usual
        modules.append(nn.ZeroPad2d((total // 2, total // 2 + 1, total // 2, total // 2 + 1)))
        total = 0
    # Batch norm brings a bias of its own.
    bias = not layer.batch_norm
    modules.append(nn.Conv2d(channels, layer.conv, layer.kernel, layer.stride, total // 2, bias=bias))
    if layer.batch_norm:
        modules.append(nn.BatchNorm2d(layer.conv))
    modules.append(activation(layer.activation))
    if layer.dropout:
        modules.append(nn.Dropout(layer.dropout))
    return modules


def _pooling(layer: specs.PoolLayer) -> nn.Module:
    kind = nn.MaxPool2d if layer.pool == "max" else nn.AvgPool2d
    return kind(layer.size, layer.stride or layer.size)


def _dense(layer: specs.DenseLayer, incoming: int) -> list[nn.Module]:
    modules: list[nn.Module] = [nn.Linear(incoming, layer.dense), activation(layer.activation)]
    return [*modules, nn.Dropout(layer.dropout)] if layer.dropout else modules
