"""CSV tables."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from typing import IO

from yunmo.core.errors import DataError
from yunmo.data.fields.base import MISSING
from yunmo.data.fields.number import parse_number
from yunmo.data.sources.table import LOOKED_AT, TableSource, Texts

_DELIMITERS = ",;\t|"


class CsvSource(TableSource):
    """A CSV file: comma, semicolon, tab or bar between cells, double quotes, UTF-8, with or without a header.

    A first row with one of the expected columns is a header.

    Raises:
        DataError: no UTF-8, broken quotes, ragged rows, two columns of one name, no rows.
    """

    kind = "csv"

    def where(self, row: int) -> str:
        """Name the file and the line, as an editor counts them."""
        return f"{self._name}, row {self._lines[row]}"

    def _read(self, expected: Collection[str]) -> None:
        with self.text() as text:
            self._read_rows(text, expected)

    def _read_rows(self, text: IO[str], expected: Collection[str]) -> None:
        rows = self._rows(text)
        head = [row for _, row in zip(range(LOOKED_AT), rows, strict=False)]
        if not head:
            raise DataError("the file is empty", where=self._name, remedy="Give a table with a header and rows")
        first = head[0][1]
        if _is_header(first, [row for _, row in head[1:]], expected):
            self.names = [cell.strip() or f"c{index}" for index, cell in enumerate(first)]
            head = head[1:]
        else:
            self.names = [f"c{index}" for index in range(len(first))]
            self.notes = (f"{self._name} has no header row: its columns are called c0 to c{len(first) - 1}",)
        self.check_names(self.names, f"{self._name}, row 1")
        columns: list[list[str | None]] = [[] for _ in self.names]
        texts = [Texts() for _ in self.names]
        self._lines: list[int] = []
        for line, row in _chain(head, rows):
            if len(row) != len(self.names):
                raise DataError(
                    f"{len(row)} cells where the header has {len(self.names)}",
                    where=f"{self._name}, row {line}",
                    remedy="Correct the row; a cell with the separator in it needs double quotes around it",
                )
            self._lines.append(line)
            for cells, known, cell in zip(columns, texts, row, strict=True):
                cells.append(known[cell])
        if not self._lines:
            raise DataError("a header without rows", where=self._name, remedy="Give a table with rows")
        self._columns = list(columns)

    def _rows(self, text: IO[str]) -> Iterator[tuple[int, list[str]]]:
        """Yield rows with the line on which each begins; blank lines are passed over."""
        csv.field_size_limit(self._limits.cell)
        try:
            sample = text.read(64 * 1024)
        except UnicodeDecodeError:
            raise self.not_utf8() from None
        text.seek(0)
        reader = csv.reader(self.bounded(text), delimiter=delimiter_of(sample), strict=True)
        line = 1
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise self._broken(error, line) from None
            except UnicodeDecodeError:
                raise self.not_utf8() from None
            if (row and any(cell.strip() for cell in row)) or len(row) > 1:
                yield line, row
            line = reader.line_num + 1

    def _broken(self, error: csv.Error, line: int) -> DataError:
        message = str(error)
        remedy = "Correct the row; a double quote within quotes is written twice"
        if "unexpected end" in message or "field larger" in message:
            message = "a quote is opened and never closed"
        elif "NUL" in message:
            message, remedy = "a NUL character: this is no text file", "Give a CSV file in UTF-8"
        return DataError(message, where=f"{self._name}, row {line}", remedy=remedy)


def _chain(head: list[tuple[int, list[str]]], rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    yield from head
    yield from rows


def delimiter_of(sample: str) -> str:
    """Return the delimiter that the first line has most of, outside of quotes."""
    line = next((line for line in sample.splitlines() if line.strip()), "")
    bare = "".join(part for index, part in enumerate(line.split('"')) if index % 2 == 0)
    counts = {delimiter: bare.count(delimiter) for delimiter in _DELIMITERS}
    return max(_DELIMITERS, key=lambda delimiter: counts[delimiter])


def _is_header(first: list[str], rest: list[list[str]], expected: Collection[str]) -> bool:
    """Say whether a first row is a header: not if every column of numbers begins with a number already."""
    names = [cell.strip() for cell in first]
    if any(name in expected for name in names) or not rest:
        return True
    numeric = [index for index in range(len(first)) if _is_numeric([row[index : index + 1] for row in rest])]
    return not numeric or not all(_is_number(names[index]) for index in numeric)


def _is_numeric(cells: list[list[str]]) -> bool:
    present = [cell[0] for cell in cells if cell and cell[0].strip() not in MISSING]
    return bool(present) and all(map(_is_number, present))


def _is_number(text: str) -> bool:
    return text.strip() not in MISSING and parse_number(text) is not None
