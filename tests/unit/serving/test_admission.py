from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from yunmo.core.errors import TooManyRequests
from yunmo.core.snapshot import Deployment, Limits, Variant
from yunmo.serving import admission as module
from yunmo.serving.admission import Admission


def endpoint(name: str = "pets", **limits: Any) -> Deployment:
    return Deployment(name, "p", (Variant("m", 1, "d", "/d"),), Limits(**limits))


def refused(admission: Admission, deployment: Deployment, rows: int = 1) -> bool:
    try:
        with admission.enter(deployment, rows):
            return False
    except TooManyRequests:
        return True


def test_requests_in_progress_are_limited_over_all_workers(tmp_path: Path) -> None:
    one, other, pets = Admission(tmp_path, "1"), Admission(tmp_path, "2"), endpoint(concurrency=2)
    with one.enter(pets, 1), other.enter(pets, 1):
        assert refused(one, pets)
        assert refused(other, pets)
        assert not refused(one, endpoint("others", concurrency=1))
    for each in (one, other):
        with each.enter(pets, 1), each.enter(pets, 1):
            assert refused(one, pets)


def test_a_worker_that_has_just_come_counts_at_once(tmp_path: Path) -> None:
    one, pets = Admission(tmp_path, "1"), endpoint(concurrency=1)
    for number in range(20):
        assert not refused(one, pets)  # it has just looked who is there
        late = Admission(tmp_path, f"late-{number}")
        with late.enter(pets, 1):
            assert refused(one, pets)
        late.close()


def test_a_worker_that_went_counts_no_more(tmp_path: Path) -> None:
    one, gone, pets = Admission(tmp_path, "1"), Admission(tmp_path, "2"), endpoint(concurrency=1)
    gone.enter(pets, 1)  # and never left
    assert refused(one, pets)
    gone.close()
    assert not refused(one, pets)


def test_a_worker_that_took_the_name_of_another_begins_at_nothing(tmp_path: Path) -> None:
    one, pets = Admission(tmp_path, "1"), endpoint(concurrency=1)
    Admission(tmp_path, "2").enter(pets, 1)
    assert refused(one, pets)
    again = Admission(tmp_path, "2")
    assert not refused(one, pets)
    with again.enter(pets, 1):
        assert refused(one, pets)


def test_rows_are_limited_over_all_workers(tmp_path: Path) -> None:
    one, other, pets = Admission(tmp_path, "1"), Admission(tmp_path, "2"), endpoint(queue=10)
    with one.enter(pets, 6), other.enter(pets, 4):
        assert refused(one, pets)
        assert refused(other, pets)
    with one.enter(pets, 6):
        assert refused(other, pets, 5)
        assert not refused(other, pets, 4)


def test_one_request_alone_is_taken_whatever_its_size(tmp_path: Path) -> None:
    one, other, pets = Admission(tmp_path, "1"), Admission(tmp_path, "2"), endpoint(queue=10)
    with one.enter(pets, 1000):
        assert refused(other, pets)
    assert not refused(other, pets, 1000)


def test_a_refused_request_and_one_that_failed_leave_nothing_behind(tmp_path: Path) -> None:
    one, pets = Admission(tmp_path, "1"), endpoint(concurrency=1, queue=5)
    for _ in range(10):
        with contextlib.suppress(KeyError), one.enter(pets, 5):
            assert refused(one, pets)
            raise KeyError
    with one.enter(pets, 5):
        assert refused(one, pets)
    assert not refused(one, pets)


def test_endpoints_of_the_same_name_in_two_projects_are_two(tmp_path: Path) -> None:
    one = Admission(tmp_path, "1")
    mine, yours = (Deployment("pets", project, endpoint().variants, Limits(concurrency=1)) for project in "pq")
    with one.enter(mine, 1):
        assert not refused(one, yours)


def test_limits_that_change_hold_at_once(tmp_path: Path) -> None:
    one = Admission(tmp_path, "1")
    with one.enter(endpoint(concurrency=5), 1):
        assert refused(one, endpoint(concurrency=1))
        assert not refused(one, endpoint(concurrency=2))


