from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from onnx import TensorProto
from tests.fixtures import bundles
from tests.fixtures.bundles import key_files, make_bundle, table_rows
from tests.fixtures.faults import with_hang
from tests.fixtures.onnx_files import unary

from yunmo.bundle.manifest import Tensor, Tensors
from yunmo.core.errors import BundleError, ModelFailed, Unavailable, YunmoError
from yunmo.inference import isolated
from yunmo.inference.isolated import FREE_STARTS, IsolatedSession, Kill
from yunmo.inference.predictor import Predictor
from yunmo.inference.session import Session

VECTOR = Tensors((Tensor("x", "float32", ()),), (Tensor("y", "float32", ()),))
FINE, HANGING = np.array([1, 2], np.float32), np.array([1, 2000], np.float32)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def graph(node: str = "Identity", *, element: int = TensorProto.FLOAT, shape: tuple[Any, ...] = ("batch",)) -> bytes:
    data: bytes = unary(node, element=element, shape=shape).SerializeToString()
    return data


def hanging() -> bytes:
    return with_hang(graph("Neg"), "x", "node")


@pytest.fixture
def session() -> Iterator[IsolatedSession]:
    session = IsolatedSession(hanging, VECTOR, threads=1)
    yield session
    session.close()


class Run(threading.Thread):
    """A run in a thread, and how it ended."""

    def __init__(self, session: IsolatedSession, values: Any, stop: Kill | None = None) -> None:
        super().__init__(daemon=True)
        self.session, self.values, self.stop = session, values, stop
        self.outcome: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self.session.run({"x": self.values}, self.stop)["y"].tolist()
        except YunmoError as error:
            self.outcome = error

    def end(self) -> Any:
        self.join(60)
        assert not self.is_alive()
        return self.outcome


def computes(session: IsolatedSession) -> None:
    """Wait until the model's process is in the midst of something that takes long."""
    process = psutil.Process(session.pid)
    before = process.cpu_times().user
    until(lambda: process.cpu_times().user > before + 0.3)


def gone(pid: int | None) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(
    ("dtype", "element"),
    [
        (np.float16, TensorProto.FLOAT16),
        (np.float32, TensorProto.FLOAT),
        (np.float64, TensorProto.DOUBLE),
        (np.uint8, TensorProto.UINT8),
        (np.int64, TensorProto.INT64),
        (np.bool_, TensorProto.BOOL),
    ],
)
def test_arrays_of_every_kind_come_back_as_from_a_session_here(dtype: Any, element: int) -> None:
    name = np.dtype(dtype).name
    tensors = Tensors((Tensor("x", name, (None,)),), (Tensor("y", name, (None,)),))
    data = graph(element=element, shape=("batch", "width"))
    here, there = Session(data, tensors, threads=1), IsolatedSession(lambda: data, tensors, threads=1)
    try:
        for shape in ((3, 4), (1, 1), (0, 4), (700, 1100)):  # the last is more than a socket holds
            array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
            for given in (array, np.asfortranarray(array), array.astype(array.dtype.newbyteorder(">"))):
                expected, found = here.run({"x": array})["y"], there.run({"x": given})["y"]
                assert found.dtype == expected.dtype
                assert found.shape == expected.shape
                assert (found == expected).all()
    finally:
        there.close()


def test_texts_come_back_as_they_are() -> None:
    tensors = Tensors((Tensor("x", "string", (2,)),), (Tensor("y", "string", (2,)),))
    session = IsolatedSession(lambda: graph(element=TensorProto.STRING, shape=("batch", 2)), tensors, threads=1)
    try:
        texts = np.array([["", "云模"], ["a\0b", "x" * 100_000]], object)
        assert session.run({"x": texts})["y"].tolist() == texts.tolist()
        assert session.run({"x": np.array([["a", "é"]])})["y"].tolist() == [["a", "é"]]
        assert session.run({"x": np.empty((0, 2), object)})["y"].shape == (0, 2)
    finally:
        session.close()


def test_an_error_of_the_graph_is_that_of_a_session_here_and_costs_no_process(
    session: IsolatedSession, caplog: pytest.LogCaptureFixture
) -> None:
    pid = session.pid
    with pytest.raises(ModelFailed) as here:
        Session(hanging(), VECTOR, threads=1).run({"x": np.ones((2, 2), np.float32)})
    with pytest.raises(ModelFailed) as there:
        session.run({"x": np.ones((2, 2), np.float32)})
    assert str(there.value) == str(here.value)
    mine, its = (record.getMessage() for record in caplog.records)
    assert mine == its  # the log has the details of both
    assert session.run({"x": FINE})["y"].tolist() == [-1, -2]
    assert session.pid == pid


def test_a_process_that_dies_in_a_run_fails_that_run_and_the_next_has_another(session: IsolatedSession) -> None:
    for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM):
        run, pid = Run(session, HANGING), session.pid
        computes(session)
        waiting = Run(session, FINE)
        os.kill(pid, number)
        outcome = run.end()
        assert isinstance(outcome, ModelFailed)
        assert "the model's process ended" in str(outcome)
        assert waiting.end() == [-1, -2]
        assert session.pid != pid
        assert gone(pid)


def test_a_run_that_hangs_is_stopped_and_the_next_is_answered(session: IsolatedSession) -> None:
    stop, pid = session.new_stop(), session.pid
    run = Run(session, HANGING, stop)
    computes(session)
    stop.set()
    outcome = run.end()
    assert isinstance(outcome, ModelFailed)
    assert "took too long" in str(outcome)
    assert gone(pid)
    with pytest.raises(ModelFailed, match="took too long"):
        session.run({"x": FINE}, stop)  # one stop ends all the runs that have it
    assert session.run({"x": FINE})["y"].tolist() == [-1, -2]


