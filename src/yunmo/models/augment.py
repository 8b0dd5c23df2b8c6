"""Random changes of training pictures, made on whole batches as tensor operations.

Cutout: DeVries and Taylor 2017 (https://arxiv.org/abs/1708.04552). All randomness is torch's global generator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812  the field's usual name
from torch import Tensor

from yunmo.core.fields import Augment, FieldStatistics, ImageField, InputField


class Augmentation:
    """The changes of a training's pictures, field by field.

    Args:
        inputs: of the recipe.
        statistics: by field: what is put where nothing is known is the mean color.
        rows: of training data.
        seed: of the recipe, for what is fixed over epochs.
    """

    def __init__(
        self, inputs: tuple[InputField, ...], statistics: Mapping[str, FieldStatistics], rows: int, seed: int
    ) -> None:
        self._fields = {
            field.name: (field.augment, torch.tensor(statistics[field.name].mean) * 255)
            for field in inputs
            if isinstance(field, ImageField) and field.augment is not None and field.augment != Augment()
        }
        # With a generator of its own: a resumed training draws the same.
        self._first = torch.rand(rows, generator=torch.Generator().manual_seed(seed)) < 0.5

    def __call__(self, inputs: Mapping[str, Tensor], rows: Tensor, epoch: int) -> dict[str, Tensor]:
        """Return a batch with its pictures changed.

        Args:
            inputs: tensors of the batch.
            rows: their row numbers ``[N]``.
            epoch: from 0.
        """
        changed = dict(inputs)
        for name, (spec, fill) in self._fields.items():
            mirrored = alternating_flips(rows, epoch, self._first) if spec.alternate else None
            changed[name] = augment(changed[name], spec, fill, mirrored)
        return changed


def augment(pictures: Tensor, spec: Augment, fill: Tensor, mirrored: Tensor | None = None) -> Tensor:
    """Change each picture of a batch in its own way.

    Args:
        pictures: uint8 ``[N, H, W, C]``.
        spec: which changes, and how strong.
        fill: float ``[C]`` in 0..255: what is put where nothing is known (the data's mean color).
        mirrored: bool ``[N]``, for ``flip``: which are mirrored; ``None``: half of them, at random.

    Returns:
        uint8 or float32 ``[N, H, W, C]``, values 0..255
    """
    if spec.rotate or spec.scale or spec.shift:
        pictures = _affine(pictures, spec, fill)
    if spec.crop or spec.flip or spec.vertical_flip:
        pictures = _crop_and_flip(pictures, spec, mirrored)
    if spec.brightness:
        change = 1 + (torch.rand(len(pictures), 1, 1, 1) * 2 - 1) * spec.brightness
        pictures = (pictures * change).clamp_(0, 255)
    if spec.cutout:
        pictures = _cutout(pictures, spec.cutout, fill)
    return pictures


def alternating_flips(rows: Tensor, epoch: int, first: Tensor) -> Tensor:
    """Return which pictures of a batch are mirrored in an epoch: all but those of the epoch before.

    Both views of a picture then come equally often, which chance does not grant (K. Jordan 2024,
    https://arxiv.org/abs/2404.00498).

    Args:
        rows: numbers ``[N]`` of the pictures.
        epoch: from 0.
        first: bool, for every training picture: whether it is mirrored in the first epoch.
    """
    return first[rows] ^ bool(epoch % 2)


def _crop_and_flip(pictures: Tensor, spec: Augment, mirrored: Tensor | None) -> Tensor:
    """Shift by up to ``crop`` pixels (what comes in is reflected) and mirror: one gather of pixel indices."""
    count, height, width, _ = pictures.shape
    rows = _indices(count, height, spec.crop, _half(count) if spec.vertical_flip else None)
    if spec.flip and mirrored is None:
        mirrored = _half(count)
    columns = _indices(count, width, spec.crop, mirrored if spec.flip else None)
    return pictures[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _half(count: int) -> Tensor:
    return torch.rand(count) < 0.5


def _indices(count: int, size: int, crop: int, mirrored: Tensor | None) -> Tensor:
    index = torch.arange(size).expand(count, size)
    if crop:
        # A crop wider than the picture would need a second reflection.
        reach = min(crop, size - 1)
        index = index + torch.randint(-reach, reach + 1, (count, 1))
        index = (size - 1) - ((size - 1) - index.abs()).abs()
    if mirrored is not None:
        index = torch.where(mirrored[:, None], index.flip(1), index)
    return index


def _affine(pictures: Tensor, spec: Augment, fill: Tensor) -> Tensor:
    count, height, width, channels = pictures.shape
    angle = (torch.rand(count) * 2 - 1) * math.radians(spec.rotate)
    zoom = 1 + (torch.rand(count) * 2 - 1) * spec.scale
    shift = (torch.rand(count, 2) * 2 - 1) * 2 * spec.shift
    # Where each pixel comes from, in coordinates of -1..1: width and height differ in pixels per unit.
    cosine, sine, aspect = zoom * angle.cos(), zoom * angle.sin(), height / width
    row_x = torch.stack((cosine, -sine * aspect, shift[:, 0]), 1)
    row_y = torch.stack((sine / aspect, cosine, shift[:, 1]), 1)
    grid = F.affine_grid(torch.stack((row_x, row_y), 1), [count, channels, height, width], align_corners=False)
    centered = (pictures - fill).permute(0, 3, 1, 2)
    moved = F.grid_sample(centered, grid, padding_mode="zeros", align_corners=False)
    return moved.permute(0, 2, 3, 1) + fill


def _cutout(pictures: Tensor, side: int, fill: Tensor) -> Tensor:
    count, height, width, _ = pictures.shape
    blank = _window(count, height, side)[:, :, None] & _window(count, width, side)[:, None, :]
    return torch.where(blank.unsqueeze(3), fill.to(pictures.dtype), pictures)


def _window(count: int, size: int, side: int) -> Tensor:
    start = torch.randint(0, size, (count, 1)) - side // 2
    place = torch.arange(size)
    return (place >= start) & (place < start + side)
