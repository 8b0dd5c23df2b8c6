"""Dates and times, as six numbers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from yunmo.core import fields as specs
from yunmo.core.errors import DataError
from yunmo.core.events import Decision
from yunmo.core.fields import FieldStatistics
from yunmo.data.fields.base import EXAMPLES, Cleaned, Field, TensorSpec, Values, Where, Wire, is_missing, shown
from yunmo.data.fields.number import moments

PARTS = ("year", "month", "day", "weekday", "hour", "days")
"""What a date becomes: weekday 0 is Monday, hours have a fraction, days count from 1970-01-01."""

_DAYS = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y.%m.%d")
_NAMED = ("%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y", "%Y年%m月%d日")
_TIMES = ("%H:%M:%S", "%H:%M", "%H:%M:%S.%f")
FORMATS = (
    *_DAYS,
    *_NAMED,
    *(f"{day} {time}" for day in _DAYS for time in _TIMES),
    *(f"%Y-%m-%dT{time}{zone}" for time in _TIMES for zone in ("", "%z")),
    *(f"%Y-%m-%d {time}%z" for time in _TIMES),
)
"""Formats tried, in order, where the recipe names none."""

_ISO = frozenset(form for form in FORMATS if form.startswith("%Y-%m-%d"))
_EPOCH = datetime(1970, 1, 1).toordinal()  # noqa: DTZ001 - dates are read as they are written, without a zone


def parse_date(text: str, form: str) -> datetime | None:
    """Read a date as it is written (a zone is read and left out); None if it does not fit the format."""
    try:
        if form in _ISO:
            # Several times as fast as strptime, which then only sees what this cannot read.
            return datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    try:
        return datetime.strptime(text.strip(), form)  # noqa: DTZ007 - as above
    except ValueError:
        return None


def detect_format(texts: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the first of `FORMATS` that reads every text (None: no one does), and all that do."""
    fitting = list(FORMATS)
    for text in texts:
        fitting = [form for form in fitting if _strict(text, form)]
        if not fitting:
            return None, []
    return (fitting[0] if texts else None), fitting


def _strict(text: str, form: str) -> bool:
    try:
        datetime.strptime(text.strip(), form)  # noqa: DTZ007 - dates are read as they are written
    except ValueError:
        return False
    return True


class DateField(Field):
    """A date, or date and time."""

    spec: specs.DateField

    def __init__(self, spec: specs.DateField, statistics: FieldStatistics | None = None) -> None:
        super().__init__(spec, statistics)
        self._format = (statistics.format if statistics else None) or spec.format or "%Y-%m-%d"

    def resolve(self, values: Values, where: Where) -> tuple[DateField, list[Decision]]:
        """Find the format that reads every cell."""
        if self.spec.format is not None:
            return self, []
        texts = [str(value) for value in values if not is_missing(value)]
        form, fitting = detect_format(list(dict.fromkeys(texts)))
        if form is None:
            raise DataError(
                "no known date format reads every cell",
                where=f"{where(0)}, field {self.column}",
                remedy="Name it in the recipe, such as format: '%d.%m.%Y'",
            )
        field = DateField(msgspec.structs.replace(self.spec, format=form))
        reason = "reads every cell" if len(fitting) == 1 else f"reads every cell, as does {fitting[1]}"
        return field, [Decision(key=f"inputs.{self.name}.format", value=form, reason=reason)]

    def clean(self, values: Values, where: Where) -> Cleaned:
        """Find missing cells; drop their rows if the recipe says so.

        Raises:
            DataError: cells that the format does not read.
        """
        missing = np.fromiter((is_missing(value) for value in values), np.bool_, len(values))
        if self.spec.format is not None:
            wrong = [row for row in np.flatnonzero(~missing).tolist() if self._date(values[row]) is None]
            if wrong:
                rows = ", ".join(where(row) for row in wrong[1:EXAMPLES])
                raise DataError(
                    f"{shown(values[wrong[0]])} is not a date of the format {self._format}"
                    f" ({len(wrong)} of {len(values)} cells{f'; also {rows}' if rows else ''})",
                    where=f"{where(wrong[0])}, field {self.column}",
                    remedy="Correct these cells, leave them empty, or name another format",
                )
        rows_missing = np.flatnonzero(missing)
        if self.spec.missing == "drop":
            return Cleaned(~missing, self.issue("missing", "row dropped", rows_missing, where))
        issues = self.issue("missing", "filled with median", rows_missing, where)
        return Cleaned(np.ones(len(values), np.bool_), issues)

    def fit(self, values: Values) -> FieldStatistics:
        """Learn the median date and the moments of each part."""
        dates = sorted(date.replace(tzinfo=None) for value in values if (date := self._date(value)) is not None)
        if not dates:
            raise DataError("every training cell is missing", where=f"field {self.column}")
        median = dates[(len(dates) - 1) // 2]
        fill = None if self.spec.missing == "drop" else median.isoformat()
        missing = len(values) - len(dates)
        parts = np.array([_parts(date) for date in [*dates, *([median] * missing if fill else [])]])
        return FieldStatistics(
            name=self.name,
            type="date",
            role="input",
            encode_version=self.ENCODE_VERSION,
            count=len(values),
            missing=missing,
            fill=fill,
            format=self._format,
            shape=(len(PARTS),),
            **moments(parts),
        )

    def encode(self, values: Values) -> dict[str, NDArray[Any]]:
        """Return ``{name: float32 [rows, 6]}``: year, month, day, weekday, hour, days since 1970."""
        fill = self.known().fill
        parts = np.empty((len(values), len(PARTS)), np.float32)
        for row, raw in enumerate(values):
            value = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
            if is_missing(value):
                if not isinstance(fill, str):
                    raise self.refuse("the date is missing", row, remedy=f"Send a date of the format {self._format}")
                parts[row] = _parts(datetime.fromisoformat(fill))
                continue
            date = self._date(value)
            if date is None:
                raise self.refuse(f"{shown(value)} is not a date of the format {self._format}", row)
            parts[row] = _parts(date)
        return {self.name: parts}

    def tensors(self) -> list[TensorSpec]:
        """One tensor: float32 (6,)."""
        return [TensorSpec(self.name, "float32", (len(PARTS),))]

    def wire(self) -> tuple[Wire, ...]:
        """The date as text."""
        return (Wire("BYTES", ()),)

    def json_schema(self) -> dict[str, Any]:
        """A string in the format of the training data, or null."""
        kinds = "string" if self.spec.missing == "drop" else ["string", "null"]
        return {"type": kinds, "description": f"a date written as {self._format} (strptime)"}

    def _date(self, value: Any) -> datetime | None:
        return None if is_missing(value) or not isinstance(value, str) else parse_date(value, self._format)


def _parts(date: datetime) -> tuple[float, ...]:
    hour = date.hour + date.minute / 60 + date.second / 3600
    return date.year, date.month, date.day, date.weekday(), hour, date.toordinal() - _EPOCH
