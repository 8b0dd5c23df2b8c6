"""Sequences: steps of numbers, padded to one length."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from yunmo.core import fields as specs
from yunmo.core.errors import DataError, InvalidInput
from yunmo.core.events import Decision
from yunmo.core.fields import FieldStatistics
from yunmo.data.fields.arrays import Moments, array_wire, as_array, chunks, refuse_not_finite
from yunmo.data.fields.base import Cleaned, Field, TensorSpec, Values, Where, Wire, is_missing


class SequenceField(Field):
    """Steps of numbers (steps, channels). Longer ones are cut at the end, shorter ones padded there with 0."""

    spec: specs.SequenceField

    def resolve(self, values: Values, where: Where) -> tuple[SequenceField, list[Decision]]:  # noqa: ARG002
        """Take the length of the longest training sequence."""
        if self.spec.length is not None:
            return self, []
        if isinstance(values, np.ndarray) and values.ndim > 1:
            longest = int(values.shape[1])
        else:
            longest = max((len(as_array(value, 2)) for value in values), default=1)
        field = SequenceField(msgspec.structs.replace(self.spec, length=longest), self.statistics)
        reason = "steps of the longest training sequence"
        return field, [Decision(key=f"inputs.{self.name}.length", value=str(longest), reason=reason)]

    def clean(self, values: Values, where: Where) -> Cleaned:
        """Drop rows without a sequence.

        Raises:
            DataError: a sequence that is none, has NaN or infinity, or another number of channels.
        """
        if isinstance(values, np.ndarray):
            refuse_not_finite(self, values, where)
            return Cleaned(np.ones(len(values), np.bool_))
        keep = np.ones(len(values), np.bool_)
        channels = None
        for row, value in enumerate(values):
            if is_missing(value):
                keep[row] = False
                continue
            try:
                width = as_array(value, 2).shape[1]
            except InvalidInput as error:
                raise DataError(error.message, where=f"{where(row)}, field {self.column}") from None
            if channels not in (None, width):
                message = f"steps of {width} numbers where others have {channels}"
                raise DataError(message, where=f"{where(row)}, field {self.column}")
            channels = width
        return Cleaned(keep, self.issue("missing", "row dropped", np.flatnonzero(~keep), where))

    def fit(self, values: Values) -> FieldStatistics:
        """Learn the moments of each channel over all steps that are kept."""
        if not len(values):
            raise DataError("no training rows", where=f"field {self.column}")
        first = as_array(values[0], 2)
        length = self.spec.length or len(first)
        sums = Moments(first.shape[1])
        for chunk in chunks(values):
            if isinstance(chunk, np.ndarray):
                sums.add(chunk.reshape(len(chunk), chunk.shape[1], -1)[:, :length].reshape(-1, first.shape[1]))
            else:
                sums.add(np.concatenate([as_array(value, 2)[:length] for value in chunk]))
        return FieldStatistics(
            name=self.name,
            type="sequence",
            role="input",
            encode_version=self.ENCODE_VERSION,
            count=len(values),
            shape=(length, first.shape[1]),
            **sums.result(),
        )

    def encode(self, values: Values) -> dict[str, NDArray[Any]]:
        """Return ``{name: float32 [rows, steps, channels], name_length: int64 [rows]}``."""
        length, channels = self.known().shape
        batch = np.zeros((len(values), length, channels), np.float32)
        lengths = np.empty(len(values), np.int64)
        for row, value in enumerate(values):
            if is_missing(value):
                raise self.refuse("the sequence is missing", row, remedy="Send a list of steps")
            try:
                steps = as_array(value, 2)[:length]
            except InvalidInput as error:
                raise self.refuse(error.message, row, remedy=error.remedy) from None
            if steps.shape[1] != channels:
                raise self.refuse(f"steps of {steps.shape[1]} numbers where {channels} are needed", row)
            batch[row, : len(steps)] = steps
            lengths[row] = len(steps)
        return {self.name: batch, f"{self.name}_length": lengths}

    def tensors(self) -> list[TensorSpec]:
        """Two tensors: the steps, and how many of them are real."""
        length, channels = self.known().shape
        return [
            TensorSpec(self.name, "float32", (length, channels)),
            TensorSpec(f"{self.name}_length", "int64", ()),
        ]

    def wire(self) -> tuple[Wire, ...]:
        """Steps of numbers, as many as there are; all sequences of one tensor have as many."""
        _, channels = self.known().shape
        return array_wire((None, channels))

    def json_schema(self) -> dict[str, Any]:
        """A list of steps, each a list of numbers."""
        length, channels = self.known().shape
        step = {"type": "array", "items": {"type": "number"}, "minItems": channels, "maxItems": channels}
        items = step if channels > 1 else {"anyOf": [step, {"type": "number"}]}
        return {
            "type": "array",
            "items": items,
            "minItems": 1,
            "description": f"steps of {channels} numbers; {length} are used, further ones cut off",
        }

    def raw(self, value: Any) -> list[list[float]]:
        """Return the steps as lists of numbers."""
        steps: list[list[float]] = as_array(value, 2).tolist()
        return steps
