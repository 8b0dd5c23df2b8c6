"""What a worker leaves behind for the case that it dies: which models it was running, and that its loop still turns.

Both stand in a small file that the worker maps and the supervisor reads. Writing is a store to memory: it costs the
batch about 0.2 µs, and what was written is there whatever the process dies of.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from yunmo.serving.batch import Model, Stop, Tensors

SLOTS = 4096
"""Models times threads that one worker can mark; what is beyond is not marked."""
_HEAD = 3  # cells: beats, thread of the loop, slots in use
_CELLS = 6  # of a slot: four of the digest, the thread, what it does
_THREAD, _DOING = 4, 5
_BESIDE = _HEAD + _CELLS * SLOTS
"""A cell that nobody reads, for those who come when all slots are taken."""
_BYTES = 8 * (_BESIDE + 1)
_SHA256 = "sha256:"

Doing = Literal["nothing", "runs", "loads", "hangs"]
"""What a thread does with a model; hangs: it runs, was told to stop, and does not."""
_NOTHING, _RUNS, _LOADS, _HANGS = range(4)
_NAMES: tuple[Doing, ...] = ("nothing", "runs", "loads", "hangs")


class Marks:
    """The marks of this worker. Threads may share it.

    Args:
        path: of the file, which is made anew.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with path.open("x+b") as file:
            file.truncate(_BYTES)  # it takes up what is written to, not more
            self._cells = memoryview(mmap.mmap(file.fileno(), _BYTES)).cast("q")
        self._lock = threading.Lock()
        self._free: list[int] = []

    def beat(self) -> None:
        """Say that the event loop turns; to be called on it."""
        self._cells[0] += 1
        self._cells[1] = threading.get_ident()

    @contextlib.contextmanager
    def loading(self, digest: str) -> Iterator[None]:
        """Mark that this thread loads a model, and runs its golden examples, until the block ends."""
        at = self._take(digest)
        self._cells[at] = _LOADS
        try:
            yield
        finally:
            self._give_back((at,))

    def watch(self, digest: str, model: Model) -> Watched:
        """Return a model that marks each of its runs.

        Args:
            digest: of its bundle.
            model: what runs.
        """
        return Watched(self, digest, model)

    def close(self) -> None:
        """Take the file away, unless a model hangs: then the supervisor has to learn of it."""
        if not any(each.doing == "hangs" for each in _read(self._cells)):
            self._path.unlink(missing_ok=True)

    def _take(self, digest: str) -> int:
        """Return the cell in which this thread marks what it does with a model."""
        with self._lock:
            if self._free:
                at = self._free.pop()
            elif self._cells[2] < SLOTS:
                at = _HEAD + _CELLS * self._cells[2]
                self._cells[2] += 1
            else:
                return _BESIDE
        cells = memoryview(bytes.fromhex(digest.removeprefix(_SHA256))).cast("q")
        self._cells[at : at + len(cells)] = cells
        self._cells[at + _THREAD] = threading.get_ident()
        return at + _DOING

    def _give_back(self, cells: tuple[int, ...]) -> None:
        with self._lock:
            for at in cells:
                self._cells[at] = _NOTHING
                if at != _BESIDE:
                    self._free.append(at - _DOING)


class Watched:
    """A model that marks each of its runs; `Marks.watch` makes it. Threads may share it."""

    def __init__(self, marks: Marks, digest: str, model: Model) -> None:
        self._marks = marks
        self._digest = digest
        self._model = model
        self._run = model.run
        self._cells = marks._cells
        self._at: dict[int, int] = {}
        """By thread: the cell in which it marks what it does."""
        weakref.finalize(self, _give_back, marks, self._at).atexit = False

    @property
    def run_seconds(self) -> float:
        """The model's."""
        return self._model.run_seconds

    @property
    def batch_rows(self) -> int:
        """The model's."""
        return self._model.batch_rows

    def new_stop(self) -> Stop:
        """Return what can end the model's runs."""
        return self._model.new_stop()

    def run(self, tensors: Mapping[str, Any], stop: Any = None) -> Tensors:
        """Run the model, which is marked meanwhile."""
        thread = threading.get_ident()
        at = self._at.get(thread)
        if at is None:
            at = self._at[thread] = self._marks._take(self._digest)
        self._cells[at] = _RUNS
        try:
            return self._run(tensors, stop)
        finally:
            self._cells[at] = _NOTHING

    def hangs(self) -> None:
        """Mark that runs of the model were told to stop and do not: this process ends because of it."""
        for at in self._at.values():
            if self._cells[at] == _RUNS:
                self._cells[at] = _HANGS


def _give_back(marks: Marks, at: dict[int, int]) -> None:
    marks._give_back(tuple(at.values()))


@dataclass(frozen=True, slots=True)
class Mark:
    """What a thread of a worker does, or did when the worker died."""

    digest: str
    """Of the model's bundle."""
    thread: int
    """Its identifier, as `threading.get_ident` gives it."""
    doing: Doing


class MarksFile:
    """The marks of a worker, as another process sees them; also when the worker is dead.

    Args:
        path: of the file.

    Raises:
        OSError: it is not there.
        ValueError: it is not complete yet.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._cells = memoryview(mmap.mmap(file.fileno(), _BYTES, access=mmap.ACCESS_READ)).cast("q")

    @property
    def beats(self) -> int:
        """How often the worker's event loop has turned, so to say; it grows every second."""
        return self._cells[0]

    @property
    def loop(self) -> int:
        """Identifier of the thread of the worker's event loop; 0: not known yet."""
        return self._cells[1]

    def read(self) -> list[Mark]:
        """Return what its threads do with models."""
        return _read(self._cells)


def _read(cells: memoryview[int]) -> list[Mark]:
    marks = []
    for index in range(min(cells[2], SLOTS)):
        at = _HEAD + _CELLS * index
        doing = cells[at + _DOING]
        if _NOTHING < doing <= _HANGS:
            digest = cells[at : at + _THREAD].tobytes().hex()
            marks.append(Mark(_SHA256 + digest, cells[at + _THREAD], _NAMES[doing]))
    return marks
