"""Opening a data file by what is in it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from yunmo.core.errors import DataError, NotFound
from yunmo.data.limits import DEFAULT_LIMITS, Limits
from yunmo.data.sources.archive import Archive
from yunmo.data.sources.arrays import ArraysSource
from yunmo.data.sources.base import Source
from yunmo.data.sources.images import ImagesSource, is_picture_name
from yunmo.data.sources.table import TableSource

TABLES = frozenset({".csv", ".tsv"})
_BINARY = {
    b"%PDF": "a PDF",
    b"\x1f\x8b": "a gzip file",
    b"PAR1": "a Parquet file",
    b"\xd0\xcf\x11\xe0": "an Excel file",
}


def open_source(path: Path, *, limits: Limits = DEFAULT_LIMITS, expected: Collection[str] = ()) -> Source:
    """Open a data file: a CSV table, a .npz or .npy file, or a zip of pictures or of a table with its pictures.

    Args:
        path: the file; folders are packed first (`yunmo.data.sources.pack`).
        limits: how much it may hold.
        expected: columns that the recipe names, which help to tell a header.

    Raises:
        NotFound: no such file.
        UnsafeArchive: an archive that could do harm.
        DataError: data that cannot be read; names the row.
    """
    if path.is_dir():
        raise DataError("a folder where a file is needed", where=str(path), remedy="Pack it first")
    if not path.is_file():
        raise NotFound("no such file", where=str(path))
    with path.open("rb") as file:
        magic = file.read(8)
    if not magic:
        raise DataError("the file is empty", where=path.name, remedy="Give a file with data in it")
    if magic[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _open_zip(path, limits, expected)
    if magic[:6] == b"\x93NUMPY":
        return ArraysSource(path, limits)
    for start, what in _BINARY.items():
        if magic.startswith(start):
            raise DataError(f"{what} is not read", where=path.name, remedy="Save it as CSV")
    if b"\0" in magic and magic[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError("neither text nor a known file of arrays or pictures", where=path.name, remedy="Save it as CSV")
    if magic[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError("not UTF-8 but UTF-16", where=path.name, remedy="Save the file as UTF-8")
    if magic[:3] == b"\xff\xd8\xff" or magic[:4] == b"\x89PNG":
        raise DataError("one picture", where=path.name, remedy="Give a folder with a folder of pictures for each class")
    return TableSource(path, limits, expected=expected)


def _open_zip(path: Path, limits: Limits, expected: Collection[str]) -> Source:
    archive = Archive(path, limits)
    try:
        if not archive.members:
            raise DataError("an empty archive", where=path.name, remedy="Put a folder of pictures for each class in it")
        if all(name.endswith(".npy") for name in archive.members):
            archive.close()
            return ArraysSource(path, limits)
        tables = [name for name in archive.members if PurePosixPath(name).suffix.lower() in TABLES]
        pictures = any(map(is_picture_name, archive.members))
        if len(tables) == 1:
            source = TableSource(path, limits, archive=archive, member=tables[0], expected=expected)
            if not pictures or any(map(source.is_picture, source.names)):
                return source
        elif tables and not pictures:
            shown = ", ".join(tables[:5])
            raise DataError(f"several tables: {shown}", where=path.name, remedy="Give one table a file")
        return ImagesSource(path, archive)
    except BaseException:
        archive.close()
        raise
