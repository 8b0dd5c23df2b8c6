"""Tensors as they are: the inputs and outputs of imported ONNX files. Nothing is learned of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from yunmo.core import fields as specs
from yunmo.core.errors import InvalidInput
from yunmo.core.fields import FieldStatistics
from yunmo.data.fields.base import Cleaned, Field, Role, TensorSpec, Values, Where, Wire, shown

WIRE: dict[str, str] = {
    "bool": "BOOL",
    **{f"int{bits}": f"INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"UINT{bits}" for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
    "string": "BYTES",
}
"""Open Inference Protocol's name of each datatype."""

_KINDS = {"b": "booleans", "i": "whole numbers", "u": "whole numbers", "f": "numbers", "O": "texts"}
_EXACT = 2**53
"""Whole floats up to this are the numbers that were written (IEEE 754 binary64)."""


class _Tensor(Field):
    """What inputs and outputs share."""

    spec: specs.TensorField | specs.TensorOutput

    def __init__(self, spec: specs.TensorField | specs.TensorOutput, statistics: FieldStatistics | None = None) -> None:
        super().__init__(spec, statistics)
        self._dtype = np.dtype(object if spec.datatype == "string" else spec.datatype)
        self._free = None in spec.shape
        self._largest = float(np.finfo(self._dtype.type(0)).max) if self._dtype.kind == "f" else 0.0

    def clean(self, values: Values, where: Where) -> Cleaned:  # noqa: ARG002  # nothing is known of its rows
        """Keep every row: whether its value fits shows when it is encoded."""
        return Cleaned(np.ones(len(values), np.bool_))

    def fit(self, values: Values) -> FieldStatistics:
        """Learn nothing but how many there are."""
        return FieldStatistics(
            name=self.name, type="tensor", role=self.role, encode_version=self.ENCODE_VERSION, count=len(values)
        )

    def encode(self, values: Values) -> dict[str, NDArray[Any]]:
        """Return ``{name: array [rows, *shape]}`` of the specification's datatype (string: object, of str).

        Args:
            values: of each row a nested list (or its JSON text), a scalar where the shape is (), or an array; or all
                rows as one array, which is used as it is if its type is the right one. In tensors of floats, NaN and
                infinity are allowed (as arrays hold them), and null is NaN; nowhere else. Whole numbers must be within
                the datatype; booleans are no numbers.
        """
        if isinstance(values, np.ndarray) and values.dtype == self._dtype and values.dtype != object:
            wrong = self._misfit(values.shape[1:])
            if wrong:
                raise self.refuse(wrong, 0, remedy=self._remedy())
            return {self.name: np.ascontiguousarray(values)}
        if self._dtype.kind == "f" and len(values):
            fast = self._read_fast(values)
            if fast is not None:
                return {self.name: fast}
        rows = [self._row(value, index) for index, value in enumerate(values)]
        for index, row in enumerate(rows):
            if self._free and row.shape != rows[0].shape:
                raise self.refuse(
                    f"shape {list(row.shape)} where the row before has {list(rows[0].shape)}",
                    index,
                    remedy="Rows of one request have one shape; send others in a request of their own",
                )
        empty = np.empty((0, *(size or 0 for size in self.spec.shape)), self._dtype)
        return {self.name: np.stack(rows) if rows else empty}

    def tensors(self) -> list[TensorSpec]:
        """One tensor, as the specification says."""
        return [TensorSpec(self.name, self.spec.datatype, self.spec.shape)]

    def wire(self) -> tuple[Wire, ...]:
        """The tensor itself."""
        return (Wire(WIRE[self.spec.datatype], self.spec.shape),)

    def json_schema(self) -> dict[str, Any]:
        """Nested lists of the shape, or a scalar where that is ()."""
        schema = self._element()
        for size in reversed(self.spec.shape):
            schema = {"type": "array", "items": schema, "minItems": 1}
            if size is not None:
                schema |= {"minItems": size, "maxItems": size}
        sizes = ", ".join("any" if size is None else str(size) for size in self.spec.shape)
        return {**schema, "description": f"a tensor of {self.spec.datatype}, shape [{sizes}]"}

    def raw(self, value: Any) -> Any:
        """Return nested lists; NaN and infinity, which JSON has not, as null."""
        return plain_tensor(self._row(value, 0))

    def _read_fast(self, values: Values) -> NDArray[Any] | None:
        """Read rows of plain finite numbers, the usual case, at once; None for others."""
        try:
            rows = [np.asarray(value) for value in values]
        except ValueError:
            return None
        shape = rows[0].shape
        if self._misfit(shape) or any(row.dtype.kind not in "if" or row.shape != shape for row in rows):
            return None
        array = rows[0][None] if len(rows) == 1 else np.stack(rows)
        if not np.abs(array).max(initial=0) <= self._largest:  # NaN is not, either
            return None
        return array.astype(self._dtype)

    def _row(self, value: Any, index: int) -> NDArray[Any]:
        if isinstance(value, str) and not (self.spec.datatype == "string" and self.spec.shape == ()):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise self.refuse("not a list", index, remedy=self._remedy()) from None
        try:
            array = np.asarray(value, dtype=object if self.spec.datatype == "string" else None)
        except ValueError:
            raise self.refuse("lists of different lengths", index, remedy=self._remedy()) from None
        if array is not value and (array.dtype.kind in "US" or self._may_have_rounded(array)):
            array = np.asarray(value, dtype=object)
        wrong = self._misfit(array.shape)
        if wrong:
            raise self.refuse(wrong, index, remedy=self._remedy())
        try:
            return _texts(array) if self.spec.datatype == "string" else _numbers(array, self._dtype)
        except InvalidInput as error:
            raise self.refuse(error.message, index, remedy=error.remedy or self._remedy()) from None

    def _may_have_rounded(self, array: NDArray[Any]) -> bool:
        """Say whether numpy may have made floats of whole numbers, which it does beyond int64."""
        return array.dtype.kind == "f" and self._dtype.kind in "iu" and not (np.abs(array) <= _EXACT).all()

    def _misfit(self, shape: Sequence[int]) -> str | None:
        """Say what is wrong with the shape of one row; None if nothing is."""
        wanted = self.spec.shape
        fits = len(shape) == len(wanted) and all(
            found == size if size is not None else found > 0 for found, size in zip(shape, wanted, strict=True)
        )
        return None if fits else f"a tensor of shape {list(shape)}"

    def _remedy(self) -> str:
        sizes = ", ".join("any" if size is None else str(size) for size in self.spec.shape)
        if not self.spec.shape:
            return f"Send one {self.spec.datatype}"
        return f"Send {_KINDS[self._dtype.kind]} ({self.spec.datatype}) of shape [{sizes}]"

    def _element(self) -> dict[str, Any]:
        kind = self._dtype.kind
        if kind == "b":
            return {"type": "boolean"}
        if kind == "O":
            return {"type": "string"}
        if kind == "f":
            return {"type": ["number", "null"], "description": "null is read as NaN"}
        least, most = _limits(self._dtype)
        return {"type": "integer", "minimum": least, "maximum": most}


