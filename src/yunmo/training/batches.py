"""Batches straight from the prepared cache: whole batches are indexed, no worker processes, bounded memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch import Tensor

_MEMORY_SHARE = 0.25
"""Share of the free memory that the cached rows may take; beyond it they stay on disk."""


class Rows:
    """The encoded rows of one split, taken by number.

    Args:
        arrays: by tensor name, first axis rows.
        in_memory: copy them into memory once; ``None``: if they take a quarter of what is free at most.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[np.generic]], *, in_memory: bool | None = None) -> None:
        self.count = len(next(iter(arrays.values())))
        size = sum(array.nbytes for array in arrays.values())
        if in_memory is None:
            in_memory = size <= _MEMORY_SHARE * psutil.virtual_memory().available
        self._tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()} if in_memory else {}
        self._arrays = {} if in_memory else dict(arrays)

    def take(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the rows with these numbers, in their order."""
        if self._tensors:
            return {name: tensor.index_select(0, rows) for name, tensor in self._tensors.items()}
        # Sorted, so that the disk is read in one direction and no page twice; then put in the order asked for.
        ordered, place = torch.sort(rows)
        back = torch.argsort(place)
        numbers = ordered.numpy()
        return {name: torch.from_numpy(array[numbers]).index_select(0, back) for name, array in self._arrays.items()}

    def slice(self, start: int, stop: int) -> dict[str, Tensor]:
        """Return the rows from ``start`` up to ``stop``."""
        if self._tensors:
            return {name: tensor[start:stop] for name, tensor in self._tensors.items()}
        return {name: torch.from_numpy(np.array(array[start:stop])) for name, array in self._arrays.items()}
