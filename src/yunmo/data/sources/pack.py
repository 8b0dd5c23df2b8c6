"""Making one file of a folder, so that it can be uploaded, named by its bytes, and read the same everywhere."""

from __future__ import annotations

import csv
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from yunmo.core.errors import DataError, NotFound
from yunmo.core.files import open_atomic

_TIME = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")


def pack(path: Path, out: Path) -> Path:
    """Make one file of what a user names as data.

    Args:
        path: a folder, a table in CSV or JSON Lines, or any other file.
        out: the zip to write, or a folder to write it into.

    Returns:
        ``out`` with a zip that depends on names and contents only (sorted, stored, no times), for a folder and for a
        table that names pictures beside it; else ``path`` as it is.

    Raises:
        NotFound: nothing is there.
        DataError: an empty folder, or a symbolic link in it or among the pictures of a table.
        StorageFull: no space for the zip; no part of it is left.
    """
    if out.is_dir():
        out = out / f"{path.stem or 'data'}.zip"
    if path.is_dir():
        files = _files_of(path)
        if not files:
            raise DataError("an empty folder", where=str(path), remedy="Put a folder of pictures for each class in it")
        return write_zip(files, out)
    if not path.is_file():
        raise NotFound("no such file or folder", where=str(path))
    if path.suffix.lower() not in _TABLES:
        return path
    pictures = _pictures_of(path)
    return write_zip({path.name: path, **pictures}, out) if pictures else path


def _files_of(folder: Path) -> dict[str, Path]:
    """Return the files below a folder by their relative names; hidden ones are left out."""
    files: dict[str, Path] = {}
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        for name in folders:
            refuse_link(Path(place) / name)
        for name in names:
            file = Path(place) / name
            if name.startswith("."):
                continue
            refuse_link(file)
            if file.is_file():
                files[file.relative_to(folder).as_posix()] = file
    return files


def refuse_link(path: Path) -> None:
    """Refuse what is no file or folder itself: a link may lead anywhere, and its target would be sent unseen.

    Raises:
        DataError: names the link.
    """
    if path.is_symlink():
        raise DataError(
            f"a symbolic link, to {os.readlink(path)}", where=str(path), remedy="Put the file or folder itself there"
        )


def picture_beside(table: Path, cell: str) -> Path | None:
    """Return the file that a cell of a table names; ``None`` if it is not there or not below the table's folder.

    Raises:
        DataError: it is a symbolic link, or in a folder that is one.
    """
    name = PurePosixPath(cell.strip().replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts:
        return None
    for index in range(len(name.parts)):
        refuse_link(table.parent.joinpath(*name.parts[: index + 1]))
    file = table.parent / name
    return file if file.is_file() else None


def _pictures_of(table: Path) -> dict[str, Path]:
    """Return the pictures that cells of a table name, by the names that they have there."""
    found: dict[str, Path] = {}
    try:
        for cell in _texts_of(table):
            if cell.lower().endswith(_SUFFIXES) and (file := picture_beside(table, cell)):
                found[file.relative_to(table.parent).as_posix()] = file
    except (csv.Error, ValueError, AttributeError, RecursionError):
        # What is wrong with the table is said, with its row, when it is read as one.
        return {}
    return found


def _texts_of(table: Path) -> Iterator[str]:
    suffix = table.suffix.lower()
    with table.open(encoding="utf-8-sig", newline="") as text:
        if suffix in (".csv", ".tsv"):
            for row in csv.reader(text, delimiter="\t" if suffix == ".tsv" else ","):
                yield from row
        else:
            for row in map(json.loads, filter(str.strip, text)):
                yield from (value for value in row.values() if isinstance(value, str))


def write_zip(files: dict[str, Path], out: Path) -> Path:
    """Write files into a zip that depends on names and contents only.

    Raises:
        StorageFull: no space for it; no part of it is left.
    """
    with open_atomic(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _TIME)
            info.external_attr = _MODE
            info.create_system = 3
            archive.writestr(info, files[name].read_bytes())
    return out
