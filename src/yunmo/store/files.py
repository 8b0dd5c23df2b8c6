"""Writing files so that a reader never sees half of one and a full disk leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from yunmo.core.errors import StorageFull

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of the system that mean: no space left."""


@contextlib.contextmanager
def space_needed(where: str) -> Iterator[None]:
    """Turn "no space left" of the system into `StorageFull`.

    Args:
        where: what was being written, for the message.

    Raises:
        StorageFull: the body ran out of space.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise storage_full(where) from error
        raise


def storage_full(where: str) -> StorageFull:
    """Return the error for a full disk, file system or quota."""
    return StorageFull("no space left", where=where, remedy="Free some space, then try again")


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file's content: a reader sees the old or the new, also after a power cut.

    Raises:
        StorageFull: no space left; the old content is kept.
    """
    with space_needed(str(path)):
        temporary = _write_beside(path, data, mode)
        try:
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def create_once(path: Path, data: bytes, *, mode: int = 0o600) -> bytes:
    """Make a file unless it is there, and return what it holds then (another's, if another was first).

    Raises:
        StorageFull: no space left; nothing was kept.
    """
    with space_needed(str(path)):
        temporary = _write_beside(path, data, mode)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return path.read_bytes()
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    return data


def sync_folder(folder: Path) -> None:
    """Make renames and links within a folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_beside(path: Path, data: bytes, mode: int) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
