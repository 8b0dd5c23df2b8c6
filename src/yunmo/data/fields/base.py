"""What every field type offers: clean, fit and the one encode of training and serving."""

from __future__ import annotations

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from yunmo.core.errors import InvalidInput
from yunmo.core.events import Decision
from yunmo.core.fields import FieldStatistics, ModelInput, ModelOutput

Values = Sequence[Any] | NDArray[Any]
"""Raw values of one column: cells, pictures, or an array."""

Where = Callable[[int], str]
"""Says which row of which file an index means: ``train.csv, row 7``."""

Role = Literal["input", "output"]

MISSING = frozenset({"", "?", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "-nan", "-NaN", "null", "NULL", "None"})
"""Texts that stand for a missing cell, in files and in requests alike."""

EXAMPLES = 5
"""Rows named for each kind of thing that cleaning found."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor that `Field.encode` makes: numpy dtype name, shape without the batch (None: variable)."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Wire:
    """How raw values of a field may travel as one tensor of the Open Inference Protocol.

    Name of the datatype, and shape without the rows, which are its first dimension (None: any size).
    """

    datatype: str
    shape: tuple[int | None, ...]


NUMBERS = (
    *("FP64", "FP32", "FP16", "BF16"),
    *("INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8"),
)
"""Datatypes of the protocol that hold numbers."""


class Issue(msgspec.Struct, frozen=True):
    """One kind of thing that cleaning found in a field, and what was done about it."""

    field: str
    reason: str
    action: str
    count: int
    rows: tuple[str, ...]
    """The first few, as a person finds them."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What cleaning a column says: which rows stay, and what was found."""

    keep: NDArray[np.bool_]
    issues: tuple[Issue, ...] = ()


def is_missing(value: object) -> bool:
    """Say whether a raw value stands for nothing: None, NaN, or one of the `MISSING` texts."""
    if value is None:
        return True
    if isinstance(value, str):
        return value.strip() in MISSING
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


class Field(ABC):
    """One field of the data, an input or an output.

    Args:
        spec: what the recipe says of it.
        statistics: what training learned of it; None before `fit`.
    """

    ENCODE_VERSION: ClassVar[int] = 1
    """Changes whenever `encode` gives other tensors for the same raw values; bundles record it."""

    MEDIA_TYPES: ClassVar[tuple[str, ...]] = ()
    """Media types that one value may have as the whole body of a request, if the model has no other field."""

    role: ClassVar[Role] = "input"
    spec: ModelInput | ModelOutput

    def __init__(self, spec: ModelInput | ModelOutput, statistics: FieldStatistics | None = None) -> None:
        self.spec = spec
        self.statistics = statistics

    @property
    def name(self) -> str:
        """Name of the field in the recipe, in requests and of its main tensor."""
        return self.spec.name

    @property
    def column(self) -> str:
        """Column of the data that the field reads."""
        return self.spec.column or self.spec.name

    def resolve(self, values: Values, where: Where) -> tuple[Field, list[Decision]]:  # noqa: ARG002
        """Decide from training values what the recipe left open.

        Returns:
            A field of the same type whose specification is explicit, and the decisions with their reasons.
        """
        return self, []

    @abstractmethod
    def clean(self, values: Values, where: Where) -> Cleaned:
        """Check raw values and say which rows can be used.

        Raises:
            DataError: values that nothing in the recipe says how to treat, named with their rows.
        """

    @abstractmethod
    def fit(self, values: Values) -> FieldStatistics:
        """Learn the statistics of cleaned training values."""

    @abstractmethod
    def encode(self, values: Values) -> dict[str, NDArray[Any]]:
        """Turn raw values, of files or of requests, into tensors with a row for each. The only way there is.

        Raises:
            InvalidInput: a value that the field cannot read; it names field and index.
        """

    @abstractmethod
    def tensors(self) -> list[TensorSpec]:
        """Describe what `encode` returns."""

    @abstractmethod
    def wire(self) -> tuple[Wire, ...]:
        """Say as which tensors raw values may come, or answers go: the preferred one first.

        `encode` reads them as they are: arrays of numbers, and lists of bytes or texts. A missing number is NaN, a
        missing text an empty one.
        """

    @abstractmethod
    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of one raw value in a request."""

    def reads(self, media_type: str) -> bool:
        """Say whether one value may come as a body of a media type, given in lower case without parameters."""
        return media_type in self.MEDIA_TYPES

    def raw(self, value: Any) -> Any:
        """Return a raw value as JSON-able data from which `encode` makes the same tensor."""
        return plain(value)

    def known(self) -> FieldStatistics:
        """Return the statistics of a fitted field."""
        if self.statistics is None:
            raise InvalidInput("the field was not fitted", where=f"field {self.name}")
        return self.statistics

    def refuse(self, message: str, index: int, *, remedy: str | None = None) -> InvalidInput:
        """Make the error for one value of a request."""
        return InvalidInput(message, where=f"row {index}, field {self.name}", remedy=remedy)

    def issue(self, reason: str, action: str, indices: NDArray[Any] | Sequence[int], where: Where) -> tuple[Issue, ...]:
        """Make the issue for some rows, none if there are no such rows."""
        if not len(indices):
            return ()
        rows = tuple(where(int(index)) for index in indices[:EXAMPLES])
        return (Issue(field=self.name, reason=reason, action=action, count=len(indices), rows=rows),)


def encode_rows(fields: Mapping[str, Field], rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    """Return what the `encode` of each field gives for rows of raw values by field."""
    tensors: dict[str, NDArray[Any]] = {}
    for name, field in fields.items():
        tensors.update(field.encode([row[name] for row in rows]))
    return tensors


def plain(value: Any) -> Any:
    """Return numpy scalars and arrays as Python ones; NaN as None."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return None if isinstance(value, float) and value != value else value


def shown(value: Any) -> str:
    """Return a value as a message quotes it: shortened, so that no answer carries a whole request back."""
    return _quoted.repr(plain(value))


_quoted = reprlib.Repr()
_quoted.maxstring = 80
