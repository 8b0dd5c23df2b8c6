import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from tests.unit.control.service import Api, begin, ended, long, running, steps, wait_for

from yunmo.control.context import Context
from yunmo.core.events import EpochFinished, RunNotice

RUNNER = """
import sys, time
from pathlib import Path
from yunmo.control.context import open_context
from yunmo.control.jobs.runner import Runner
from yunmo.store.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]))
with open_context(workspace, workspace.settings()) as context:
    Runner(context).start()
    time.sleep(600)
"""


def epochs(context: Context, run_id: str) -> list[int]:
    events = context.events.read(subject=run_id, limit=10_000)
    return [each.event.epoch for each in events if isinstance(each.event, EpochFinished)]


def children_of(pid: int) -> list[psutil.Process]:
    found = []
    for each in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # dead since, or dead and not yet waited for
            if "yunmo.control.jobs.child" in " ".join(each.cmdline()):
                found.append(each)
    return found


def test_a_run_survives_cancelling_a_killed_child_and_a_stopped_runner(
    context: Context, api: Api, digits: Path
) -> None:
    with running(context):
        run_id = begin(api, digits, long(60), "label")
        wait_for(context, run_id, lambda _: len(epochs(context, run_id)) >= 2)
        api.post(f"/runs/{run_id}/cancel")
        assert wait_for(context, run_id, ended).status == "cancelled"
        assert not children_of(os.getpid())
        before = len(epochs(context, run_id))
        api.post(f"/runs/{run_id}/resume")
        wait_for(context, run_id, lambda _: len(epochs(context, run_id)) > before)
        [child] = children_of(os.getpid())
        child.kill()
        wait_for(context, run_id, lambda _: any(is_notice(each.event) for each in context.events.read(subject=run_id)))
        before = len(epochs(context, run_id))
        wait_for(context, run_id, lambda _: len(epochs(context, run_id)) > before)
    run = wait_for(context, run_id, lambda _: True)
    assert (run.status, run.attempt) == ("queued", 3)
    assert not children_of(os.getpid())
    with running(context):
        run = wait_for(context, run_id, ended)
    assert (run.status, run.version) == ("succeeded", 1), str(run.problem)
    assert epochs(context, run_id) == list(range(1, 61))


def test_a_run_whose_process_dies_twice_in_a_step_fails(context: Context, api: Api, digits: Path) -> None:
    with running(context):
        run_id = begin(api, digits, long(10_000), "label")
        killed: set[int] = set()
        for _ in range(2):
            wait_for(context, run_id, lambda _: bool({each.pid for each in children_of(os.getpid())} - killed))
            before = len(epochs(context, run_id))
            wait_for(context, run_id, lambda _, before=before: len(epochs(context, run_id)) > before)
            [child] = children_of(os.getpid())
            killed.add(child.pid)
            child.kill()
        run = wait_for(context, run_id, ended)
        assert run.status == "failed"
        assert run.problem is not None
        assert run.problem["code"] == "training_failed"
        assert "SIGKILL" in run.problem["detail"]
        assert "2 times in the step train" in run.problem["detail"]
        assert "batch_size" in run.problem["remedy"]
        assert not children_of(os.getpid())
        notices = [each for each in context.events.read(subject=run_id, limit=10_000) if is_notice(each.event)]
        assert len(notices) == 1


def is_notice(event: object) -> bool:
    return isinstance(event, RunNotice) and "SIGKILL" in event.message


def test_a_killed_runner_goes_on_where_it_was(context: Context, api: Api, digits: Path) -> None:
    run_id = begin(api, digits, long(60), "label")
    with subprocess.Popen([sys.executable, "-c", RUNNER, str(context.workspace.home)]) as runner:
        wait_for(context, run_id, lambda _: len(epochs(context, run_id)) >= 3)
        children = children_of(runner.pid)
        runner.send_signal(signal.SIGKILL)
    assert children
    end = time.monotonic() + 10
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
        assert time.monotonic() < end, "the child outlives its runner"
        time.sleep(0.05)
    with running(context):
        run = wait_for(context, run_id, ended)
    assert (run.status, run.version, run.attempt) == ("succeeded", 1, 1), str(run.problem)
    assert steps(context, run_id).count("prepare") == 1
    assert epochs(context, run_id) == list(range(1, 61))
    assert len(api.get("/models/digits").json()) == 1


def test_a_run_that_cannot_work_fails_with_file_field_and_remedy(context: Context, api: Api, table: Path) -> None:
    with running(context):
        run_id = begin(api, table, {}, "seasn")
        run = wait_for(context, run_id, ended)
    assert run.status == "failed"
    assert run.problem is not None
    assert run.problem["code"] == "invalid_data"
    assert run.problem["where"] == "flowers.csv"
    assert "season" in run.problem["remedy"]
    assert context.workspace.runs_folder(run_id).joinpath("data").exists() is False