def test_endpoints_without_limits_are_not_counted_at_all(tmp_path: Path) -> None:
    one, free = Admission(tmp_path, "1"), endpoint(timeout=5.0)
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(one.enter(free, 1000))
    assert one.enter(free, 1) is one.enter(endpoint("others"), 1)  # nothing is made for it
    (tmp_path / "1.board").unlink()
    tmp_path.rmdir()  # nothing is looked at
    with one.enter(free, 1):
        pass


def test_there_are_only_so_many_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOTS", 3)
    one, other = Admission(tmp_path, "1"), Admission(tmp_path, "2")
    for name in "abc":
        assert not refused(one, endpoint(name, concurrency=1))
    assert refused(one, endpoint("d", concurrency=1))
    with one.enter(endpoint("c", concurrency=1), 1):
        assert refused(other, endpoint("c", concurrency=1))
        assert not refused(one, endpoint("d"))


def test_what_lies_in_the_folder_beside_boards_hurts_nobody(tmp_path: Path) -> None:
    for name in ("9.board", "1.json", ".9.json.tmp", "8.new"):
        (tmp_path / name).write_bytes(b"x")
    one, pets = Admission(tmp_path, "1"), endpoint(concurrency=1)
    assert not refused(one, pets)
    with one.enter(pets, 1):
        assert refused(one, pets)


HAMMER = """
import contextlib, fcntl, mmap, os, random, sys
from pathlib import Path
from yunmo.core.errors import TooManyRequests
from yunmo.core.snapshot import Deployment, Limits, Variant
from yunmo.serving.admission import Admission

folder, name = Path(sys.argv[1]), sys.argv[2]
pets = Deployment("pets", "p", (Variant("m", 1, "d", "/d"),), Limits(concurrency=3, queue=7))
truth = open(folder / "truth", "r+b")
cells = memoryview(mmap.mmap(truth.fileno(), 48)).cast("q")  # requests, rows, their most, how many were let in, refused

def note(requests, rows):
    fcntl.flock(truth, fcntl.LOCK_EX)
    cells[0] += requests
    cells[1] += rows
    cells[2] = max(cells[2], cells[0])
    cells[3] = max(cells[3], cells[1])
    cells[4] += requests > 0
    fcntl.flock(truth, fcntl.LOCK_UN)

@contextlib.contextmanager
def inside(rows):
    with admission.enter(pets, rows):
        note(1, rows)
        try:
            yield
        finally:
            note(-1, -rows)

chance = random.Random(name)
for life in range(3):
    admission = Admission(folder / "workers", f"{name}-{life}")
    let_in = 0
    while let_in < 200:  # however often it is refused while another, who has its places, does not get a processor
        with contextlib.suppress(TooManyRequests), contextlib.ExitStack() as stack:
            for _ in range(chance.choice((1, 1, 2, 3))):
                stack.enter_context(inside(chance.choice((1, 2, 3))))
                let_in += 1
                if chance.random() < 0.1:
                    os.sched_yield()
    admission.close()
print(cells[4])
"""


def test_the_limit_is_never_passed_whoever_comes_and_goes(tmp_path: Path) -> None:
    (tmp_path / "truth").write_bytes(bytes(48))
    command = [sys.executable, "-c", HAMMER, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE) for number in range(4)]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    requests, rows, most_requests, most_rows, taken, _ = memoryview((tmp_path / "truth").read_bytes()).cast("q")
    assert (requests, rows) == (0, 0)
    assert most_requests <= 3
    assert most_rows <= 7
    assert taken >= 4 * 3 * 200
    assert most_requests == 3, "the limit was never reached, so nothing was shown"


HOLDER = """
import sys
from pathlib import Path
from yunmo.core.snapshot import Deployment, Limits, Variant
from yunmo.serving.admission import Admission

admission = Admission(Path(sys.argv[1]), "holder")
admission.enter(Deployment("pets", "p", (Variant("m", 1, "d", "/d"),), Limits(concurrency=1)), 1)
print("in", flush=True)
sys.stdin.read()
"""


def test_the_counts_of_a_killed_worker_go_with_its_file(tmp_path: Path) -> None:
    """Whose going is seen to by the supervisor."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    one, pets = Admission(tmp_path, "1"), endpoint(concurrency=1)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"in\n"
        assert refused(one, pets)
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    (tmp_path / "holder.board").unlink()
    assert not refused(one, pets)
