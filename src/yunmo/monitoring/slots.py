"""Numbers in shared memory: a data worker adds to its slot, any worker reads all slots.

A slot is a file in a folder of the service's, mapped into its owner's memory. It outlives its owner: the next worker to
start takes a free slot over and counts on, so that no count ever falls when a worker dies. Who holds the lock of a
slot's file (`flock`, which ends with its process however that ends) owns it; gauges of a slot without an owner are
nobody's.

The folder is in ``/dev/shm`` where there is one: adding to a page of a file on disk can wait for that disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import shutil
import stat
import sys
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from yunmo.monitoring.families import BLOCKS, FINGERPRINT, Part, block_cells

Labels = tuple[str, ...]

CELL = 8
"""Bytes of a number: a float64, exact for counts up to 2^53."""
SLOT_BYTES = 4 * 2**20
"""Most that a slot may grow to, enough for about a thousand loaded versions."""
STEP_BYTES = 64 * 2**10
"""Memory is taken in such steps, ahead of use: a mapped page that the system cannot give when it is touched kills."""
TIDY_CELLS = 256 * 2**10 // CELL
"""From this size on, the places of versions that were unloaded long ago are used again."""
KEEP_SECONDS = 900.0
"""A version that was unloaded stays on the page for so long, so that whoever collects it gets its last counts."""

_HEADER = 16
_PID, _STARTED, _USED, _GENERATION, _STARTS, _DEATHS, _RUNNING, LOG_DROPPED = range(1, 9)
_KIND, _LABEL_BYTES, _RETIRED, _LABELS = 0, 1, 2, 4
_ROOM_FOR_LABELS = 32
_BLOCK_HEADER = _LABELS + _ROOM_FOR_LABELS
_ATTEMPTS = 20
"""How often a slot is read that its owner is giving a new block; one of them is whole unless the owner is stopped."""

_SHARED = Path("/dev/shm")  # noqa: S108 (not a temporary file: the folder in it is private and checked to be ours)


class SlotError(Exception):
    """Shared memory that cannot be had; the message says why."""


@dataclass(frozen=True, slots=True)
class Block:
    """One block as it was read."""

    kind: int
    labels: Labels
    retired: float
    """When its version was unloaded, in seconds since 1970; 0: it is loaded."""
    values: array[float]


@dataclass(frozen=True, slots=True)
class SlotCopy:
    """A slot as it was read."""

    pid: int
    started: float
    """When its owner started, in seconds since 1970."""
    alive: bool
    starts: float
    deaths: float
    log_dropped: float
    blocks: tuple[Block, ...]


class Slot:
    """The slot of this process. One thread writes to it.

    Args:
        memory: of its cells.
        descriptor: its locked file; None where it is shared with nobody.
    """

    def __init__(self, memory: mmap.mmap, descriptor: int | None) -> None:
        self._memory = memory
        self._descriptor = descriptor
        self._granted = 0
        self.cells: memoryview[float] = memoryview(memory).cast("d")
        """Every cell; a block's begin where `block` says."""
        self._blocks: dict[tuple[int, Labels], int] = {}
        if not self._grow(_HEADER):
            raise SlotError("no memory left")
        if bytes(memory[:CELL]) != FINGERPRINT:
            # New, or left by another version of this program.
            memory[: _HEADER * CELL] = FINGERPRINT + bytes((_HEADER - 1) * CELL)
            self.cells[_USED] = _HEADER
        self._take_over()

    @classmethod
    def private(cls) -> Slot:
        """Return a slot that no other process sees."""
        return cls(mmap.mmap(-1, SLOT_BYTES), None)

    @classmethod
    def take(cls, folder: Path) -> Slot:
        """Return the first slot of a folder that nobody owns; it is made if there is none.

        Raises:
            SlotError: no memory left, or a folder that cannot be used.
        """
        try:
            # Under this lock, so that nobody reads while a slot changes hands.
            with _locked(folder, fcntl.LOCK_EX):
                for number in range(len(list(folder.glob("*.slot"))) + 1):
                    if (slot := cls._try(folder / f"{number}.slot")) is not None:
                        return slot
        except OSError as error:
            raise SlotError(str(error)) from error
        raise SlotError("every slot is taken")

    @classmethod
    def _try(cls, path: Path) -> Slot | None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        try:
            os.ftruncate(descriptor, SLOT_BYTES)
            return cls(mmap.mmap(descriptor, SLOT_BYTES), descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def block(self, kind: int, labels: Labels) -> int | None:
        """Return where the cells of a block begin, which is its own from now on; None if there is no room.

        Args:
            kind: its place in `BLOCKS`.
            labels: their values.
        """
        at = self._blocks.get((kind, labels))
        if at is None:
            text = msgspec.json.encode(labels)
            if len(text) > _ROOM_FOR_LABELS * CELL:
                return None
            at = self._unused(kind) or self._append(kind)
            if at is None:
                return None
            self._name(at, kind, labels, text)
        self.cells[at - _BLOCK_HEADER + _RETIRED] = 0.0
        return at

    def retire(self, labels: Labels) -> None:
        """Say that a version was unloaded; it means all blocks whose labels begin so."""
        now = time.time()
        for (_, others), at in self._blocks.items():
            if others[: len(labels)] == labels:
                self.cells[at - _BLOCK_HEADER + _RETIRED] = now

    def copy(self) -> SlotCopy:
        """Return what the slot holds."""
        used = int(self.cells[_USED]) * CELL
        return _parse(self._memory[:used], alive=True)

    def close(self) -> None:
        """Give the slot back: its counts stay, its owner did not die.

        Its memory stays too, so that a late call of a request that still ends is no error.
        """
        self.cells[_RUNNING] = 0.0
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)

    def _take_over(self) -> None:
        cells = self.cells
        now = time.time()
        self._grow(int(cells[_USED]))
        cells[_GENERATION] += cells[_GENERATION] % 2.0
        for at, kind, labels in _walk(cells, self._memory):
            self._blocks[kind, labels] = at
            for gauge in _gauges(BLOCKS[kind]):
                cells[at + gauge] = 0.0
            retired = at - _BLOCK_HEADER + _RETIRED
            cells[retired] = cells[retired] or now
        cells[_DEATHS] += cells[_RUNNING]
        cells[_STARTS] += 1.0
        cells[_PID] = os.getpid()
        cells[_STARTED] = now
        cells[_RUNNING] = 1.0

    def _grow(self, cells: int) -> bool:
        """Make sure that so many cells can be touched."""
        while self._granted < cells * CELL:
            if self._granted >= SLOT_BYTES:
                return False
            if self._descriptor is not None:
                try:
                    _grant(self._descriptor, self._granted, STEP_BYTES)
                except OSError:
                    return False
            self._granted += STEP_BYTES
        return True

    def _append(self, kind: int) -> int | None:
        used = int(self.cells[_USED])
        end = used + _BLOCK_HEADER + block_cells(BLOCKS[kind])
        if not self._grow(end):
            return None
        return used + _BLOCK_HEADER

    def _unused(self, kind: int) -> int | None:
        """Return a block of a kind whose version was unloaded long ago, once the slot is large."""
        if self.cells[_USED] < TIDY_CELLS:
            return None
        long_ago = time.time() - KEEP_SECONDS
        for (other, labels), at in self._blocks.items():
            if other == kind and 0.0 < self.cells[at - _BLOCK_HEADER + _RETIRED] < long_ago:
                del self._blocks[other, labels]
                return at
        return None

    def _name(self, at: int, kind: int, labels: Labels, text: bytes) -> None:
        """Write a block's header and empty its cells.

        Whoever reads meanwhile reads again; if this process dies meanwhile, the block has no labels and counts nothing.
        """
        cells = self.cells
        begin, end = at - _BLOCK_HEADER, at + block_cells(BLOCKS[kind])
        cells[_GENERATION] += 1.0
        cells[begin + _LABEL_BYTES] = 0.0
        for cell in range(at, end):
            cells[cell] = 0.0
        cells[begin + _KIND] = kind
        place = (begin + _LABELS) * CELL
        self._memory[place : place + len(text)] = text
        cells[begin + _LABEL_BYTES] = len(text)
        cells[_USED] = max(cells[_USED], end)
        cells[_GENERATION] += 1.0
        self._blocks[kind, labels] = at


