"""CSV tables, alone or in a zip with the pictures that a column names."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from yunmo.core.errors import DataError, UnsafeArchive
from yunmo.data.fields.base import MISSING, Values
from yunmo.data.fields.number import parse_number
from yunmo.data.limits import Limits
from yunmo.data.sources.archive import Archive, MemberPicture
from yunmo.data.sources.base import Source
from yunmo.data.sources.images import is_picture_name

_DELIMITERS = ",;\t|"
_LOOKED_AT = 100
_LONGEST_LINE = 16 * 2**20
_KEPT_TEXTS = 4096


class TableSource(Source):
    """A CSV file: comma, semicolon, tab or bar between cells, double quotes, UTF-8, with or without a header.

    Args:
        path: the file (the zip, if the table is in one).
        limits: how much it may hold.
        archive: the zip that holds it.
        member: its name there.
        expected: columns that the recipe names; a first row with one of them is a header.

    Raises:
        DataError: no UTF-8, broken quotes, ragged rows, two columns of one name, no rows.
    """

    kind = "csv"

    def __init__(
        self,
        path: Path,
        limits: Limits,
        *,
        archive: Archive | None = None,
        member: str | None = None,
        expected: Collection[str] = (),
    ) -> None:
        super().__init__(path)
        self._archive = archive
        self._member = member
        self._name = f"{path.name}, {member}" if member else path.name
        self._folder = PurePosixPath(member or "").parent
        self._limits = limits
        self._lines: list[int] = []
        self._columns: list[list[str | None]] = []
        with _text(path, archive, member) as text:
            self._read(text, expected)
        self._pictures = frozenset(self._picture_columns()) if archive else frozenset()

    def __len__(self) -> int:
        return len(self._lines)

    def column(self, name: str) -> Values:
        """Return the cells of a column: texts, or None for missing ones; `Picture` where cells name pictures."""
        cells = self._columns[self.names.index(name)]
        archive = self._archive
        if name not in self._pictures or archive is None:
            return cells
        return [self._picture(archive, cell, row) if cell is not None else None for row, cell in enumerate(cells)]

    def where(self, row: int) -> str:
        """Name the file and the line, as an editor counts them."""
        return f"{self._name}, row {self._lines[row]}"

    def is_picture(self, name: str) -> bool:
        """Say whether the cells name pictures in the archive."""
        return name in self._pictures

    def close(self) -> None:
        """Close the archive, if the table is in one."""
        if self._archive:
            self._archive.close()

    def _read(self, text: IO[str], expected: Collection[str]) -> None:
        rows = self._rows(text)
        head = [row for _, row in zip(range(_LOOKED_AT), rows, strict=False)]
        if not head:
            raise DataError("the file is empty", where=self._name, remedy="Give a table with a header and rows")
        first = head[0][1]
        if _is_header(first, [row for _, row in head[1:]], expected):
            self.names = self._header(first)
            head = head[1:]
        else:
            self.names = [f"c{index}" for index in range(len(first))]
            self.notes = (f"{self._name} has no header row: its columns are called c0 to c{len(first) - 1}",)
        self._columns = [[] for _ in self.names]
        seen: list[dict[str, str | None]] = [{} for _ in self.names]
        for line, row in _chain(head, rows):
            if len(row) != len(self.names):
                raise DataError(
                    f"{len(row)} cells where the header has {len(self.names)}",
                    where=f"{self._name}, row {line}",
                    remedy="Correct the row; a cell with the separator in it needs double quotes around it",
                )
            self._lines.append(line)
            for cells, texts, cell in zip(self._columns, seen, row, strict=True):
                cells.append(texts[cell] if cell in texts else _kept(cell, texts))
        if not self._lines:
            raise DataError("a header without rows", where=self._name, remedy="Give a table with rows")

    def _rows(self, text: IO[str]) -> Iterator[tuple[int, list[str]]]:
        """Yield rows with the line on which each begins; blank lines are passed over."""
        csv.field_size_limit(self._limits.cell)
        try:
            sample = text.read(64 * 1024)
        except UnicodeDecodeError:
            raise self._not_utf8() from None
        text.seek(0)
        reader = csv.reader(self._bounded(text), delimiter=_delimiter(sample), strict=True)
        line = 1
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise self._broken(error, line) from None
            except UnicodeDecodeError:
                raise self._not_utf8() from None
            if (row and any(cell.strip() for cell in row)) or len(row) > 1:
                yield line, row
            line = reader.line_num + 1

    def _bounded(self, text: IO[str]) -> Iterator[str]:
        """Yield lines, but none that would fill the memory: gigabytes without a line end are no table."""
        number = 0
        while line := text.readline(_LONGEST_LINE):
            number += 1
            if len(line) == _LONGEST_LINE:
                raise DataError(
                    f"a line of more than {_LONGEST_LINE:,} characters",
                    where=f"{self._name}, row {number}",
                    remedy="Give a CSV file, each row on its line",
                )
            yield line

    def _broken(self, error: csv.Error, line: int) -> DataError:
        message = str(error)
        remedy = "Correct the row; a double quote within quotes is written twice"
        if "unexpected end" in message or "field larger" in message:
            message = "a quote is opened and never closed"
        elif "NUL" in message:
            message, remedy = "a NUL character: this is no text file", "Give a CSV file in UTF-8"
        return DataError(message, where=f"{self._name}, row {line}", remedy=remedy)

    def _not_utf8(self) -> DataError:
        """Find the line again: a text stream decodes ahead, so that it does not know it."""
        line = 0
        with _bytes(self.path, self._archive, self._member) as file:
            for line, content in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
                try:
                    content.decode("utf-8")
                except UnicodeDecodeError as error:
                    message = f"byte {content[error.start]:#04x} is not UTF-8"
                    return DataError(message, where=f"{self._name}, row {line}", remedy="Save the file as UTF-8")
        return DataError("the end is cut off", where=f"{self._name}, row {line}", remedy="Save the file as UTF-8")

    def _header(self, cells: list[str]) -> list[str]:
        names = [cell.strip() or f"c{index}" for index, cell in enumerate(cells)]
        for name, count in Counter(names).items():
            if count > 1:
                raise DataError(
                    f"{count} columns are called {name!r}", where=f"{self._name}, row 1", remedy="Rename all but one"
                )
        return names

    def _picture_columns(self) -> Iterator[str]:
        for name, cells in zip(self.names, self._columns, strict=True):
            named = [cell for cell in cells[:_LOOKED_AT] if cell]
            if named and sum(map(is_picture_name, named)) * 2 > len(named):
                yield name

    def _picture(self, archive: Archive, cell: str, row: int) -> MemberPicture:
        path = PurePosixPath(cell.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise UnsafeArchive("a picture outside of the archive", where=self.where(row), remedy="Use relative paths")
        return MemberPicture(archive, str(self._folder / path), f"{self.where(row)}, {cell}")


def _kept(cell: str, texts: dict[str, str | None]) -> str | None:
    """Return a cell stripped, None for a missing one; frequent texts are kept once."""
    stripped = cell.strip()
    value = None if stripped in MISSING else stripped
    if len(texts) < _KEPT_TEXTS:
        texts[cell] = value
    return value


def _chain(head: list[tuple[int, list[str]]], rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    yield from head
    yield from rows


def _text(path: Path, archive: Archive | None, member: str | None) -> io.TextIOWrapper:
    return io.TextIOWrapper(_bytes(path, archive, member), encoding="utf-8-sig", newline="")


def _bytes(path: Path, archive: Archive | None, member: str | None) -> IO[bytes]:
    return path.open("rb") if archive is None or member is None else archive.open(member)


def _delimiter(sample: str) -> str:
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
