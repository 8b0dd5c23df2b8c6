import os
import signal
import time
from collections.abc import Callable

import pytest

from yunmo.control.jobs.forked import Forked
from yunmo.core.errors import DataError, InternalError

Say = Callable[[object], None]


def later(seconds: float = 30.0) -> float:
    return time.monotonic() + seconds


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_fork_tells_what_it_finds_and_ends() -> None:
    def work(say: Say) -> None:
        say({"pid": os.getpid()})
        say([1, 2])

    fork = Forked(work)
    told = fork.wait(later())
    assert told[0]["pid"] != os.getpid()
    assert told[1] == [1, 2]
    assert fork.status == 0
    assert gone(told[0]["pid"])


def test_one_that_takes_too_long_is_ended_and_keeps_what_it_told() -> None:
    def work(say: Say) -> None:
        say(os.getpid())
        time.sleep(60)

    fork = Forked(work)
    # It has told something, so that there is no more patience than until now.
    (pid,) = fork.wait(0.0, later())
    assert fork.status is None
    assert gone(pid)


def test_errors_come_over_whole_and_defects_as_such() -> None:
    def wrong(_: Say) -> None:
        raise DataError("no rows", where="a.csv", remedy="Add some")

    def defect(_: Say) -> None:
        raise KeyError("x")

    with pytest.raises(DataError) as error:
        Forked(wrong).wait(later())
    assert (error.value.message, error.value.where, error.value.remedy) == ("no rows", "a.csv", "Add some")
    with pytest.raises(InternalError, match="KeyError"):
        Forked(defect).wait(later())


def test_a_look_finds_errors_early_and_ends_nothing() -> None:
    def wrong(_: Say) -> None:
        raise DataError("no rows")

    def slow(say: Say) -> None:
        time.sleep(0.2)
        say(1)

    with pytest.raises(DataError):
        Forked(wrong).look(30.0)
    fork = Forked(slow)
    fork.look(0.0)
    assert fork.told == []
    fork.look(30.0)
    assert fork.wait(later()) == [1]
    assert fork.status == 0


def test_one_that_is_killed_says_by_what() -> None:
    def work(_: Say) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    fork = Forked(work)
    assert fork.wait(later()) == []
    assert fork.status == -signal.SIGKILL
