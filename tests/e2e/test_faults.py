"""Models that throw, hang and die in a running service: who waits is answered, who asks others does not notice."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psutil
import pytest
from tests.e2e.command import WORKER, Home, Service, wait
from tests.fixtures.bundles import make_bundle
from tests.fixtures.faults import Hang

from yunmo.bundle.archive import export
from yunmo.client.client import Client
from yunmo.core.snapshot import WorkerState
from yunmo.serving.marks import Mark, MarksFile
from yunmo.serving.quarantine import quarantine_path, read_record

FINE, BREAKS, HANGS = 30, 500, 2000
"""Ages that the bad model answers, throws at, and does not come to an end with."""
MANY = 40
"""Rows of a request that is too large for the event loop."""
MODEL = "yunmo.inference.isolated"
WORKERS = 2


@dataclass(frozen=True)
class Reply:
    """What a caller got: a status and a document, or (0) a connection that broke."""

    status: int
    body: Any

    @property
    def problem(self) -> tuple[int, str, str]:
        """What is wrong, if that is said as the native face says it."""
        assert set(self.body) <= {"type", "title", "status", "code", "detail", "where", "remedy", "instance"}, self
        assert self.body["status"] == self.status
        return self.status, self.body["code"], self.body["detail"]


class Caller(threading.Thread):
    """One request, or one after the other until it is told to stop, on one connection as long as that holds."""

    def __init__(self, service: Service, endpoint: str, age: int, *, rows: int = 1, forever: bool = False) -> None:
        super().__init__(daemon=True)
        self._service, self._endpoint = service, endpoint
        self._body = json.dumps([{"age": age, "city": "Berlin"}] * rows)
        self._enough = threading.Event()
        if not forever:
            self._enough.set()
        self.replies: list[Reply] = []
        self.start()

    def run(self) -> None:
        where = urlsplit(self._service.url)
        connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=100)
        while True:
            self.replies.append(self._ask(connection))
            if self._enough.is_set():
                connection.close()
                return

    def _ask(self, connection: http.client.HTTPConnection) -> Reply:
        headers = {"authorization": f"Bearer {self._service.home.key}", "content-type": "application/json"}
        try:
            connection.request("POST", f"/api/v1/endpoints/{self._endpoint}/predict", self._body, headers)
            answer = connection.getresponse()
            return Reply(answer.status, json.loads(answer.read()))
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return Reply(0, repr(error))

    def stop(self) -> list[Reply]:
        self._enough.set()
        self.join(100)
        assert not self.is_alive()
        return self.replies

    @property
    def reply(self) -> Reply:
        (one,) = self.stop()
        return one


@contextlib.contextmanager
def running(tmp_path: Path, *, hangs: Hang = "loop", **settings: str) -> Iterator[Service]:
    """A service of two workers with two endpoints, ``bad`` and ``good``."""
    environment = {"YUNMO_WORKERS": str(WORKERS), "YUNMO_DRAIN_TIMEOUT": "3"}
    home = Home(tmp_path / "home", environment | {f"YUNMO_{name.upper()}": value for name, value in settings.items()})
    with home.up() as service, Client(service.url, home.key) as client:
        key = home.path / "signing.key"
        make_bundle(tmp_path / "bad", name="bad", private_key=key, breaks=True, hangs=hangs)
        make_bundle(tmp_path / "good", name="good", private_key=key)
        for name in ("bad", "good"):
            export(tmp_path / name, tmp_path / f"{name}.zip")
            client.import_bundle(tmp_path / f"{name}.zip")
            client.deploy(f"{name}:1")
        yield service
        assert service.stop() == 0


@contextlib.contextmanager
def unnoticed(service: Service) -> Iterator[None]:
    """Have callers of the other endpoint all the while; none of their requests may fail."""
    callers = [Caller(service, "good", FINE, forever=True) for _ in range(4)]
    wait(lambda: all(caller.replies for caller in callers))
    yield
    counts = [len(caller.replies) for caller in callers]
    wait(lambda: all(len(caller.replies) > count + 20 for caller, count in zip(callers, counts, strict=True)))
    replies = [reply for caller in callers for reply in caller.stop()]
    assert [reply for reply in replies if reply.status != 200] == []
    assert len(replies) > 100


def states(service: Service) -> list[WorkerState]:
    found = []
    for process in service.process.processes(WORKER):
        with contextlib.suppress(FileNotFoundError):
            path = service.home.path / "run" / "workers" / f"{process.pid}.json"
            found.append(msgspec.json.decode(path.read_bytes(), type=WorkerState))
    return found


def pids(service: Service, module: str = WORKER) -> set[int]:
    return {each.pid for each in service.process.processes(module) if each.is_running() and each.status() != "zombie"}


def complete(service: Service, without: set[int] = frozenset()) -> bool:
    """Say whether every worker is there and answers for both endpoints."""
    found = states(service)
    ready = [state for state in found if len([each for each in state.endpoints.values() if each.loaded]) == 2]
    return len(ready) == WORKERS and not {state.pid for state in ready} & without


def isolated(state: WorkerState) -> set[str]:
    return {digest for endpoint in state.endpoints.values() for digest in endpoint.isolated}


def marks(service: Service) -> list[tuple[int, Mark]]:
    """Return what workers do with models just now."""
    found = []
    for process in service.process.processes(WORKER):
        with contextlib.suppress(OSError, ValueError):
            path = service.home.path / "run" / "workers" / f"{process.pid}.marks"
            found += [(process.pid, mark) for mark in MarksFile(path).read()]
    return found


def digest(service: Service, model: str) -> str:
    return str(service.home.ok("models", "show", f"{model}:1", "--json").json["digest"])


def busy(pid: int) -> Callable[[], bool]:
    """Return what says that a process has computed for a while since now."""
    process = psutil.Process(pid)
    before = process.cpu_times().user
    return lambda: process.cpu_times().user > before + 0.5


def answers(service: Service) -> None:
    """See to it that the bad model answers what it can answer, in every worker."""
    replies = [Caller(service, "bad", FINE).reply for _ in range(16)]
    assert [reply for reply in replies if reply.status != 200] == []


@pytest.mark.parametrize("isolate", ["always", "crashed"])
def test_a_model_that_throws_fails_its_own_requests_only(tmp_path: Path, isolate: str) -> None:
    with running(tmp_path, isolate=isolate) as service:
        before = pids(service) | pids(service, MODEL)
        with unnoticed(service):
            bad = [Caller(service, "bad", BREAKS) for _ in range(20)]
            fine = [Caller(service, "bad", FINE) for _ in range(20)]
            for caller in bad:
                assert caller.reply.problem == (
                    500,
                    "model_failed",
                    "the model could not compute an answer for this input",
                )
            assert {caller.reply.status for caller in fine} == {200}
        assert pids(service) | pids(service, MODEL) == before


@pytest.mark.parametrize("isolate", ["always", "crashed"])
def test_a_model_that_hangs_is_stopped_and_all_who_wait_are_answered(tmp_path: Path, isolate: str) -> None:
    with running(tmp_path, isolate=isolate, request_timeout="2") as service:
        before = pids(service)
        with unnoticed(service):
            hanging = [Caller(service, "bad", HANGS) for _ in range(4)]
            waiting = [Caller(service, "bad", FINE) for _ in range(20)]
            for caller in hanging:
                assert caller.reply.problem[:2] in ((504, "deadline_exceeded"), (500, "model_failed"))
            for caller in waiting:
                reply = caller.reply
                assert reply.status == 200 or reply.problem[1] in (
                    "deadline_exceeded",
                    "model_failed",
                    "too_many_requests",
                )
            wait(lambda: all(Caller(service, "bad", FINE).reply.status == 200 for _ in range(8)))
        assert pids(service) == before
        answers(service)


def test_a_model_that_dies_in_its_own_process_is_started_again(tmp_path: Path) -> None:
    with running(tmp_path, isolate="always", request_timeout="60") as service:
        before = pids(service)
        assert len(pids(service, MODEL)) == 2 * WORKERS
        with unnoticed(service):
            for number in (signal.SIGKILL, signal.SIGSEGV):
                computes = {pid: busy(pid) for pid in pids(service, f"{MODEL} ") if is_of(pid, "bad")}
                bad = Caller(service, "bad", HANGS)
                os.kill(first(computes), number)
                assert bad.reply.problem == (500, "model_failed", "the model's process ended")
                answers(service)
        assert pids(service) == before
        assert service.curl("/api/v1/endpoints/bad")["ready"] is True


def is_of(pid: int, model: str) -> bool:
    return psutil.Process(pid).cmdline()[-1] == model


def first(found: dict[int, Callable[[], bool]]) -> int:
    """Wait until something holds of one of several processes, and return that one."""
    wait(lambda: any(holds() for holds in found.values()))
    return next(pid for pid, holds in found.items() if holds())


def test_a_worker_that_a_model_ends_is_replaced_and_the_model_isolated_everywhere(tmp_path: Path) -> None:
    with running(tmp_path, request_timeout="60") as service:
        before, bad = pids(service), digest(service, "bad")
        assert pids(service, MODEL) == set()
        callers = [Caller(service, "good", FINE, forever=True) for _ in range(8)]
        wait(lambda: all(caller.replies for caller in callers))
        hanging = Caller(service, "bad", HANGS)
        wait(lambda: [mark.digest for _, mark in marks(service) if mark.digest == bad] == [bad])
        (victim,) = (pid for pid, mark in marks(service) if mark.digest == bad)
        # What a crash in the graph does to the process, done to it while the graph runs.
        os.kill(victim, signal.SIGSEGV)
        assert hanging.reply.status == 0  # in the worker itself nobody is left who could answer

        wait(lambda: complete(service, {victim}) and all(bad in isolated(state) for state in states(service)))
        for caller in callers:
            replies = caller.stop()
            # Nothing but connections to the worker that died broke, each once.
            assert [reply.status for reply in replies if reply.status != 200] in ([], [0])
        record = read_record(quarantine_path(service.home.path / "run" / "workers"))
        assert record.isolated.keys() == {bad} or record.isolated.keys() == {bad, digest(service, "good")}
        answers(service)

        # The second time the model dies alone.
        workers = pids(service)
        assert before - workers == {victim}
        with unnoticed(service):
            computes = {pid: busy(pid) for pid in pids(service, f"{MODEL} ") if is_of(pid, "bad")}
            again = Caller(service, "bad", HANGS)
            os.kill(first(computes), signal.SIGSEGV)
            assert again.reply.problem == (500, "model_failed", "the model's process ended")
            answers(service)
        assert pids(service) == workers
        live = service.curl("/api/v1/endpoints/bad")["live"]
        assert (live["ready"], live["isolated"]) == (True, True)


def test_a_run_that_cannot_be_stopped_costs_its_worker_which_drains_first(tmp_path: Path) -> None:
    with running(tmp_path, hangs="node", request_timeout="1") as service:
        before, bad = pids(service), digest(service, "bad")
        hanging = Caller(service, "bad", HANGS, rows=MANY)
        wait(lambda: bool(before - pids(service)))
        (victim,) = before - pids(service)
        assert hanging.reply.problem[:2] in ((504, "deadline_exceeded"), (500, "model_failed"))
        wait(lambda: complete(service, {victim}))
        record = read_record(quarantine_path(service.home.path / "run" / "workers"))
        assert record.isolated == {bad: "hung"}
        wait(lambda: all(bad in isolated(state) for state in states(service)))
        workers = pids(service)
        assert len(workers & before) == WORKERS - 1
        with unnoticed(service):
            reply = Caller(service, "bad", HANGS).reply  # now it costs its own process, and no worker
            assert reply.problem[:2] in ((504, "deadline_exceeded"), (500, "model_failed"))
            wait(lambda: all(Caller(service, "bad", FINE).reply.status == 200 for _ in range(8)))
        assert pids(service) == workers


def test_a_model_that_blocks_the_loop_costs_its_worker_once(tmp_path: Path) -> None:
    with running(tmp_path, hangs="node", request_timeout="60") as service:
        before, bad = pids(service), digest(service, "bad")
        hanging = Caller(service, "bad", HANGS)
        wait(lambda: any(mark.digest == bad for _, mark in marks(service)))
        ((victim, _),) = marks(service)
        assert hanging.reply.status == 0
        wait(lambda: complete(service, {victim}))
        assert read_record(quarantine_path(service.home.path / "run" / "workers")).isolated == {bad: "blocked"}
        assert len(pids(service) & before) == WORKERS - 1
        wait(lambda: all(bad in isolated(state) for state in states(service)))
        answers(service)


def test_a_worker_that_stands_still_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        before = pids(service)
        victim = min(before)
        os.kill(victim, signal.SIGSTOP)
        wait(lambda: victim not in pids(service))
        wait(lambda: complete(service, {victim}))
        assert len(pids(service) & before) == WORKERS - 1
        with unnoticed(service):
            answers(service)
        assert not quarantine_path(service.home.path / "run" / "workers").exists()  # no model is to blame
