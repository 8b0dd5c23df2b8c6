"""Random changes of training pictures, made on whole batches as tensor operations.

Cutout: DeVries and Taylor 2017 (https://arxiv.org/abs/1708.04552). All randomness is torch's global generator.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812  the field's usual name
from torch import Tensor

from yunmo.core.fields import Augment


def augment(pictures: Tensor, spec: Augment, fill: Tensor) -> Tensor:
    """Change each picture of a batch in its own way.

    Args:
        pictures: uint8 ``[N, H, W, C]``.
        spec: which changes, and how strong.
        fill: float ``[C]`` in 0..255: what is put where nothing is known (the data's mean color).

    Returns:
        uint8 or float32 ``[N, H, W, C]``, values 0..255
    """
    if spec.rotate or spec.scale or spec.shift:
        pictures = _affine(pictures, spec, fill)
    if spec.crop or spec.flip or spec.vertical_flip:
        pictures = _crop_and_flip(pictures, spec)
    if spec.brightness:
        change = 1 + (torch.rand(len(pictures), 1, 1, 1) * 2 - 1) * spec.brightness
        pictures = (pictures * change).clamp_(0, 255)
    if spec.cutout:
        pictures = _cutout(pictures, spec.cutout, fill)
    return pictures


def _crop_and_flip(pictures: Tensor, spec: Augment) -> Tensor:
    """Shift by up to ``crop`` pixels (what comes in is reflected) and mirror: one gather of pixel indices."""
    count, height, width, _ = pictures.shape
    rows = _indices(count, height, spec.crop, mirror=spec.vertical_flip)
    columns = _indices(count, width, spec.crop, mirror=spec.flip)
    return pictures[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _indices(count: int, size: int, crop: int, *, mirror: bool) -> Tensor:
    index = torch.arange(size).expand(count, size)
    if crop:
        # A crop wider than the picture would need a second reflection.
        reach = min(crop, size - 1)
        index = index + torch.randint(-reach, reach + 1, (count, 1))
        index = (size - 1) - ((size - 1) - index.abs()).abs()
    if mirror:
        index = torch.where(torch.rand(count, 1) < 0.5, index.flip(1), index)
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
