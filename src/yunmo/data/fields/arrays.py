"""What sequences and vectors share: reading arrays of numbers and adding up their statistics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yunmo.core.errors import DataError, InvalidInput
from yunmo.data.fields.base import EXAMPLES, NUMBERS, Field, Values, Where, Wire
from yunmo.data.fields.number import LARGEST, MomentFields

_CHUNK = 4096


def as_array(value: Any, ndim: int) -> NDArray[np.float32]:
    """Read one value as a float32 array of ``ndim`` dimensions; texts are JSON.

    A list of numbers where steps of channels are wanted is read as steps of one channel.

    Raises:
        InvalidInput: no such array, or NaN or infinity in it.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise InvalidInput("not a JSON list of numbers", remedy="Write [1.5, 2, 3]") from None
    try:
        wide = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInput("not an array of numbers, or rows of different lengths") from None
    if wide.ndim == 1 and ndim == 2:
        wide = wide[:, None]
    if wide.ndim != ndim or 0 in wide.shape:
        raise InvalidInput(f"an array of shape {list(wide.shape)} where {ndim} dimensions are needed")
    if not (np.abs(wide) <= LARGEST).all():
        raise InvalidInput("NaN, infinity or a number beyond float32", remedy="Replace it by a finite number")
    return wide.astype(np.float32)


def array_wire(shape: tuple[int | None, ...]) -> tuple[Wire, ...]:
    """Say as which tensors arrays of numbers may come: float32 is what they become."""
    return tuple(Wire(datatype, shape) for datatype in ("FP32", *(each for each in NUMBERS if each != "FP32")))


def refuse_not_finite(field: Field, values: NDArray[Any], where: Where) -> None:
    """Raise if a stored array holds NaN or infinity.

    Raises:
        DataError: names the first rows.
    """
    wrong: list[int] = []
    for start in range(0, len(values), _CHUNK):
        chunk = values[start : start + _CHUNK]
        if chunk.dtype.kind not in "iufb":
            raise DataError(f"values of type {chunk.dtype} where numbers are needed", where=f"field {field.column}")
        finite = (np.abs(chunk.reshape(len(chunk), -1).astype(np.float64)) <= LARGEST).all(axis=1)
        wrong.extend((start + np.flatnonzero(~finite)).tolist())
    if wrong:
        rows = ", ".join(where(row) for row in wrong[1:EXAMPLES])
        raise DataError(
            f"NaN or infinity in {len(wrong)} of {len(values)} rows{f'; also {rows}' if rows else ''}",
            where=f"{where(wrong[0])}, field {field.column}",
            remedy="Replace them by finite numbers, or leave these rows out",
        )


class Moments:
    """Mean, deviation, minimum and maximum of each last-axis column, added up chunk by chunk (Chan et al. 1979)."""

    def __init__(self, columns: int) -> None:
        self.count = 0
        self._mean = np.zeros(columns)
        self._squares = np.zeros(columns)
        self._low = np.full(columns, np.inf)
        self._high = np.full(columns, -np.inf)

    def add(self, rows: NDArray[Any]) -> None:
        """Add rows of shape (rows, columns)."""
        if not len(rows):
            return
        table = rows.astype(np.float64)
        mean, count = table.mean(axis=0), len(table)
        delta, total = mean - self._mean, self.count + count
        self._squares += ((table - mean) ** 2).sum(axis=0) + delta**2 * self.count * count / total
        self._mean += delta * count / total
        self.count = total
        self._low = np.minimum(self._low, table.min(axis=0))
        self._high = np.maximum(self._high, table.max(axis=0))

    def result(self) -> MomentFields:
        """Return the moments under their names in ``FieldStatistics``."""
        return {
            "mean": tuple(self._mean.tolist()),
            "deviation": tuple(np.sqrt(self._squares / max(self.count, 1)).tolist()),
            "minimum": tuple(self._low.tolist()),
            "maximum": tuple(self._high.tolist()),
        }


def chunks(values: Values, size: int = _CHUNK) -> Iterator[Values]:
    """Yield slices of at most ``size`` values."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
