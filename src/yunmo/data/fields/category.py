"""Categories, as inputs and as outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from yunmo.core import fields as specs
from yunmo.core.errors import DataError
from yunmo.core.events import Decision
from yunmo.core.fields import FieldStatistics
from yunmo.data.fields.base import EXAMPLES, Cleaned, Field, Role, TensorSpec, Values, Where, Wire, is_missing, shown

MOST_CATEGORIES = 1000
"""Categories of an input that get an index of their own; rarer ones count as unknown."""


def category_text(value: Any) -> str | None:
    """Return a raw value as the category's name; None for a missing one.

    Whole numbers lose their fraction, so that 3, 3.0 and "3" are one category.
    """
    if type(value) is str:
        text = value.strip()
        return None if is_missing(text) else text
    if is_missing(value):
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        return category_text(value.decode("utf-8", "replace"))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def in_order(categories: Sequence[str]) -> tuple[str, ...]:
    """Sort categories: by value if all are whole numbers, else as texts."""
    if all(category.lstrip("-").isdecimal() for category in categories):
        return tuple(sorted(categories, key=lambda category: (int(category), category)))
    return tuple(sorted(categories))


def _texts(values: Values) -> list[str | None]:
    return [category_text(value) for value in values]


class CategoryField(Field):
    """One of a set of names as an input; index 0 is 'unknown', the first category is 1."""

    spec: specs.CategoryField

    def __init__(self, spec: specs.CategoryField, statistics: FieldStatistics | None = None) -> None:
        super().__init__(spec, statistics)
        names = statistics.categories if statistics else spec.categories or ()
        self._index: dict[str | None, int] = {name: index for index, name in enumerate(names, start=1)}
        fill = statistics.fill if statistics else None
        self._index[None] = self._index.get(str(fill), 0) if fill is not None else 0

    def resolve(self, values: Values, where: Where) -> tuple[CategoryField, list[Decision]]:  # noqa: ARG002
        """Take the categories of the training rows, at most `MOST_CATEGORIES` (the most frequent)."""
        if self.spec.categories is not None:
            return self, []
        counts = Counter(text for text in _texts(values) if text is not None)
        kept = in_order([name for name, _ in counts.most_common(MOST_CATEGORIES)])
        field = CategoryField(msgspec.structs.replace(self.spec, categories=kept))
        if len(kept) == len(counts):
            return field, []
        reason = f"the {len(kept)} most frequent of {len(counts)}; rarer ones count as unknown"
        return field, [Decision(key=f"inputs.{self.name}.categories", value=str(len(kept)), reason=reason)]

    def clean(self, values: Values, where: Where) -> Cleaned:
        """Find missing cells; drop their rows if the recipe says so."""
        missing = np.fromiter((text is None for text in _texts(values)), np.bool_, len(values))
        rows = np.flatnonzero(missing)
        if self.spec.missing == "drop":
            return Cleaned(~missing, self.issue("missing", "row dropped", rows, where))
        action = "filled with the most frequent" if self.spec.missing == "most_frequent" else "category 'unknown'"
        return Cleaned(np.ones(len(values), np.bool_), self.issue("missing", action, rows, where))

    def fit(self, values: Values) -> FieldStatistics:
        """Learn how often each category occurs, and the most frequent one."""
        texts = _texts(values)
        counts = Counter(text for text in texts if text is not None)
        categories = self.spec.categories if self.spec.categories is not None else in_order(list(counts))
        numbers = tuple(counts[name] for name in categories)
        fill = None
        if self.spec.missing == "most_frequent" and categories:
            fill = categories[int(np.argmax(numbers))]
        return FieldStatistics(
            name=self.name,
            type="category",
            role="input",
            encode_version=self.ENCODE_VERSION,
            count=len(texts),
            missing=sum(text is None for text in texts),
            fill=fill,
            categories=categories,
            category_counts=numbers,
        )

    def encode(self, values: Values) -> dict[str, NDArray[Any]]:
        """Return ``{name: int64 [rows]}``: 0 for an unknown category, else its place in the categories plus 1."""
        index = self._index
        drop = self.spec.missing == "drop"
        codes = np.empty(len(values), np.int64)
        for row, value in enumerate(values):
            if isinstance(value, (list, dict, tuple)):
                raise self.refuse("a category is one text or number", row, remedy="Send a string")
            text = category_text(value)
            if text is None and drop:
                raise self.refuse("the category is missing", row, remedy="Send a string")
            codes[row] = index.get(text, 0)
        return {self.name: codes}

    def tensors(self) -> list[TensorSpec]:
        """One tensor: an int64."""
        return [TensorSpec(self.name, "int64", ())]

    def wire(self) -> tuple[Wire, ...]:
        """A name; where the names are whole numbers, also a number."""
        return Wire("BYTES", ()), Wire("INT64", ()), Wire("INT32", ())

    def json_schema(self) -> dict[str, Any]:
        """A string (other ones than the known are allowed), or null."""
        names = [name for name in self._index if name is not None]
        known = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        kinds = ["string", "number", "boolean"] + ([] if self.spec.missing == "drop" else ["null"])
        return {"type": kinds, "description": f"a category: {known}; any other counts as unknown"}

    def raw(self, value: Any) -> str | None:
        """Return the category's name, None for a missing one."""
        return category_text(value)


