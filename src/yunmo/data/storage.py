"""Writing files so that a full disk is an error and never half a file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from yunmo.core.errors import StorageFull


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn 'no space left' and 'over quota' into `StorageFull`.

    Raises:
        StorageFull: instead of the operating system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                "no space left on the disk", where=str(path), remedy="Free some space and start again"
            ) from None
        raise


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: beside its place, synced, then moved there.

    Raises:
        StorageFull: no space left.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with storage_errors(path):
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
