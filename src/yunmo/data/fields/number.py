"""Numbers, as inputs and as outputs."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypedDict

import numpy as np
from numpy.typing import NDArray

from yunmo.core import fields as specs
from yunmo.core.errors import DataError
from yunmo.core.fields import JOINED_NUMBERS, FieldStatistics
from yunmo.data.fields.base import (
    EXAMPLES,
    MISSING,
    NUMBERS,
    Cleaned,
    Field,
    Role,
    TensorSpec,
    Values,
    Where,
    Wire,
    is_missing,
    shown,
)


class MomentFields(TypedDict):
    """The moments under their names in `FieldStatistics`."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]


LARGEST = float(np.finfo(np.float32).max)
_PLAIN = frozenset({float, int, type(None)})
_GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")


def parse_number(value: Any) -> float | None:
    """Read a raw value as a number.

    Texts may have a sign, an exponent and commas between thousands (``1,234.5``); a decimal comma is not read,
    since ``1,234`` would then mean two things.

    Returns:
        The number; NaN for a missing value; None for anything that is no number, an infinite one or one beyond float32.
    """
    kind = type(value)
    if kind is float or kind is int:
        return _finite(value)
    if kind is str:
        try:
            number = float(value)
        except ValueError:
            text = value.strip()
            if text in MISSING:
                return math.nan
            return _finite(float(text.replace(",", ""))) if _GROUPED.fullmatch(text) else None
        return None if "_" in value else _finite(number)
    if is_missing(value):
        return math.nan
    if isinstance(value, (np.integer, np.floating)):
        return _finite(value.item())
    return None


def read_numbers(values: Values) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Read a column as numbers.

    Returns:
        The numbers, NaN for missing cells and for what is no finite number; and the rows of the latter.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
        numbers = values.astype(np.float64)
        return numbers, np.flatnonzero(np.abs(numbers) > LARGEST)
    plain = values.tolist() if isinstance(values, np.ndarray) else values
    fast = _read_fast(plain)
    if fast is not None:
        return fast, np.empty(0, np.int64)
    parsed = [parse_number(value) for value in plain]
    wrong = np.array([index for index, number in enumerate(parsed) if number is None], np.int64)
    return np.array([math.nan if number is None else number for number in parsed], np.float64), wrong


def _read_fast(values: Sequence[Any]) -> NDArray[np.float64] | None:
    """Read a column of nothing but plain numbers and None, the usual case, several times as fast; None for others."""
    if not set(map(type, values)) <= {str, float, int, type(None)}:
        return None
    try:
        numbers = np.array([math.nan if value is None else float(value) for value in values], np.float64)
    except (ValueError, OverflowError):
        return None
    if (np.abs(numbers) > LARGEST).any() or "_" in "".join([value for value in values if type(value) is str]):
        return None
    return numbers


def _finite(value: float) -> float | None:
    return None if value > LARGEST or value < -LARGEST else float(value) if value == value else math.nan


def parse_column(field: Field, values: Values, where: Where) -> NDArray[np.float64]:
    """Read a column of a file as numbers, NaN where a cell is missing.

    Raises:
        DataError: cells that are no (finite) numbers, named with their rows.
    """
    numbers, wrong = read_numbers(values)
    if len(wrong):
        first = int(wrong[0])
        others = ", ".join(where(int(index)) for index in wrong[1:EXAMPLES])
        more = f"; also {others}{', …' if len(wrong) > EXAMPLES else ''}" if others else ""
        raise DataError(
            f"{shown(values[first])} is not a finite number ({len(wrong)} of {len(values)} cells are not{more})",
            where=f"{where(first)}, field {field.column}",
            remedy="Correct these cells, leave them empty to have them treated as missing, or make it a category",
        )
    return numbers


