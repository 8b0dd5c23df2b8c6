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


_POOL = 50
"""Batches whose rows are sorted among each other: enough that lengths within a batch are about equal."""


def by_length(order: Tensor, lengths: Tensor, batch: int) -> Tensor:
    """Return an order of rows in which the rows of each batch have about one length, so that little is padding.

    Rows are sorted within pools of batches only, and batches come in random order, so that steps stay as different as
    they were.

    Args:
        order: row numbers ``[N]``, shuffled.
        lengths: of all rows.
        batch: rows of a step; those of an incomplete last one stay at the end.
    """
    whole = len(order) // batch * batch
    pools = [pool[torch.argsort(lengths[pool], stable=True)] for pool in torch.split(order[:whole], _POOL * batch)]
    if not pools:
        return order
    batches = torch.cat(pools).view(-1, batch)
    return torch.cat([batches[torch.randperm(len(batches))].flatten(), order[whole:]])


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

    def column(self, name: str) -> Tensor:
        """Return a tensor of all rows."""
        return self._tensors[name] if self._tensors else torch.from_numpy(np.array(self._arrays[name]))

    def slice(self, start: int, stop: int) -> dict[str, Tensor]:
        """Return the rows from ``start`` up to ``stop``."""
        if self._tensors:
            return {name: tensor[start:stop] for name, tensor in self._tensors.items()}
        return {name: torch.from_numpy(np.array(array[start:stop])) for name, array in self._arrays.items()}
