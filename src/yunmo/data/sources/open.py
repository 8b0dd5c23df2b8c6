"""Opening a data file by what is in it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from yunmo.core.errors import DataError, NotFound
from yunmo.data.limits import DEFAULT_LIMITS, Limits
from yunmo.data.sources import parquet
from yunmo.data.sources.archive import Archive
from yunmo.data.sources.arrays import ArraysSource
from yunmo.data.sources.base import Source
from yunmo.data.sources.csv_table import CsvSource
from yunmo.data.sources.images import ImagesSource, is_picture_name
from yunmo.data.sources.json_lines import JsonLinesSource
from yunmo.data.sources.table import TableSource
from yunmo.data.sources.tar_archive import GZIP, HEAD, TarArchive, is_tar
from yunmo.data.sources.zip_archive import ZipArchive

JSON_LINES = frozenset({".jsonl", ".ndjson"})
TABLES = frozenset({".csv", ".tsv"}) | JSON_LINES
"""Endings of tables within archives."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BINARY = {
    b"%PDF": "a PDF",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"PARE": "an encrypted Parquet file",
    b"\xd0\xcf\x11\xe0": "an Excel file",
}
_READ = "Save it as CSV, JSON Lines or Parquet"


def open_source(path: Path, *, limits: Limits = DEFAULT_LIMITS, expected: Collection[str] = ()) -> Source:
    """Open a data file by its content.

    That is a CSV table, JSON Lines, Parquet, a .npz or .npy file, or an archive (zip, tar, tar.gz) of pictures or of a
    table with its pictures.

    Args:
        path: the file; folders are packed first (`yunmo.data.sources.pack`).
        limits: how much it may hold.
        expected: columns that the recipe names, which help to tell a header.

    Raises:
        NotFound: no such file.
        UnsafeArchive: an archive that could do harm.
        MissingExtra: Parquet, and pyarrow is not installed.
        DataError: data that cannot be read; names the row.
        StorageFull: no space to unpack a tar.gz.
    """
    if path.is_dir():
        raise DataError("a folder where a file is needed", where=str(path), remedy="Pack it first")
    if not path.is_file():
        raise NotFound("no such file", where=str(path))
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        raise DataError("the file is empty", where=path.name, remedy="Give a file with data in it")
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _open_archive(ZipArchive(path, limits), limits, expected)
    if head.startswith(GZIP) or is_tar(head):
        return _open_archive(TarArchive(path, limits), limits, expected)
    if head[:6] == b"\x93NUMPY":
        return ArraysSource(path, limits)
    if head.startswith(parquet.MAGIC):
        return parquet.ParquetSource(path, limits)
    _refuse(head, path)
    if head.removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"{"):
        return JsonLinesSource(path, limits)
    return CsvSource(path, limits, expected=expected)


def _refuse(head: bytes, path: Path) -> None:
    """Refuse what is neither text nor a known file.

    Raises:
        DataError: it is not.
    """
    for start, what in _BINARY.items():
        if head.startswith(start):
            raise DataError(f"{what} is not read", where=path.name, remedy=_READ)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError("not UTF-8 but UTF-16", where=path.name, remedy="Save the file as UTF-8")
    if b"\0" in head[:8]:
        raise DataError("neither text nor a known file of arrays or pictures", where=path.name, remedy=_READ)
    if head[:3] == b"\xff\xd8\xff" or head[:4] == b"\x89PNG":
        raise DataError("one picture", where=path.name, remedy="Give a folder with a folder of pictures for each class")
    if head.lstrip().startswith(b"[") and head.lstrip()[1:].lstrip().startswith(b"{"):
        raise DataError("one JSON array", where=path.name, remedy="Write each of its objects on a line of its own")


def _open_archive(archive: Archive, limits: Limits, expected: Collection[str]) -> Source:
    path = archive.path
    try:
        if not archive.members:
            raise DataError("an empty archive", where=path.name, remedy="Put a folder of pictures for each class in it")
        if isinstance(archive, ZipArchive) and all(name.endswith(".npy") for name in archive.members):
            archive.close()
            return ArraysSource(path, limits)
        tables = [name for name in archive.members if PurePosixPath(name).suffix.lower() in TABLES]
        pictures = any(map(is_picture_name, archive.members))
        if len(tables) == 1:
            source = _table(tables[0])(path, limits, archive=archive, member=tables[0], expected=expected)
            if not pictures or any(map(source.is_picture, source.names)):
                return source
        elif tables and not pictures:
            shown = ", ".join(tables[:5])
            raise DataError(f"several tables: {shown}", where=path.name, remedy="Give one table a file")
        return ImagesSource(path, archive)
    except BaseException:
        archive.close()
        raise


def _table(name: str) -> type[TableSource]:
    return JsonLinesSource if PurePosixPath(name).suffix.lower() in JSON_LINES else CsvSource
