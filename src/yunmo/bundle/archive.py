"""A bundle as one file: a zip that is the same bytes for the same bundle, and taking such a file apart safely."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

from yunmo.bundle.files import CONTENT, MANIFEST, OPTIONAL_CONTENT, SIGNATURE
from yunmo.core.errors import BundleError, Conflict, UnsafeArchive
from yunmo.core.files import open_atomic, storage_errors

MAX_SIZE = 8 * 2**30
"""Bytes of all files together that are unpacked at most, unless told."""

_NAMES = frozenset((*CONTENT, *OPTIONAL_CONTENT, MANIFEST, SIGNATURE))
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LONGEST = 200
_TIME = (1980, 1, 1, 0, 0, 0)
_PIECE = 2**20
_READ_ONLY = 0o444
_FOLDER = 0o755
"""Not read-only like the files: their owner could not remove a workspace any more."""


def export(folder: Path, file: Path) -> None:
    """Write a bundle as a zip: files stored (weights hardly shrink) in order, all with the same time.

    Raises:
        BundleError: the folder holds something that is none of a bundle's files.
        StorageFull: the disk is full; nothing is left.
    """
    names = sorted(entry.name for entry in folder.iterdir())
    for name in names:
        if name not in _NAMES or (folder / name).is_symlink() or not (folder / name).is_file():
            raise BundleError("no file of a bundle", where=str(folder / name))
    with open_atomic(file) as target, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            _add(archive, folder / name)


def unpack(file: Path, folder: Path, *, max_size: int = MAX_SIZE) -> None:
    """Take an exported bundle apart into a new folder. What is in it is not trusted: `verify` it afterwards.

    Its files are made read-only, because weights are mapped by the processes that run them, which see a
    later change of the file. That keeps accidents away (a tool that writes into it, a copy over it). It does not keep
    away root, nor whoever runs as the owner and gives themselves the right again: who can do that can also change a
    process's memory. The file that they cut short ends the processes that have it mapped (SIGBUS); one that they put
    in its place is not seen by those, and refused at the next load.

    Raises:
        BundleError: no zip, or damaged.
        UnsafeArchive: an entry that is no plain file of a bundle, twice the same, encrypted, oddly compressed, or more
            than ``max_size`` bytes in all.
        Conflict: the folder is there already.
        StorageFull: the disk is full; nothing is left.
    """
    if folder.exists():
        raise Conflict("there is something already", where=str(folder))
    with storage_errors(folder):
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            _extract(file, partial, max_size)
            for path in partial.iterdir():
                path.chmod(_READ_ONLY)
            partial.chmod(_FOLDER)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def place(folder: Path, target: Path) -> None:
    """Move a bundle to where it is served from, unless it is there already, and make it read-only (see `unpack`).

    Args:
        folder: on the same file system.
        target: named by the bundle's digest, so that what is there is the same.

    Raises:
        OSError: it cannot be moved.
    """
    if target.exists():
        return
    for path in folder.iterdir():
        path.chmod(_READ_ONLY)
    folder.chmod(_FOLDER)
    try:
        folder.rename(target)
    except OSError:
        if not target.exists():  # else another process was faster
            raise


def _add(archive: zipfile.ZipFile, path: Path) -> None:
    entry = zipfile.ZipInfo(path.name, date_time=_TIME)
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    entry.create_system = 3  # Unix, also when written on Windows: the same bytes everywhere
    entry.file_size = path.stat().st_size
    with path.open("rb") as source, archive.open(entry, "w") as target:
        shutil.copyfileobj(source, target, _PIECE)


def _extract(file: Path, folder: Path, max_size: int) -> None:
    try:
        with contextlib.ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(file))
            entries = archive.infolist()
            _check_entries(entries, file, max_size)
            left = max_size
            for entry in entries:
                left = _extract_one(archive, entry, folder, left)
    except (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, EOFError, ValueError) as error:
        # The message of a damaged name has the name, which may be anything of the file.
        raise BundleError(
            f"not an exported bundle, or damaged: {str(error)[:_LONGEST]}", where=file.name, remedy="Export it again"
        ) from None


def _check_entries(entries: list[zipfile.ZipInfo], file: Path, max_size: int) -> None:
    seen: set[str] = set()
    for entry in entries:
        where = f"{file.name}, {entry.filename[:_LONGEST]}"
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if entry.filename not in _NAMES or kind not in (0, stat.S_IFREG):
            raise UnsafeArchive("no file of a bundle", where=where)
        if entry.filename in seen:
            raise UnsafeArchive("twice in the archive", where=where)
        if entry.flag_bits & 0x1:
            raise UnsafeArchive("encrypted", where=where)
        if entry.compress_type not in _COMPRESSIONS:
            raise UnsafeArchive("compressed otherwise than by deflate", where=where)
        if entry.header_offset < 0:
            raise zipfile.BadZipFile("an entry that begins before the archive")
        seen.add(entry.filename)
    if sum(entry.file_size for entry in entries) > max_size:
        raise UnsafeArchive(f"holds more than {max_size} bytes", where=file.name)


def _extract_one(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, left: int) -> int:
    """Write one file and return how many bytes are still allowed: sizes that an archive declares may lie."""
    with archive.open(entry) as source, (folder / entry.filename).open("xb") as target:
        while piece := source.read(_PIECE):
            left -= len(piece)
            if left < 0:
                raise UnsafeArchive("holds more than it declares", where=entry.filename)
            target.write(piece)
        target.flush()
        os.fsync(target.fileno())
    return left
