from __future__ import annotations

import gc
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yunmo.serving.batch import Tensors
from yunmo.serving.marks import SLOTS, Mark, Marks, MarksFile

ONE, TWO = "sha256:" + "1a" * 32, "sha256:" + "f0" * 32
ROWS = {"x": np.ones(1, np.float32)}


class Stop:
    def set(self) -> None: ...


class Looking:
    """A model that reads the marks while it runs, as the supervisor would find them."""

    run_seconds, batch_rows = 0.5, 3

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found: list[list[Mark]] = []

    def new_stop(self) -> Stop:
        return Stop()

    def run(self, tensors: Mapping[str, Any], stop: Any = None) -> Tensors:
        self.found.append(MarksFile(self._path).read())
        if stop is not None:
            raise ZeroDivisionError
        return dict(tensors)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workers" / "7.marks"


def test_a_run_is_marked_while_it_lasts_with_its_thread(path: Path) -> None:
    marks, model = Marks(path), Looking(path)
    watched = marks.watch(ONE, model)
    assert (watched.run_seconds, watched.batch_rows) == (0.5, 3)
    assert MarksFile(path).read() == []
    assert watched.run(ROWS) == ROWS
    with pytest.raises(ZeroDivisionError):
        watched.run(ROWS, watched.new_stop())
    thread = threading.Thread(target=watched.run, args=(ROWS,))
    thread.start()
    other = thread.ident
    thread.join()
    mine = threading.get_ident()
    assert model.found == [[Mark(ONE, mine, "runs")], [Mark(ONE, mine, "runs")], [Mark(ONE, other or 0, "runs")]]
    assert MarksFile(path).read() == []


def test_loading_is_marked_and_places_are_used_again(path: Path) -> None:
    marks = Marks(path)
    for _ in range(2 * SLOTS):
        with marks.loading(ONE), marks.loading(TWO):
            pass
    with marks.loading(TWO):
        assert [(each.digest, each.doing) for each in MarksFile(path).read()] == [(TWO, "loads")]
    model = Looking(path)
    for _ in range(2 * SLOTS):
        watched = marks.watch(ONE, model)
        watched.run(ROWS)
        del watched
    gc.collect()
    assert all(len(found) == 1 for found in model.found)


def test_more_than_there_are_places_for_still_run(path: Path) -> None:
    marks, model = Marks(path), Looking(path)
    every = [marks.watch(ONE, model) for _ in range(SLOTS + 2)]
    for watched in every:
        watched.run(ROWS)
    assert [len(found) for found in model.found[-3:]] == [1, 0, 0]
    del every, watched
    gc.collect()
    marks.watch(TWO, model).run(ROWS)
    assert [each.digest for each in model.found[-1]] == [TWO]


def test_a_run_that_hangs_keeps_the_file(path: Path) -> None:
    marks = Marks(path)
    go, entered = threading.Event(), threading.Event()

    class Hanging(Looking):
        def run(self, tensors: Mapping[str, Any], stop: Any = None) -> Tensors:
            del stop
            entered.set()
            go.wait(30)
            return dict(tensors)

    watched = marks.watch(ONE, Hanging(path))
    idle = marks.watch(TWO, Looking(path))
    idle.run(ROWS)
    idle.hangs()
    thread = threading.Thread(target=watched.run, args=(ROWS,))
    thread.start()
    assert entered.wait(30)
    watched.hangs()
    assert [(each.digest, each.doing) for each in MarksFile(path).read()] == [(ONE, "hangs")]
    marks.close()
    assert path.exists()
    go.set()
    thread.join()
    marks.close()
    assert not path.exists()


def test_beats_are_counted_on_the_loops_thread(path: Path) -> None:
    marks, file = Marks(path), MarksFile(path)
    assert (file.beats, file.loop) == (0, 0)
    marks.beat()
    marks.beat()
    assert (file.beats, file.loop) == (2, threading.get_ident())
    marks.close()
    with pytest.raises(FileNotFoundError):
        MarksFile(path)
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="length"):
        MarksFile(path)