def encode_numbers(field: Field, values: Values, fill: float | None) -> NDArray[np.float32]:
    """Read numbers of files or requests as float32, with ``fill`` for missing ones (None: they are errors)."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
        if values.dtype == np.float16:
            values = values.astype(np.float32)  # neither the limit nor every fill fits into 16 bits
        filled = values if fill is None else np.where(np.isnan(values), fill, values)
        if (np.abs(filled) <= LARGEST).all():
            return filled.astype(np.float32)
    numbers = np.empty(len(values), np.float32)
    for index, value in enumerate(values):
        number = parse_number(value)
        if number is None:
            raise field.refuse(f"{shown(value)} is not a finite number", index, remedy="Send a number such as 12.5")
        if number != number:
            if fill is None:
                raise field.refuse("the number is missing", index, remedy="Send a number")
            number = fill
        numbers[index] = number
    return numbers


def moments(values: NDArray[Any]) -> MomentFields:
    """Return mean, (population) deviation, minimum and maximum of each column of (rows[, columns])."""
    table = values.reshape(len(values), -1).astype(np.float64)
    return {
        "mean": tuple(table.mean(axis=0).tolist()),
        "deviation": tuple(table.std(axis=0).tolist()),
        "minimum": tuple(table.min(axis=0).tolist()),
        "maximum": tuple(table.max(axis=0).tolist()),
    }


class NumberField(Field):
    """A number as an input: missing ones filled, far ones clipped; scaling is the network's."""

    spec: specs.NumberField

    def clean(self, values: Values, where: Where) -> Cleaned:
        """Find missing cells; drop their rows if the recipe says so."""
        missing = np.isnan(parse_column(self, values, where))
        if missing.all():
            raise DataError(
                "every cell is missing", where=f"{where(0)}, field {self.column}", remedy="Leave the field out"
            )
        rows = np.flatnonzero(missing)
        if self.spec.missing == "drop":
            return Cleaned(~missing, self.issue("missing", "row dropped", rows, where))
        action = f"filled with {self.spec.missing.replace('_', ' ')}"
        return Cleaned(np.ones(len(values), np.bool_), self.issue("missing", action, rows, where))

    def fit(self, values: Values) -> FieldStatistics:
        """Learn the fill for missing cells, the limits for far ones, and the moments of what `encode` will give."""
        numbers = parse_column(self, values, lambda row: f"row {row}")
        present = numbers[~np.isnan(numbers)]
        if not len(present):
            raise DataError("every training cell is missing", where=f"field {self.column}")
        low, high = self._limits(present)
        if self.clips and low is not None and high is not None:
            present = present.clip(low, high)
        fill = None if self.spec.missing == "drop" else self._fill(present)
        filled = np.concatenate([present, np.full(len(numbers) - len(present), fill)]) if fill is not None else present
        return FieldStatistics(
            name=self.name,
            type="number",
            role=self.role,
            encode_version=self.ENCODE_VERSION,
            count=len(numbers),
            missing=len(numbers) - len(present),
            fill=fill,
            low=low,
            high=high,
            **moments(filled),
        )

    def beyond(self, values: Values) -> NDArray[np.bool_]:
        """Say which rows lie beyond the limits that `fit` learned."""
        numbers = parse_column(self, values, lambda row: f"row {row}")
        statistics = self.known()
        if statistics.low is None or statistics.high is None:
            return np.zeros(len(numbers), np.bool_)
        return np.asarray((numbers < statistics.low) | (numbers > statistics.high))

    def encode(self, values: Values) -> dict[str, NDArray[Any]]:
        """Return ``{name: float32 [rows]}`` in the data's own units."""
        statistics = self.known()
        fill = statistics.fill if isinstance(statistics.fill, (int, float)) else None
        numbers = encode_numbers(self, values, fill)
        if self.clips and statistics.low is not None and statistics.high is not None:
            numbers = numbers.clip(np.float32(statistics.low), np.float32(statistics.high))
        return {self.name: numbers}

    def tensors(self) -> list[TensorSpec]:
        """One tensor: a float32."""
        return [TensorSpec(self.name, "float32", ())]

    def wire(self) -> tuple[Wire, ...]:
        """A number of any datatype; NaN is a missing one."""
        return tuple(Wire(datatype, ()) for datatype in NUMBERS)

    def json_schema(self) -> dict[str, Any]:
        """A number, or null where missing cells were filled in training."""
        if self.spec.missing == "drop":
            return {"type": "number", "description": "a number"}
        how = self.spec.missing.replace("_", " ")
        return {"type": ["number", "null"], "description": f"a number; null is read as the {how} of the training data"}

    def raw(self, value: Any) -> float | None:
        """Return the number, None for a missing one."""
        number = parse_number(value)
        return None if number is None or number != number else number

    @property
    def clips(self) -> bool:
        """Whether far values are moved to the limits."""
        return self.spec.outliers is not None and self.spec.outliers.action == "clip"

    def _limits(self, present: NDArray[np.float64]) -> tuple[float | None, float | None]:
        outliers = self.spec.outliers
        if outliers is None:
            return None, None
        if outliers.method == "iqr":
            low, high = np.quantile(present, [0.25, 0.75])
            reach = outliers.threshold * (high - low)
            return float(low - reach), float(high + reach)
        reach = outliers.threshold * present.std()
        return float(present.mean() - reach), float(present.mean() + reach)

    def _fill(self, present: NDArray[np.float64]) -> float:
        if self.spec.missing == "constant":
            return self.spec.constant
        if self.spec.missing == "mean":
            return float(present.mean())
        if self.spec.missing == "median":
            return float(np.median(present))
        counts: Counter[float] = Counter(present.tolist())
        return min(counts, key=lambda number: (-counts[number], number))


