"""What all tables have in common: named columns, rows with numbers, and pictures that cells name."""

from __future__ import annotations

import io
import zipfile
import zlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from yunmo.core.errors import DataError, UnsafeArchive
from yunmo.data.fields.base import MISSING, Values
from yunmo.data.limits import Limits
from yunmo.data.sources.archive import Archive, MemberPicture
from yunmo.data.sources.base import Source
from yunmo.data.sources.images import is_picture_name

LOOKED_AT = 100
"""Rows that tell a header, or a column of pictures."""
LONGEST_LINE = 16 * 2**20
_KEPT_TEXTS = 4096
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)


class TableSource(Source):
    """Rows of named cells, alone or in an archive with the pictures that a column names.

    Args:
        path: the file (the archive, if the table is in one).
        limits: how much it may hold.
        archive: the archive that holds it.
        member: its name there.
        expected: columns that the recipe names.

    Raises:
        DataError: as the form of the table has it; it names the row.
    """

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
        self._columns: list[Values] = []
        try:
            self._read(expected)
        except _DAMAGED as error:
            raise DataError(
                f"damaged in the archive ({error})", where=self._name, remedy="Make or download the file again"
            ) from None
        self._pictures = frozenset(self._picture_columns()) if archive else frozenset()

    def __len__(self) -> int:
        return len(self._columns[0])

    def column(self, name: str) -> Values:
        """Return the cells of a column, None for missing ones; `Picture` where cells name pictures."""
        cells = self._columns[self.names.index(name)]
        archive = self._archive
        if name not in self._pictures or archive is None:
            return cells
        return [self._picture(archive, cell, row) if cell is not None else None for row, cell in enumerate(cells)]

    def is_picture(self, name: str) -> bool:
        """Say whether the cells name pictures in the archive."""
        return name in self._pictures

    def close(self) -> None:
        """Close the archive, if the table is in one."""
        if self._archive:
            self._archive.close()

    @abstractmethod
    def _read(self, expected: Collection[str]) -> None:
        """Read the file: set ``names`` and ``_columns``."""

    def check_names(self, names: Sequence[str], where: str) -> None:
        """Refuse names of columns that stand twice, and too many of them.

        Raises:
            DataError: there are.
        """
        if len(names) > self._limits.columns:
            raise DataError(
                f"{len(names):,} columns; a table may have {self._limits.columns:,}",
                where=where,
                remedy="Give what belongs together as one array: a .npz file with a field of many numbers a row",
            )
        for name, count in Counter(names).items():
            if count > 1:
                raise DataError(f"{count} columns are called {name!r}", where=where, remedy="Rename all but one")

    def text(self) -> io.TextIOWrapper:
        """Open the file as text in UTF-8, with or without a byte order mark."""
        return io.TextIOWrapper(self._bytes(), encoding="utf-8-sig", newline="")

    def bounded(self, text: IO[str]) -> Iterator[str]:
        """Yield lines, but none that would fill the memory: gigabytes without a line end are no table."""
        number = 0
        while line := text.readline(LONGEST_LINE):
            number += 1
            if len(line) == LONGEST_LINE:
                raise DataError(
                    f"a line of more than {LONGEST_LINE:,} characters",
                    where=f"{self._name}, row {number}",
                    remedy="Give each row its line",
                )
            yield line

    def not_utf8(self) -> DataError:
        """Find the line again: a text stream decodes ahead, so that it does not know it."""
        line = 0
        with self._bytes() as file:
            for line, content in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
                try:
                    content.decode("utf-8")
                except UnicodeDecodeError as error:
                    message = f"byte {content[error.start]:#04x} is not UTF-8"
                    return DataError(message, where=f"{self._name}, row {line}", remedy="Save the file as UTF-8")
        return DataError("the end is cut off", where=f"{self._name}, row {line}", remedy="Save the file as UTF-8")

    def _bytes(self) -> IO[bytes]:
        if self._archive is None or self._member is None:
            return self.path.open("rb")
        return self._archive.open(self._member)

    def _picture_columns(self) -> Iterator[str]:
        for name, cells in zip(self.names, self._columns, strict=True):
            named = [cell for cell in cells[:LOOKED_AT] if isinstance(cell, str)]
            if named and sum(map(is_picture_name, named)) * 2 > len(named):
                yield name

    def _picture(self, archive: Archive, cell: Any, row: int) -> MemberPicture:
        path = PurePosixPath(str(cell).replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise UnsafeArchive("a picture outside of the archive", where=self.where(row), remedy="Use relative paths")
        return MemberPicture(archive, str(self._folder / path), f"{self.where(row)}, {cell}")


class Texts(dict[str, str | None]):
    """The cell that each text stands for: stripped, None for a missing one; frequent texts are kept once."""

    def __missing__(self, text: str) -> str | None:
        stripped = text.strip()
        value = None if stripped in MISSING else stripped
        if len(self) < _KEPT_TEXTS:
            self[text] = value
        return value