class CategoryOutput(Field):
    """One of a set of names to predict."""

    role: ClassVar[Role] = "output"
    spec: specs.CategoryOutput

    def __init__(self, spec: specs.CategoryOutput, statistics: FieldStatistics | None = None) -> None:
        super().__init__(spec, statistics)
        names = statistics.categories if statistics else spec.categories or ()
        self._index = {name: index for index, name in enumerate(names)}

    def resolve(self, values: Values, where: Where) -> tuple[CategoryOutput, list[Decision]]:  # noqa: ARG002
        """Take the categories of the training rows."""
        if self.spec.categories is not None:
            return self, []
        names = in_order(sorted({text for text in _texts(values) if text is not None}))
        return CategoryOutput(msgspec.structs.replace(self.spec, categories=names)), []

    def clean(self, values: Values, where: Where) -> Cleaned:
        """Drop rows without a label.

        Raises:
            DataError: a label that is not among the categories of the recipe.
        """
        texts = _texts(values)
        missing = np.fromiter((text is None for text in texts), np.bool_, len(values))
        if self._index:
            self.refuse_unknown(texts, where, "is not among the categories of the recipe")
        return Cleaned(~missing, self.issue("target missing", "row dropped", np.flatnonzero(missing), where))

    def refuse_unknown(self, values: Values, where: Where, why: str) -> None:
        """Raise if any label is not a known category.

        Raises:
            DataError: names the labels and the first rows that have them.
        """
        texts = _texts(values)
        wrong = [row for row, text in enumerate(texts) if text is not None and text not in self._index]
        if not wrong:
            return
        labels = sorted({str(texts[row]) for row in wrong})
        shown = ", ".join(map(repr, labels[:EXAMPLES])) + (", …" if len(labels) > EXAMPLES else "")
        rows = ", ".join(where(row) for row in wrong[1:EXAMPLES])
        also = f"; also {rows}{', …' if len(wrong) > EXAMPLES else ''}" if rows else ""
        raise DataError(
            f"the label {shown} {why} ({len(wrong)} rows{also})",
            where=f"{where(wrong[0])}, field {self.column}",
            remedy=f"Known labels: {', '.join(list(self._index)[:20])}. Correct these rows or add such rows to train",
        )

    def fit(self, values: Values) -> FieldStatistics:
        """Learn how often each category occurs.

        Raises:
            DataError: all training rows have one label.
        """
        texts = _texts(values)
        counts = Counter(text for text in texts if text is not None)
        if len(counts) < 2:
            only = f", {next(iter(counts))!r}" if counts else ""
            raise DataError(
                f"all {len(texts)} training rows have one label{only}",
                where=f"field {self.column}",
                remedy="A classifier needs rows of at least two classes",
            )
        categories = self.spec.categories if self.spec.categories is not None else in_order(list(counts))
        return FieldStatistics(
            name=self.name,
            type="category",
            role="output",
            encode_version=self.ENCODE_VERSION,
            count=len(texts),
            categories=categories,
            category_counts=tuple(counts[name] for name in categories),
        )

    def encode(self, values: Values) -> dict[str, NDArray[Any]]:
        """Return ``{name: int64 [rows]}``: the place of each label in the categories."""
        codes = np.empty(len(values), np.int64)
        for row, value in enumerate(values):
            text = category_text(value)
            if text is None or text not in self._index:
                known = ", ".join(list(self._index)[:20])
                raise self.refuse(f"{shown(value)} is not a known label", row, remedy=f"Known: {known}")
            codes[row] = self._index[text]
        return {self.name: codes}

    def tensors(self) -> list[TensorSpec]:
        """One tensor: an int64."""
        return [TensorSpec(self.name, "int64", ())]

    def wire(self) -> tuple[Wire, ...]:
        """The name of the class."""
        return (Wire("BYTES", ()),)

    def json_schema(self) -> dict[str, Any]:
        """One of the categories."""
        return {"type": "string", "enum": list(self._index), "description": "the predicted class"}

    def raw(self, value: Any) -> str | None:
        """Return the label."""
        return category_text(value)