class NumberBlock:
    """Several number fields of one model, encoded at once: for a row of 30 it takes a tenth of the time.

    Args:
        fields: fitted; two or more.
    """

    def __init__(self, fields: Sequence[NumberField]) -> None:
        known = [(field.known(), field.clips) for field in fields]
        fills = [one.fill if isinstance(one.fill, (int, float)) else math.nan for one, _ in known]
        self._fill = np.array(fills, np.float64)
        self._low = np.array([_limit(one.low, clips, -np.inf) for one, clips in known], np.float32)
        self._high = np.array([_limit(one.high, clips, np.inf) for one, clips in known], np.float32)
        self._clips = bool(np.isfinite(self._low).any() or np.isfinite(self._high).any())

    def encode(self, rows: Sequence[Sequence[Any]]) -> NDArray[np.float32] | None:
        """Return what `NumberField.encode` of each field gives, side by side: float32 [rows, fields].

        Args:
            rows: of each a value for every field, in their order.

        Returns:
            None where a field has to look closer by itself.
        """
        if not set(map(type, itertools.chain.from_iterable(rows))) <= _PLAIN:
            return None
        try:
            numbers = np.array(rows, np.float64).reshape(len(rows), len(self._fill))  # None becomes NaN
        except (ValueError, OverflowError):
            return None
        if not np.abs(numbers).max(initial=0.0) <= LARGEST:  # NaN is not either
            numbers = np.where(np.isnan(numbers), self._fill, numbers)
            if not np.abs(numbers).max() <= LARGEST:  # too large, or missing where nothing stands for it
                return None
        narrow = numbers.astype(np.float32)
        return narrow.clip(self._low, self._high) if self._clips else narrow


def join_numbers(tensors: Mapping[str, NDArray[Any]], columns: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return encoded fields with some numbers side by side, as `JOINED_NUMBERS`.

    Args:
        tensors: what `Field.encode` of each field gave.
        columns: the names of the number fields to join, in order; none: all stay as they are.
    """
    if not columns:
        return dict(tensors)
    joined = {name: tensor for name, tensor in tensors.items() if name not in columns}
    return {JOINED_NUMBERS: np.stack([tensors[name] for name in columns], 1), **joined}


def _limit(limit: float | None, clips: bool, otherwise: float) -> float:
    return limit if clips and limit is not None else otherwise


class NumberOutput(Field):
    """A number to estimate, in its own units."""

    role: ClassVar[Role] = "output"
    spec: specs.NumberOutput

    def clean(self, values: Values, where: Where) -> Cleaned:
        """Drop rows without a value to learn."""
        missing = np.isnan(parse_column(self, values, where))
        return Cleaned(~missing, self.issue("target missing", "row dropped", np.flatnonzero(missing), where))

    def fit(self, values: Values) -> FieldStatistics:
        """Learn the moments of the target.

        Raises:
            DataError: the target is the same in every row.
        """
        numbers = encode_numbers(self, values, None)
        if not len(numbers) or numbers.min() == numbers.max():
            value = f"{numbers[0]:g} " if len(numbers) else ""
            raise DataError(
                f"the target is the same {value}in all {len(numbers)} training rows",
                where=f"field {self.column}",
                remedy="Choose another target, or give data in which it differs",
            )
        return FieldStatistics(
            name=self.name,
            type="number",
            role="output",
            encode_version=self.ENCODE_VERSION,
            count=len(numbers),
            **moments(numbers),
        )

    def encode(self, values: Values) -> dict[str, NDArray[Any]]:
        """Return ``{name: float32 [rows]}``."""
        return {self.name: encode_numbers(self, values, None)}

    def tensors(self) -> list[TensorSpec]:
        """One tensor: a float32."""
        return [TensorSpec(self.name, "float32", ())]

    def wire(self) -> tuple[Wire, ...]:
        """A float32."""
        return (Wire("FP32", ()),)

    def json_schema(self) -> dict[str, Any]:
        """A number."""
        return {"type": "number", "description": "the estimated value"}

    def raw(self, value: Any) -> float | None:
        """Return the number."""
        number = parse_number(value)
        return None if number is None or number != number else number
