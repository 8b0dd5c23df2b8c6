"""Several labels at once, as an output: a cell holds them joined."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from yunmo.core import fields as specs
from yunmo.core.errors import DataError
from yunmo.core.events import Decision
from yunmo.core.fields import FieldStatistics
from yunmo.data.fields.base import EXAMPLES, MISSING, Cleaned, Field, Role, TensorSpec, Values, Where, Wire, shown
from yunmo.data.fields.category import category_text, in_order

MOST_LABELS = 2000
"""Different labels beyond which something else than labels is taken to be in the column."""
USUAL_THRESHOLD = 0.5
"""Probability from which a label holds where nothing else was chosen."""
_NAMED = 20


def split_labels(value: Any, separator: str) -> list[str]:
    """Return the labels of a cell, as often as they are there: without blanks around, empty ones left out.

    None and NaN hold no label, nor does an empty text. A label in double quotes may hold the separator.

    Raises:
        ValueError: quotes that never end, or end within a label.
    """
    text = value.strip() if type(value) is str else category_text(value)
    if not text:
        return []
    if '"' not in text:
        return [label for part in text.split(separator) if (label := part.strip())]
    try:
        (parts,) = csv.reader([text], delimiter=separator, skipinitialspace=separator != " ", strict=True)
    except (csv.Error, ValueError) as error:
        raise ValueError(f"its quotes do not fit ({error})") from None
    return [label for part in parts if (label := part.strip())]


def join_labels(labels: Iterable[str], separator: str) -> str:
    """Return labels as a cell from which `split_labels` reads the same."""
    names = list(labels)
    if not any(separator in name or '"' in name for name in names):
        return separator.join(names)
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="").writerow(names)
    return text.getvalue()


def held_labels(probabilities: NDArray[Any], spec: specs.LabelsOutput) -> list[list[str]]:
    """Return the labels that hold of each row, in the order of the categories.

    Args:
        probabilities: ``[N, categories]``.
        spec: of the output; it names its categories.
    """
    names = spec.categories or ()
    held = probabilities >= (spec.threshold or USUAL_THRESHOLD)
    return [[names[place] for place in np.flatnonzero(row).tolist()] for row in held]


class LabelsOutput(Field):
    """Any of a set of labels to predict."""

    role: ClassVar[Role] = "output"
    spec: specs.LabelsOutput

    def __init__(self, spec: specs.LabelsOutput, statistics: FieldStatistics | None = None) -> None:
        super().__init__(spec, statistics)
        names = statistics.categories if statistics else spec.categories or ()
        self._index = {name: index for index, name in enumerate(names)}

    def resolve(self, values: Values, where: Where) -> tuple[LabelsOutput, list[Decision]]:  # noqa: ARG002
        """Take the labels of the training rows.

        Raises:
            DataError: they are more than `MOST_LABELS`.
        """
        if self.spec.categories is not None:
            return self, []
        names = in_order(sorted({label for labels in self._cells(values) for label in labels}))
        if len(names) > MOST_LABELS:
            raise DataError(
                f"{len(names):,} different labels, more than {MOST_LABELS:,}",
                where=f"field {self.column}",
                remedy=f"Is {self.spec.separator!r} between the labels? Else leave out the rare ones, or join them",
            )
        return LabelsOutput(msgspec.structs.replace(self.spec, categories=names)), []

    def clean(self, values: Values, where: Where) -> Cleaned:
        """Drop rows whose labels are not known, which is other than none; find labels that a cell has twice.

        Raises:
            DataError: quotes that do not fit, or a label that is not among the categories of the recipe.
        """
        unknown = np.fromiter((_is_unknown(value) for value in values), np.bool_, len(values))
        twice = []
        for row, value in enumerate(values):
            try:
                labels = self._labels(value)
            except ValueError as error:
                raise DataError(
                    f"labels cannot be read from {shown(value)}: {error}",
                    where=f"{where(row)}, field {self.column}",
                    remedy=f"Put {self.spec.separator!r} between labels, and quotes around a whole label or none",
                ) from None
            if len(set(labels)) < len(labels):
                twice.append(row)
        if self._index:
            self.refuse_unknown(values, where, "is not among the categories of the recipe")
        issues = self.issue("target missing", "row dropped", np.flatnonzero(unknown), where)
        return Cleaned(~unknown, (*issues, *self.issue("a label twice", "counted once", twice, where)))

    def refuse_unknown(self, values: Values, where: Where, why: str) -> None:
        """Raise if any label is not a known one.

        Raises:
            DataError: names the labels and the first rows that have them.
        """
        wrong: dict[int, set[str]] = {}
        for row, labels in enumerate(self._cells(values)):
            others = {label for label in labels if label not in self._index}
            if others:
                wrong[row] = others
        if not wrong:
            return
        labels = sorted(set().union(*wrong.values()))
        named = ", ".join(map(repr, labels[:EXAMPLES])) + (", …" if len(labels) > EXAMPLES else "")
        first, *more = list(wrong)[:EXAMPLES]
        also = f"; also {', '.join(map(where, more))}{', …' if len(wrong) > EXAMPLES else ''}" if more else ""
        raise DataError(
            f"the label {named} {why} ({len(wrong)} rows{also})",
            where=f"{where(first)}, field {self.column}",
            remedy=f"Known labels: {', '.join(list(self._index)[:_NAMED])}. "
            "Correct these rows or add such rows to train",
        )

    def fit(self, values: Values) -> FieldStatistics:
        """Learn how many rows have each label.

        Raises:
            DataError: no training row has a label, or all have the same ones.
        """
        cells = [frozenset(labels) for labels in self._cells(values)]
        if len(set(cells)) < 2:
            same = ", ".join(map(repr, sorted(cells[0])[:EXAMPLES])) if cells and cells[0] else "none"
            raise DataError(
                f"all {len(cells)} training rows have the same labels: {same}",
                where=f"field {self.column}",
                remedy="Give rows with other labels, or without these",
            )
        counts = Counter(label for labels in cells for label in labels)
        categories = self.spec.categories if self.spec.categories is not None else in_order(list(counts))
        return FieldStatistics(
            name=self.name,
            type="labels",
            role="output",
            encode_version=self.ENCODE_VERSION,
            count=len(cells),
            categories=categories,
            category_counts=tuple(counts[name] for name in categories),
        )

    def encode(self, values: Values) -> dict[str, NDArray[Any]]:
        """Return ``{name: uint8 [rows, categories]}``: 1 for each label that a row has."""
        held = np.zeros((len(values), len(self._index)), np.uint8)
        for row, value in enumerate(values):
            try:
                labels = self._labels(value)
            except ValueError as error:
                raise self.refuse(f"{shown(value)}: {error}", row) from None
            for label in labels:
                if label not in self._index:
                    known = ", ".join(list(self._index)[:_NAMED])
                    raise self.refuse(f"{shown(label)} is not a known label", row, remedy=f"Known: {known}")
                held[row, self._index[label]] = 1
        return {self.name: held}

    def tensors(self) -> list[TensorSpec]:
        """One tensor: a uint8 for each label."""
        return [TensorSpec(self.name, "uint8", (len(self._index),))]

    def wire(self) -> tuple[Wire, ...]:
        """The labels joined, as a cell holds them."""
        return (Wire("BYTES", ()),)

    def json_schema(self) -> dict[str, Any]:
        """A list of labels."""
        items = {"type": "string", "enum": list(self._index)}
        return {"type": "array", "items": items, "uniqueItems": True, "description": "the labels that hold"}

    def raw(self, value: Any) -> list[str]:
        """Return the labels, each once."""
        return list(dict.fromkeys(self._labels(value)))

    def _labels(self, value: Any) -> list[str]:
        return [] if _is_unknown(value) else split_labels(value, self.spec.separator)

    def _cells(self, values: Values) -> list[list[str]]:
        return [self._labels(value) for value in values]


def label_strata(values: Values, spec: specs.LabelsOutput) -> NDArray[np.int64]:
    """Return the stratum of each row: its rarest label, or none; one row of every label is a stratum of its own.

    So every label has about its share in each part of the data, and `hold_out`, which leaves a row of each stratum,
    never holds out all rows of one.
    """
    cells = [set() if _is_unknown(value) else set(split_labels(value, spec.separator)) for value in values]
    counts = Counter(label for labels in cells for label in labels)
    place = {label: index for index, (label, _) in enumerate(reversed(counts.most_common()))}
    codes = np.array([min((place[label] for label in labels), default=len(place)) for labels in cells], np.int64)
    kept: set[str] = set()
    for row in np.argsort(codes, kind="stable").tolist():
        if not cells[row] <= kept:
            kept |= cells[row]
            codes[row] = len(place) + 1 + row
    return codes


def _is_unknown(value: Any) -> bool:
    """Say whether a cell says that its labels are not known, such as ``NA``; an empty one says that there are none."""
    return type(value) is str and bool(value.strip()) and value.strip() in MISSING