class TensorField(_Tensor):
    """A tensor as an input."""

    spec: specs.TensorField


class TensorOutput(_Tensor):
    """A tensor as an answer."""

    role: ClassVar[Role] = "output"
    spec: specs.TensorOutput


def plain_tensor(array: NDArray[Any]) -> Any:
    """Return an array as nested lists that JSON can hold: what is not finite becomes None."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        plain = array.astype(object)
        plain[~np.isfinite(array)] = None
        return plain.tolist()
    return array.tolist()


def _texts(array: NDArray[Any]) -> NDArray[Any]:
    texts = np.empty(array.shape, object)
    for place, value in np.ndenumerate(array):
        try:
            text = value.decode() if isinstance(value, bytes) else value
        except UnicodeDecodeError:
            raise InvalidInput("a text that is not UTF-8") from None
        if not isinstance(text, str):
            raise InvalidInput(f"{shown(text)} where a text is needed")
        texts[place] = text
    return texts


def _numbers(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    kind = array.dtype.kind
    if kind == "O":
        array = _unpacked(array, dtype)
        kind = array.dtype.kind
    if array.dtype == dtype:
        return array
    if dtype.kind == "b" or kind not in "iuf":
        raise InvalidInput(f"{_KINDS.get(kind, 'something else')} where {_KINDS[dtype.kind]} are needed")
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            narrow = array.astype(dtype)
        if not np.array_equal(np.isinf(narrow), np.isinf(array)):
            raise InvalidInput(f"a number beyond {dtype}")
        return narrow
    least, most = _limits(dtype)
    if kind == "f" and not (np.abs(array) <= _EXACT).all():
        raise InvalidInput(f"NaN, infinity or a number beyond {dtype}")
    if kind == "f" and not np.array_equal(array, np.trunc(array)):
        raise InvalidInput("a fraction where whole numbers are needed")
    if array.size and (int(array.min()) < least or int(array.max()) > most):
        raise InvalidInput(f"a number beyond {dtype}, which goes from {least} to {most}")
    return array.astype(dtype)


def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    bits = 8 * dtype.itemsize
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtype.kind == "i" else (0, 2**bits - 1)


def _unpacked(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Turn an array of Python objects into one of numbers: None is NaN, integers may be too large for numpy."""
    if dtype.kind in "iu" and all(type(value) is int for value in array.flat):
        least, most = _limits(dtype)
        if all(least <= value <= most for value in array.flat):
            return array.astype(dtype)
    for value in array.flat:
        if value is None:
            if dtype.kind != "f":
                raise InvalidInput(f"null where {_KINDS[dtype.kind]} are needed")
        elif type(value) not in (int, float):
            raise InvalidInput(f"{shown(value)} where {_KINDS[dtype.kind]} are needed")
        elif type(value) is int and abs(value) >= 2**64:
            raise InvalidInput(f"a number beyond {dtype}")
    return array.astype(np.float64)
