"""Leaving out rows that training cannot use, and saying which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from yunmo.core.errors import DataError
from yunmo.data.cache import take
from yunmo.data.duplicates import RowIndex
from yunmo.data.fields.base import EXAMPLES, Field, Issue, Where
from yunmo.data.fields.number import NumberField
from yunmo.data.splits import Rows

Content = tuple[Sequence[Sequence[Any]], Rows]
"""The columns of a file, and the rows of it that are meant."""


class Report:
    """What cleaning found.

    Args:
        read: rows of each file.
    """

    def __init__(self, read: dict[str, int]) -> None:
        self.read = read
        self._issues: list[dict[str, Any]] = []

    def add(self, split: str, issues: Sequence[Issue]) -> None:
        """Add what was found in a split."""
        self._issues += [{"split": split, **msgspec.to_builtins(issue)} for issue in issues]

    def data(self, kept: dict[str, int]) -> dict[str, Any]:
        """Return the report: rows read by file, rows kept by split, and every issue with its first rows."""
        return {"read": self.read, "kept": kept, "issues": self._issues}


def clean_rows(fields: Sequence[Field], columns: dict[str, Any], where: Where, rows: int) -> tuple[Rows, list[Issue]]:
    """Return the rows that every field can use, and what each field found.

    Raises:
        DataError: a value that no field can use, or no row is left.
    """
    keep = np.ones(rows, np.bool_)
    issues: list[Issue] = []
    for field in fields:
        cleaned = field.clean(columns[field.column], where)
        keep &= cleaned.keep
        issues += cleaned.issues
    if not keep.any():
        found = "; ".join(f"{issue.field}: {issue.reason} in {issue.count} rows" for issue in issues)
        raise DataError(f"no row can be used ({found})", where=where(0), remedy="Fill the missing cells")
    return np.flatnonzero(keep), issues


def drop_duplicates(columns: Sequence[Sequence[Any]], rows: Rows, where: Where) -> tuple[Rows, list[Issue]]:
    """Return the first of all rows that are equal in every field, and which were dropped."""
    again = RowIndex().add(columns, rows)
    return rows[~again], _issue("duplicate of an earlier row", "row dropped", rows[again], where)


def note_overlap(train: Content, other: Content, where: Where) -> list[Issue]:
    """Say which rows of a given split are in train too: they make its result look better than it is."""
    index = RowIndex()
    index.add(*train)
    columns, rows = other
    return _issue("also in train", "kept", rows[index.has(columns, rows)], where)


def drop_outliers(
    fields: Sequence[Field], column: Callable[[str], Any], rows: dict[str, Rows], where: Where
) -> list[Issue]:
    """Take rows that are far from the others out of ``rows["train"]``, for number fields whose recipe says so."""
    train = rows["train"]
    beyond = np.zeros(len(train), np.bool_)
    issues: list[Issue] = []
    for field in fields:
        if not isinstance(field, NumberField) or field.spec.outliers is None:
            continue
        values = take(column(field.column), train)
        found = NumberField(field.spec, field.fit(values)).beyond(values)
        drop = field.spec.outliers.action == "drop"
        action = "row dropped from training" if drop else "moved to the limit"
        issues += field.issue("outlier", action, train[found], where)
        beyond |= found & drop
    rows["train"] = train[~beyond]
    return issues


def _issue(reason: str, action: str, rows: Rows, where: Where) -> list[Issue]:
    if not len(rows):
        return []
    return [Issue("", reason, action, len(rows), tuple(where(int(row)) for row in rows[:EXAMPLES]))]
