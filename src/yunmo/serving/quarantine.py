"""Models that ended a worker: from then on every worker runs them in a process of their own.

The supervisor writes the file when a worker dies, and workers follow it. An entry is of one bundle, so a new version of
a model begins without one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from yunmo.core.files import write_atomic
from yunmo.core.schema import Spec
from yunmo.core.settings import Isolate

_T = TypeVar("_T")

KEPT = 1000
"""Bundles that are remembered, the newest."""


class Record(Spec, frozen=True):
    """The file."""

    isolated: dict[str, str] = {}
    """By digest of a bundle: what it did."""
    suspected: dict[str, float] = {}
    """Digest of a bundle that ran when a worker was killed to the time, in seconds since 1970 (UTC): once proves
    nothing."""


def quarantine_path(workers_folder: Path) -> Path:
    """Return where the file is, beside the folder of the workers' own."""
    return workers_folder.with_name("quarantine.json")


def read_record(path: Path) -> Record:
    """Return what the file says; nothing if it is not there or not readable."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError):
        return Record()


def write_record(path: Path, record: Record) -> None:
    """Replace the file.

    Raises:
        OSError: it cannot be written.
        StorageFull: there is no space for it.
    """
    record = Record(_newest(record.isolated), _newest(record.suspected))
    write_atomic(path, msgspec.json.format(msgspec.json.encode(record), indent=2), mode=0o600)


def _newest(entries: dict[str, _T]) -> dict[str, _T]:
    return dict(list(entries.items())[-KEPT:])


class Quarantine:
    """Says which models run in a process of their own; follows the file.

    Args:
        path: of the file.
        isolate: the setting: every model, none, or those in the file.
    """

    def __init__(self, path: Path, isolate: Isolate) -> None:
        self._path = path
        self._isolate = isolate
        self._seen: tuple[int, int] | None = None
        self._digests: frozenset[str] = frozenset()

    def holds(self, digest: str) -> bool:
        """Say whether a bundle's graph runs in a process of its own."""
        return self._isolate == "always" or digest in self._digests

    def look(self) -> bool:
        """Read the file if it is another one than last time; say whether that changed anything."""
        if self._isolate != "crashed":
            return False
        try:
            stat = self._path.stat()
            seen = (stat.st_ino, stat.st_mtime_ns)
        except OSError:
            seen = None
        if seen == self._seen:
            return False
        self._seen = seen
        before, self._digests = self._digests, frozenset(read_record(self._path).isolated)
        return before != self._digests
