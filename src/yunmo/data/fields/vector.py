"""Vectors: a fixed number of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from yunmo.core import fields as specs
from yunmo.core.errors import DataError, InvalidInput
from yunmo.core.fields import FieldStatistics
from yunmo.data.fields.arrays import Moments, array_wire, as_array, chunks, refuse_not_finite
from yunmo.data.fields.base import Cleaned, Field, TensorSpec, Values, Where, Wire, is_missing
from yunmo.data.fields.number import LARGEST


class VectorField(Field):
    """A fixed number of numbers."""

    spec: specs.VectorField

    def clean(self, values: Values, where: Where) -> Cleaned:
        """Drop rows without a vector.

        Raises:
            DataError: a vector that is none, has NaN or infinity, or another length.
        """
        if isinstance(values, np.ndarray):
            refuse_not_finite(self, values, where)
            return Cleaned(np.ones(len(values), np.bool_))
        keep = np.ones(len(values), np.bool_)
        length = None
        for row, value in enumerate(values):
            if is_missing(value):
                keep[row] = False
                continue
            try:
                size = len(as_array(value, 1))
            except InvalidInput as error:
                raise DataError(error.message, where=f"{where(row)}, field {self.column}") from None
            if length not in (None, size):
                message = f"{size} numbers where others have {length}"
                raise DataError(message, where=f"{where(row)}, field {self.column}")
            length = size
        return Cleaned(keep, self.issue("missing", "row dropped", np.flatnonzero(~keep), where))

    def fit(self, values: Values) -> FieldStatistics:
        """Learn the moments of each place."""
        if not len(values):
            raise DataError("no training rows", where=f"field {self.column}")
        size = len(as_array(values[0], 1))
        sums = Moments(size)
        for chunk in chunks(values):
            sums.add(chunk if isinstance(chunk, np.ndarray) else np.stack([as_array(value, 1) for value in chunk]))
        return FieldStatistics(
            name=self.name,
            type="vector",
            role="input",
            encode_version=self.ENCODE_VERSION,
            count=len(values),
            shape=(size,),
            **sums.result(),
        )

    def encode(self, values: Values) -> dict[str, NDArray[Any]]:
        """Return ``{name: float32 [rows, length]}``."""
        (size,) = self.known().shape
        array = isinstance(values, np.ndarray) and values.shape[1:] == (size,) and values.dtype.kind in "iuf"
        # In float64, for the limit does not fit into every other type.
        if array and (np.abs(np.asarray(values, np.float64)) <= LARGEST).all():
            return {self.name: np.ascontiguousarray(values, np.float32)}
        batch = np.empty((len(values), size), np.float32)
        for row, value in enumerate(values):
            if is_missing(value):
                raise self.refuse("the vector is missing", row, remedy=f"Send a list of {size} numbers")
            try:
                vector = as_array(value, 1)
            except InvalidInput as error:
                raise self.refuse(error.message, row, remedy=error.remedy) from None
            if len(vector) != size:
                raise self.refuse(f"{len(vector)} numbers where {size} are needed", row)
            batch[row] = vector
        return {self.name: batch}

    def tensors(self) -> list[TensorSpec]:
        """One tensor: float32 (length,)."""
        return [TensorSpec(self.name, "float32", self.known().shape)]

    def wire(self) -> tuple[Wire, ...]:
        """The numbers."""
        return array_wire(self.known().shape)

    def json_schema(self) -> dict[str, Any]:
        """A list of numbers."""
        (size,) = self.known().shape
        return {
            "type": "array",
            "items": {"type": "number"},
            "minItems": size,
            "maxItems": size,
            "description": f"{size} numbers",
        }

    def raw(self, value: Any) -> list[float]:
        """Return the numbers."""
        numbers: list[float] = as_array(value, 1).tolist()
        return numbers