def test_who_waits_for_a_run_that_hangs_can_be_stopped_without_ending_it(session: IsolatedSession) -> None:
    first, pid = Run(session, HANGING), session.pid
    computes(session)
    stop = session.new_stop()
    second = Run(session, FINE, stop)
    stop.set()
    assert isinstance(second.end(), ModelFailed)
    assert first.is_alive()
    assert not gone(pid)
    session.close()
    assert isinstance(first.end(), Unavailable)


def test_a_process_that_keeps_dying_is_started_ever_later() -> None:
    now = [0.0]
    session = IsolatedSession(hanging, VECTOR, threads=1, clock=lambda: now[0])

    def kill() -> None:
        os.kill(session.pid or 0, signal.SIGKILL)
        with pytest.raises(ModelFailed, match="process ended"):
            session.run({"x": FINE})

    try:
        for _ in range(FREE_STARTS):
            kill()
            assert session.run({"x": FINE})["y"].tolist() == [-1, -2]  # at once
        for delay in (0.5, 1.0):
            kill()
            now[0] += delay - 0.1
            with pytest.raises(Unavailable, match=r"keeps ending.*Try again in 1 s"):
                session.run({"x": FINE})
            assert session.pid is None
            now[0] += 0.11
            assert session.run({"x": FINE})["y"].tolist() == [-1, -2]
        now[0] += isolated.WINDOW_SECONDS + 1
        kill()
        assert session.run({"x": FINE})["y"].tolist() == [-1, -2]
    finally:
        session.close()


def test_a_graph_that_is_gone_at_the_next_start_is_a_clear_error() -> None:
    reads = iter([hanging()])

    def read() -> bytes:
        try:
            return next(reads)
        except StopIteration:
            raise FileNotFoundError from None

    session = IsolatedSession(read, VECTOR, threads=1)
    try:
        os.kill(session.pid or 0, signal.SIGKILL)
        with pytest.raises(ModelFailed):
            session.run({"x": FINE})
        with pytest.raises(Unavailable, match="cannot be started again"):
            session.run({"x": FINE})
    finally:
        session.close()


def test_what_cannot_be_loaded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="cannot be loaded"):
        IsolatedSession(lambda: b"no graph", VECTOR, threads=1)
    with pytest.raises(BundleError, match="the graph has inputs"):
        IsolatedSession(hanging, Tensors((), VECTOR.outputs), threads=1)
    stop = Kill()
    stop.set()
    with pytest.raises(BundleError, match="too long"):
        IsolatedSession(hanging, VECTOR, threads=1, stop=stop)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BundleError, match="ended"):
        IsolatedSession(hanging, VECTOR, threads=1)


def test_closing_ends_the_process_and_whoever_waits(session: IsolatedSession) -> None:
    pid = session.pid
    run = Run(session, HANGING)
    computes(session)
    waiting = Run(session, FINE)
    session.close()
    assert isinstance(run.end(), Unavailable)
    assert isinstance(waiting.end(), Unavailable)
    assert gone(pid)
    with pytest.raises(Unavailable):
        session.run({"x": FINE})
    session.close()


def test_the_process_leaves_no_core_and_is_in_a_group_of_its_own(session: IsolatedSession) -> None:
    limits = Path(f"/proc/{session.pid}/limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    assert os.getpgid(session.pid or 0) == session.pid
    maps = Path(f"/proc/{session.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert "libtorch" not in maps


PARENT = """
import sys, threading
from tests.unit.inference.test_isolated import HANGING, VECTOR, IsolatedSession, Run, computes, hanging
session = IsolatedSession(hanging, VECTOR, threads=1)
if sys.argv[1] == "busy":
    Run(session, HANGING)
    computes(session)
print(session.pid, flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("state", ["busy", "idle"])
def test_the_process_dies_with_its_parent_whatever_it_does(state: str) -> None:
    root = Path(__file__).parents[3]
    with subprocess.Popen([sys.executable, "-c", PARENT, state], stdout=subprocess.PIPE, cwd=root) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.kill()
    until(lambda: gone(child))


def test_a_predictor_answers_the_same_in_a_process_of_its_own(tmp_path: Path) -> None:
    key, public = key_files(tmp_path)
    make_bundle(tmp_path / "bundle", private_key=key, hangs="loop")
    here = Predictor.open(tmp_path / "bundle", public_key_pem=public)
    there = Predictor.open(tmp_path / "bundle", public_key_pem=public, isolated=True)
    try:
        assert there.predict(table_rows()) == here.predict(table_rows())
        assert (here.isolated, there.isolated) == (False, True)
        assert there.run_seconds > 0
        # One that may never end is not for the event loop, wherever it runs.
        assert (here.inline, there.inline) == (False, False)
    finally:
        there.close()
    make_bundle(tmp_path / "plain", private_key=key)
    assert Predictor.open(tmp_path / "plain", public_key_pem=public).inline


@pytest.mark.parametrize("isolate", [False, True])
def test_golden_examples_that_hang_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolate: bool) -> None:
    key, public = key_files(tmp_path)
    rows = [{"age": 2000, "city": "Berlin"}]
    monkeypatch.setattr(bundles, "table_rows", lambda: rows)
    monkeypatch.setattr(bundles, "_answers", lambda *_: {"label": [[1, 0, 0]], "price": [1]})
    make_bundle(tmp_path / "bundle", private_key=key, hangs="loop")
    with pytest.raises(BundleError, match="too long"):
        Predictor.open(tmp_path / "bundle", public_key_pem=public, isolated=isolate, timeout=2.0)
