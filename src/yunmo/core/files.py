"""Writing files so that a reader never sees half of one and a full disk is an error that leaves nothing behind.

The one place in core that touches the disk. It is here because packages on every layer write files (data, bundle,
store, training, client, cli) and must agree on what "whole or not at all" means; there is no lower package to share.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from yunmo.core.errors import StorageFull

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_full(error: BaseException) -> bool:
    """Say whether an error of the system means that a disk, file system or quota is full."""
    return isinstance(error, OSError) and error.errno in _FULL


def storage_full(where: str | Path | None) -> StorageFull:
    """Return the error for a full disk, file system or quota."""
    return StorageFull(
        "no space left",
        where=str(where) if where is not None else None,
        remedy="Free some space, then try again; nothing half written was kept",
    )


@contextmanager
def storage_errors(where: str | Path) -> Iterator[None]:
    """Turn "no space left" of the system into `StorageFull`; other errors pass.

    Args:
        where: what is written, for the message.

    Raises:
        StorageFull: the body ran out of space.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise storage_full(where) from error
        raise


@contextmanager
def open_atomic(path: Path, *, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes its name, in place of an old one, when the body ends without an error.

    A reader sees the old or the new content, whole, also after a power cut.

    Args:
        path: the file.
        mode: its permissions, less the process's umask.

    Raises:
        StorageFull: no space left; the old content is kept.
    """
    with storage_errors(path):
        temporary, file = _open_beside(path, mode)
        try:
            with file:
                yield file
                _sync(file)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file as `open_atomic` does.

    Raises:
        StorageFull: no space left; the old content is kept.
    """
    with open_atomic(path, mode=mode) as file:
        file.write(data)


def create_once(path: Path, data: bytes, *, mode: int = 0o600) -> bytes:
    """Make a file unless it is there, and return what it holds then (another's, if another was first).

    Raises:
        StorageFull: no space left; nothing was kept.
    """
    with storage_errors(path):
        temporary, file = _open_beside(path, mode)
        try:
            with file:
                file.write(data)
                _sync(file)
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


def _open_beside(path: Path, mode: int) -> tuple[Path, IO[bytes]]:
    """Open a new file in the same folder, so that it can be renamed; hidden, so that no listing takes it for data."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    return temporary, os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb")


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def file_digest(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