def read_slots(folder: Path) -> list[SlotCopy]:
    """Return what every slot of a folder holds.

    Raises:
        OSError: the folder is not there.
    """
    with _locked(folder, fcntl.LOCK_SH):
        copies = (_read(path) for path in sorted(folder.glob("*.slot")))
        return [copy for copy in copies if copy is not None]


def _read(path: Path) -> SlotCopy | None:
    with path.open("rb", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            alive = False
        except BlockingIOError:
            alive = True
        for attempt in range(_ATTEMPTS):
            header = array("d", os.pread(file.fileno(), _HEADER * CELL, 0))
            if len(header) < _HEADER or header[:1].tobytes() != FINGERPRINT:
                return None
            data = os.pread(file.fileno(), int(header[_USED]) * CELL, 0)
            after = array("d", os.pread(file.fileno(), _HEADER * CELL, 0))[_GENERATION]
            if not alive or (header[_GENERATION] == after and after % 2.0 == 0.0):
                break
            time.sleep(0.0001 * attempt)
        return _parse(data, alive=alive)


def _parse(data: bytes, *, alive: bool) -> SlotCopy:
    cells = array("d", data)
    blocks = []
    for at, kind, labels in _walk(cells, data):
        values = cells[at : at + block_cells(BLOCKS[kind])]
        if not alive:
            for gauge in _gauges(BLOCKS[kind]):
                values[gauge] = 0.0
        blocks.append(Block(kind, labels, cells[at - _BLOCK_HEADER + _RETIRED], values))
    died = 0.0 if alive else cells[_RUNNING]
    return SlotCopy(
        pid=int(cells[_PID]),
        started=cells[_STARTED],
        alive=alive,
        starts=cells[_STARTS],
        deaths=cells[_DEATHS] + died,
        log_dropped=cells[LOG_DROPPED],
        blocks=tuple(blocks),
    )


def _walk(cells: memoryview[float] | array[float], data: bytes | mmap.mmap) -> Iterator[tuple[int, int, Labels]]:
    """Yield each block's first cell, kind and labels."""
    begin, used = _HEADER, int(cells[_USED])
    while begin < used:
        kind = int(cells[begin + _KIND])
        at = begin + _BLOCK_HEADER
        place = (begin + _LABELS) * CELL
        if text := data[place : place + int(cells[begin + _LABEL_BYTES])]:
            yield at, kind, msgspec.json.decode(text, type=tuple[str, ...])
        begin = at + block_cells(BLOCKS[kind])


def _gauges(block: tuple[Part, ...]) -> Iterator[int]:
    at = 0
    for part in block:
        if part.family.kind == "gauge":
            yield from range(at, at + part.cells)
        at += part.cells


def _grant(descriptor: int, begin: int, size: int) -> None:
    """Have the system set memory or disk space aside for a part of a file.

    Raises:
        OSError: there is not enough.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, begin, size)
    else:
        held = os.pread(descriptor, size, begin)
        os.pwrite(descriptor, held.ljust(size, b"\0"), begin)


@contextlib.contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Hold the lock of a folder of slots; its slots change hands under the exclusive one."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def shared_folder(home: Path, *, parent: Path = _SHARED) -> Path:
    """Return the folder of a workspace's slots, made with mode 0700.

    It is in shared memory if that can be, else in the workspace.

    Args:
        home: the workspace.
        parent: where shared memory is.
    """
    name = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16]
    folder = parent / f"yunmo-{os.geteuid()}-{name}"
    if sys.platform == "linux" and _ours(folder):
        with contextlib.suppress(OSError):
            (folder / "home").write_bytes(os.fsencode(home.resolve()))
            return folder
    folder = home / "run" / "metrics"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def forget_slots(home: Path, *, parent: Path = _SHARED) -> None:
    """Remove a workspace's slots, and those of workspaces that are no more; only while no data worker runs.

    Args:
        home: the workspace.
        parent: as for `shared_folder`.
    """
    shutil.rmtree(shared_folder(home, parent=parent), ignore_errors=True)
    for folder in parent.glob(f"yunmo-{os.geteuid()}-*"):
        with contextlib.suppress(OSError):
            if _ours(folder) and not Path(os.fsdecode((folder / "home").read_bytes())).exists():
                shutil.rmtree(folder, ignore_errors=True)


def _ours(folder: Path) -> bool:
    """Make a private folder; say whether it is one: anybody may have made it before us."""
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
