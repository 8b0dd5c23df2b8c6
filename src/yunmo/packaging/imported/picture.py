"""How a picture, (height, width, channels) from 0 to 255, becomes the tensor that an imported graph takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from yunmo.core.errors import InvalidInput
from yunmo.packaging.imported import description as says
from yunmo.packaging.imported.tensors import TensorInfo

Layout = Literal["NCHW", "NHWC"]
_COLOR_AXES = (1, 3)


@dataclass(frozen=True)
class PicturePlan:
    """How a picture becomes the graph's tensor: (height, width, channels) encoded, and the order of axes."""

    shape: tuple[int, int, int]
    layout: Layout
    flat: tuple[int, ...] | None
    """Another shape without the batch, of the same elements; None: as it is."""


def picture_plan(tensor: TensorInfo, field: says.ImageInput, where: str) -> PicturePlan:
    """Bring together what the description and the graph say of a picture.

    Raises:
        InvalidInput: they contradict each other, or leave something open.
    """
    shape = tensor.shape
    layout = field.layout
    channels = {"gray": 1, "rgb": 3, "bgr": 3}[field.color] if field.color else None
    said = (field.size, field.size) if isinstance(field.size, int) else field.size
    if shape is None or len(shape) != 3:
        if said is None or channels is None:
            raise InvalidInput(
                f"the tensor {tensor.name!r} has the shape {list(shape or ())} for each row",
                where=where,
                remedy="Say size, color and layout",
            )
        plan = (said[0], said[1], channels)
        sizes = None if shape is None or None in shape else [size for size in shape if size is not None]
        if sizes is not None and int(np.prod(sizes)) != int(np.prod(plan)):
            raise InvalidInput(f"{plan} values a picture, and the tensor {tensor.name!r} takes {sizes}", where=where)
        return PicturePlan(plan, layout or "NCHW", tuple(sizes) if sizes is not None else None)
    if layout is None:
        layout = _layout(shape, channels, tensor, where)
    found = (shape[1], shape[2], shape[0]) if layout == "NCHW" else shape
    height, width, depth = (
        _agree(one, other, what, tensor, where)
        for one, other, what in zip(
            (*(said or (None, None)), channels), found, ("height", "width", "channels"), strict=True
        )
    )
    if depth not in _COLOR_AXES:
        raise InvalidInput(
            f"the tensor {tensor.name!r} has {depth} channels", where=where, remedy="Pictures have 1 or 3; see layout"
        )
    return PicturePlan((height, width, depth), layout, None)


def _layout(shape: Sequence[int | None], channels: int | None, tensor: TensorInfo, where: str) -> Layout:
    first, last = (axis in ((channels,) if channels else _COLOR_AXES) for axis in (shape[0], shape[2]))
    if first == last:
        raise InvalidInput(
            f"the tensor {tensor.name!r} has the shape {list(shape)} for each row: where are its channels?",
            where=where,
            remedy="Say layout: NCHW or layout: NHWC",
        )
    return "NCHW" if first else "NHWC"


def _agree(said: int | None, found: int | None, what: str, tensor: TensorInfo, where: str) -> int:
    if said is not None and found is not None and said != found:
        raise InvalidInput(f"{what} {said} where the tensor {tensor.name!r} has {found}", where=where)
    size = said if said is not None else found
    if size is None:
        key = "color" if what == "channels" else "size"
        raise InvalidInput(f"the graph leaves the {what} of {tensor.name!r} open", where=where, remedy=f"Say {key}")
    return size


def affine(scale: says.PixelScale, channels: int, where: str) -> tuple[Any, Any]:
    """Return factor and shift of each channel: (x / divide - mean) / deviation = x * factor + shift."""
    mean, deviation = np.asarray(scale.mean, np.float64), np.asarray(scale.deviation, np.float64)
    for value in (mean, deviation):
        if value.ndim and len(value) != channels:
            raise InvalidInput(f"{len(value)} numbers for {channels} channels", where=f"{where}, scale")
    if (deviation == 0).any():
        raise InvalidInput("a deviation of 0", where=f"{where}, scale")
    ones = np.ones(channels)
    return ones / (scale.divide * deviation), -mean / deviation * ones
