from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from yunmo.app.watch import BLOCKED_LOOKS, SUSPECTED_SECONDS, Verdict, Watch, judge
from yunmo.serving.marks import Doing, Mark, Marks
from yunmo.serving.quarantine import Quarantine, quarantine_path, read_record

ONE, TWO = "sha256:" + "1a" * 32, "sha256:" + "f0" * 32
LOOP = 5


def marks(*each: tuple[str, int, Doing]) -> list[Mark]:
    return [Mark(*one) for one in each]


def guilty(*digests: str) -> Verdict:
    return Verdict(guilty=frozenset(digests))


BOTH = marks((ONE, 1, "runs"), (TWO, 2, "runs"))


@pytest.mark.parametrize("number", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"])
def test_a_crash_is_due_to_what_ran(number: str) -> None:
    status = -signal.Signals[number]
    assert judge(status, []) == Verdict()
    assert judge(status, BOTH[:1]) == guilty(ONE)
    assert judge(status, marks((ONE, 1, "loads"))) == guilty(ONE)


def test_of_several_it_is_the_one_in_whose_thread_it_was_else_all_are() -> None:
    assert judge(-signal.SIGSEGV, BOTH, fault=2) == guilty(TWO)
    assert judge(-signal.SIGSEGV, BOTH, fault=99) == guilty(ONE, TWO)
    assert judge(-signal.SIGSEGV, BOTH) == guilty(ONE, TWO)


def test_who_is_killed_from_outside_is_a_suspect_at_most() -> None:
    assert judge(-signal.SIGKILL, BOTH) == Verdict(suspected=frozenset((ONE, TWO)))
    for status in (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, 0, 1):
        assert judge(status, BOTH) == Verdict()


def test_a_run_that_does_not_stop_is_to_blame_however_its_process_ended() -> None:
    hanging = [*BOTH[:1], *marks((TWO, 2, "hangs"))]
    for status in (0, 1, -signal.SIGKILL, -signal.SIGSEGV):
        assert judge(status, hanging) == guilty(TWO)


def test_a_blocked_loop_is_due_to_what_runs_on_it_or_loads() -> None:
    def blocked(each: Iterable[Mark]) -> Verdict:
        return judge(-signal.SIGKILL, list(each), loop=LOOP, blocked=True)

    assert blocked([]) == Verdict()
    assert blocked(BOTH) == Verdict()
    assert blocked([*BOTH, Mark(ONE, LOOP, "runs")]) == guilty(ONE)
    assert blocked([*BOTH, Mark(TWO, 7, "loads")]) == guilty(TWO)


def test_a_worker_whose_loop_stands_still_is_found_once_it_does_for_long(tmp_path: Path) -> None:
    watch, turning, still = Watch(tmp_path), Marks(tmp_path / "1.marks"), Marks(tmp_path / "2.marks")
    still.beat()
    for _ in range(BLOCKED_LOOKS):
        turning.beat()
        assert watch.look([1, 2, 3]) == []  # the third has no file
    still.beat()
    for _ in range(BLOCKED_LOOKS):
        turning.beat()
        assert watch.look([1, 2]) == []
    assert watch.look([1, 2]) == [2]
    assert watch.look([1]) == []
    for _ in range(BLOCKED_LOOKS - 2):
        turning.beat()
        assert watch.look([1, 2]) == []  # another process that got the same id begins anew


WORKER = """
import ctypes, os, signal, sys, threading, time
from pathlib import Path
from yunmo.app.guard import tell_crashes
from yunmo.serving.marks import Marks
folder, how, one, two = Path(sys.argv[1]), *sys.argv[2:]
class Model:
    run_seconds, batch_rows = 1.0, 1
    def __init__(self, crashes):
        self.crashes = crashes
    def new_stop(self): ...
    def run(self, tensors, stop=None):
        tensors["barrier"].wait()
        time.sleep(0.1)
        if self.crashes and how == "thread":
            ctypes.string_at(8)
        time.sleep(60)
tell_crashes(folder / f"{os.getpid()}.fault")
marks = Marks(folder / f"{os.getpid()}.marks")
barrier = threading.Barrier(3)
for digest, crashes in ((one, False), (two, True)):
    run = marks.watch(digest, Model(crashes)).run
    threading.Thread(target=run, args=({"barrier": barrier},), daemon=True).start()
barrier.wait()
if how != "thread":
    os.kill(os.getpid(), getattr(signal, how))
time.sleep(60)
"""


def die(folder: Path, how: str) -> tuple[int, int]:
    """Have a process die that runs two models; return its id and status."""
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), how, ONE, TWO], stderr=subprocess.DEVNULL
    ) as process:
        return process.pid, process.wait(60)


@pytest.fixture
def workers(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "workers"
    folder.mkdir(parents=True)
    return folder


def test_a_real_segfault_names_the_model_in_whose_thread_it_was(workers: Path) -> None:
    quarantine = Quarantine(quarantine_path(workers), "crashed")
    assert not quarantine.look()
    pid, status = die(workers, "thread")
    assert status == -signal.SIGSEGV
    Watch(workers).died(pid, status)
    assert read_record(quarantine_path(workers)).isolated == {TWO: "SIGSEGV"}
    assert quarantine.look()
    assert (quarantine.holds(ONE), quarantine.holds(TWO)) == (False, True)
    assert not quarantine.look()


def test_a_crash_elsewhere_names_all_that_ran(workers: Path) -> None:
    Watch(workers).died(*die(workers, "SIGABRT"))
    assert read_record(quarantine_path(workers)).isolated == {ONE: "SIGABRT", TWO: "SIGABRT"}


def test_kill_9_isolates_at_the_second_time_within_an_hour(workers: Path) -> None:
    now = [1000.0]
    watch = Watch(workers, lambda: now[0])
    pid, status = die(workers, "SIGKILL")
    watch.died(pid, status)
    record = read_record(quarantine_path(workers))
    assert (record.isolated, record.suspected) == ({}, {ONE: 1000.0, TWO: 1000.0})
    now[0] += SUSPECTED_SECONDS + 1
    watch.died(pid, status)
    assert read_record(quarantine_path(workers)).isolated == {}
    now[0] += SUSPECTED_SECONDS - 1
    Watch(workers, lambda: now[0]).died(pid, status)  # a service that was started anew remembers
    record = read_record(quarantine_path(workers))
    assert (record.isolated, record.suspected) == ({ONE: "SIGKILL", TWO: "SIGKILL"}, {})


def test_a_worker_without_marks_says_nothing(workers: Path) -> None:
    Watch(workers).died(1, -signal.SIGSEGV)
    Marks(workers / "2.marks")
    Watch(workers).died(2, -signal.SIGSEGV)
    assert not quarantine_path(workers).exists()


def test_a_quarantine_that_cannot_be_read_holds_nobody(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.json"
    for content in (b"", b"{", b'{"isolated": 1}', b'{"isolated": {"sha256:0": "SIGSEGV"}}'):
        path.write_bytes(content)
        quarantine = Quarantine(path, "crashed")
        assert quarantine.look() == (b"SIGSEGV" in content)
    assert quarantine.holds("sha256:0")
    path.unlink()
    assert quarantine.look()
    assert not quarantine.holds("sha256:0")


def test_the_setting_goes_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.json"
    path.write_bytes(b'{"isolated": {"sha256:0": "SIGSEGV"}}')
    always, never = Quarantine(path, "always"), Quarantine(path, "never")
    assert not always.look()
    assert not never.look()
    assert always.holds("sha256:1")
    assert not never.holds("sha256:0")
