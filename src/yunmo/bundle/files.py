"""The names of a bundle's files, and writing them so that nothing half written is ever left."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from yunmo.core.errors import StorageFull

MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
GRAPH = "graph.onnx"
WEIGHTS = "weights.safetensors"
STATISTICS = "statistics.json"
RECIPE = "recipe.yaml"
GOLDEN = "golden.json"
REPORT = "report.json"
REPORT_PAGE = "report.html"
CARD = "README.md"

CONTENT = (GRAPH, WEIGHTS, STATISTICS, RECIPE, GOLDEN, REPORT, REPORT_PAGE, CARD)
"""Every file that the manifest lists; the manifest and the signature over all of them come on top."""


@contextlib.contextmanager
def full_disk(what: str) -> Iterator[None]:
    """Turn "no space left" into an error with a remedy.

    Raises:
        StorageFull: the disk or the quota is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"no space left to write {what}", where=error.filename, remedy="Free some space, then try again"
            ) from None
        raise


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a temporary file in the same folder is synced, then renamed.

    Raises:
        StorageFull: the disk is full; the file is as it was before.
    """
    with full_disk(path.name):
        number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(number, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)  # mkstemp's 0600 would hide the file from data workers of another user
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def file_digest(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bundle_digest(folder: Path) -> str:
    """Return the digest that names a bundle: ``sha256:`` and the SHA-256 of its manifest, which lists all the rest."""
    return f"sha256:{file_digest(folder / MANIFEST)}"
