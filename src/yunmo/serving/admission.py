"""Limits that hold over all data workers: how many requests and rows of an endpoint are in progress.

Each worker counts its own in a small file that every other worker maps. Nobody writes another's counts, so there is
no lock, and the counts of a worker that died go with its file. A request is first counted and then held against the
sum: two that come at the same moment may both be refused, but never is the limit passed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import mmap
import os
import time
from dataclasses import dataclass
from pathlib import Path

from yunmo.core.errors import TooManyRequests
from yunmo.core.snapshot import Deployment

SLOTS = 4096
"""Endpoints that one worker can count."""
_TICK = 50_000_000
"""Nanoseconds within which two changes of a folder may bear the same time."""
_CELLS = 4  # of a slot: two of the endpoint's hash, requests, rows
_HEAD = 1  # cell: how many slots are in use
_BYTES = 8 * (_HEAD + _CELLS * SLOTS)


class Board:
    """The counts of one worker, in a file.

    Args:
        path: of the file.
        own: make it anew; else map what another worker made.

    Raises:
        OSError: it cannot be made, or it is not there.
    """

    def __init__(self, path: Path, *, own: bool) -> None:
        if own:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A new file, so that those who map an old one do not see it change; and nobody sees half of it.
            temporary = path.with_suffix(".new")
            temporary.write_bytes(bytes(_BYTES))
            temporary.replace(path)
        with path.open("r+b" if own else "rb") as file:
            access = mmap.ACCESS_WRITE if own else mmap.ACCESS_READ
            self.cells = memoryview(mmap.mmap(file.fileno(), _BYTES, access=access)).cast("q")
        self._slots: dict[tuple[int, int], int] = {}
        """First cells, by hash of the endpoint; slots are only ever added."""

    def slot(self, key: str) -> int | None:
        """Return the first cell of an endpoint's counts, None if it has none here."""
        for index in range(len(self._slots), self.cells[0]):
            at = _HEAD + _CELLS * index
            self._slots[self.cells[at], self.cells[at + 1]] = at
        return self._slots.get(_hash(key))

    def make_slot(self, key: str) -> int:
        """Return the first cell of an endpoint's counts, which are made if there are none.

        Raises:
            TooManyRequests: there are `SLOTS` endpoints with limits.
        """
        found = self.slot(key)
        if found is not None:
            return found
        used = self.cells[0]
        if used == SLOTS:
            raise TooManyRequests("too many endpoints have limits of their own")
        at = _HEAD + _CELLS * used
        self.cells[at], self.cells[at + 1] = _hash(key)
        self.cells[0] = used + 1
        return at


@dataclass(slots=True)
class _Entry:
    """A request in progress that is counted."""

    cells: memoryview
    at: int
    rows: int

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        self.cells[self.at + 2] -= 1
        self.cells[self.at + 3] -= self.rows


_UNCOUNTED = contextlib.nullcontext()


class Admission:
    """Holds the limits of endpoints.

    Args:
        folder: where all workers have their counts.
        name: of this worker's file, without its suffix.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._path = folder / f"{name}.board"
        self._own = Board(self._path, own=True)
        self._others: dict[Path, tuple[int, Board]] = {}
        self._changed = 0

    def close(self) -> None:
        """Take this worker's counts away."""
        self._path.unlink(missing_ok=True)

    def enter(self, deployment: Deployment, rows: int) -> contextlib.AbstractContextManager[None]:
        """Count a request until the block ends.

        Args:
            deployment: what it is for.
            rows: that it has.

        Raises:
            TooManyRequests: with it there would be more than the endpoint takes on.
        """
        limits = deployment.limits
        if limits.concurrency is None and limits.queue is None:
            return _UNCOUNTED
        cells, at = self._own.cells, self._own.make_slot(deployment.key)
        entry = _Entry(cells, at, rows)
        cells[at + 2] += 1
        cells[at + 3] += rows
        try:
            self._check(deployment, rows)
        except BaseException:
            entry.__exit__()
            raise
        return entry

    def _check(self, deployment: Deployment, own_rows: int) -> None:
        requests, rows = self._totals(deployment.key)
        limits = deployment.limits
        if limits.concurrency is not None and requests > limits.concurrency:
            raise TooManyRequests(
                f"endpoint {deployment.endpoint!r} takes {limits.concurrency} requests at a time",
                remedy="Try again when one of them has been answered",
            )
        # One request alone is let in whatever its size: waiting would not make it smaller.
        if limits.queue is not None and rows > limits.queue and rows > own_rows:
            raise TooManyRequests(
                f"endpoint {deployment.endpoint!r} takes {limits.queue} rows at a time",
                remedy="Try again later, or send fewer at a time",
            )

    def _totals(self, key: str) -> tuple[int, int]:
        """Return requests and rows in progress in all workers."""
        # Looked at each time (it takes a microsecond): what a worker that has just come lets in counts at once.
        changed = os.stat(self._folder).st_mtime_ns
        if changed != self._changed:
            self._look()
            # A worker that comes within the same tick of the file system's clock must not be missed.
            self._changed = changed if time.time_ns() - changed > _TICK else 0
        requests = rows = 0
        for board in (self._own, *(board for _, board in self._others.values())):
            at = board.slot(key)
            if at is not None:
                requests += board.cells[at + 2]
                rows += board.cells[at + 3]
        return requests, rows

    def _look(self) -> None:
        """Map the counts of workers that came, forget those of workers that went."""
        found: dict[Path, tuple[int, Board]] = {}
        for path in self._folder.glob("*.board"):
            if path == self._path:
                continue
            with contextlib.suppress(OSError, ValueError):  # it just went, or is just being made
                inode = path.stat().st_ino
                known = self._others.get(path)
                found[path] = known if known and known[0] == inode else (inode, Board(path, own=False))
        self._others = found


@functools.lru_cache(SLOTS)
def _hash(key: str) -> tuple[int, int]:
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    return (
        int.from_bytes(digest[:8], "little", signed=True),
        int.from_bytes(digest[8:], "little", signed=True),
    )
