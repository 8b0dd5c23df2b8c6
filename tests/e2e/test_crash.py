"""Whatever is killed in the middle of training: what goes on from the checkpoint ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.command import CHILD, RUNNER, Home, Process, Service, sha256, wait
from tests.fixtures.data import digits_npz

EPOCHS = 24


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """A training whose epochs are short enough for a test, and long enough to be hit."""
    folder = tmp_path_factory.mktemp("crash")
    train, test = digits_npz(folder / "digits.npz", 300), digits_npz(folder / "test.npz", 100, start=300)
    settings = [f"train.epochs={EPOCHS}", "train.batch_size=32", "train.early_stopping.patience=20"]
    return ["train", train, "--test", test, "--target", "label", *(f"--set={each}" for each in settings)]


def ending(home: Home, run_id: str) -> dict[str, Any]:
    """Return what must not depend on what happened on the way."""
    shown = home.ok("runs", "show", run_id, "--json").json
    assert shown["run"]["status"] == "succeeded", shown["run"]
    report = shown["report"]
    return {
        "weights": sha256(home.bundle(shown["run"]) / "weights.safetensors"),
        "summary": shown["run"]["summary"],
        "resolved": shown["run"]["resolved"],
        "history": [
            {key: value for key, value in each.items() if key != "seconds"} for each in report["training"]["history"]
        ],
    }


@pytest.fixture(scope="module")
def unbroken(arguments: list[object], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = Home(tmp_path_factory.mktemp("unbroken") / "home")
    found = ending(home, home.train(*arguments[1:])["run"]["id"])
    assert len(found["history"]) == EPOCHS
    return found


def kill_child(_: Home, train: Process) -> None:
    train.one(CHILD).kill()
    assert train.end().status == 0  # the same command goes on


def kill_command(home: Home, train: Process) -> None:
    child = train.one(CHILD)
    os.kill(train.pid, signal.SIGKILL)
    child.wait(30)  # it notices by itself
    resume(home)


def interrupt(home: Home, train: Process) -> None:
    train.signal(signal.SIGINT)
    answer = train.end()
    assert answer.status == 130
    assert answer.err.splitlines()[-1] == f"resume with: yunmo runs resume {the_run(home)['id']}"
    assert the_run(home)["status"] == "cancelled"
    assert train.processes() == []
    resume(home)


def the_run(home: Home) -> dict[str, Any]:
    (run,) = home.ok("runs", "ls", "--json").json
    found: dict[str, Any] = run
    return found


def resume(home: Home) -> None:
    home.ok("runs", "resume", the_run(home)["id"])


@pytest.mark.parametrize("accident", [kill_child, kill_command, interrupt], ids=lambda it: it.__name__)
def test_a_command_that_is_its_own_service(
    home: Home, arguments: list[object], unbroken: dict[str, Any], accident: Callable[[Home, Process], None]
) -> None:
    with home.started(*arguments, "--json") as train:
        run_id = train.until_epoch(3)
        accident(home, train)
    assert ending(home, run_id) == unbroken


def kill_runner(service: Service) -> None:
    service.process.one(RUNNER).kill()


def kill_all(service: Service) -> None:
    service.process.kill()


def kill_supervisor(service: Service) -> None:
    left = service.process.processes()
    os.kill(service.process.pid, signal.SIGKILL)
    wait(lambda: not any(each.is_running() for each in left), 30)  # nobody holds the port or the workspace


@pytest.mark.parametrize("accident", [kill_runner, kill_all, kill_supervisor], ids=lambda it: it.__name__)
def test_a_service(
    home: Home, arguments: list[object], unbroken: dict[str, Any], accident: Callable[[Service], None]
) -> None:
    with home.up() as service:
        with home.started(*arguments, "--json") as train:
            run_id = train.until_epoch(3)
        accident(service)
        if accident is kill_runner:  # the supervisor starts another
            wait(lambda: the_run(home)["status"] == "succeeded")
            assert service.stop() == 0
    if accident is not kill_runner:
        with home.up() as service:
            wait(lambda: the_run(home)["status"] == "succeeded")
            assert service.stop() == 0
    assert ending(home, run_id) == unbroken


def test_a_run_that_a_service_stops_for_goes_on_at_its_next_start(
    home: Home, arguments: list[object], unbroken: dict[str, Any]
) -> None:
    with home.up() as service:
        with home.started(*arguments, "--json") as train:
            run_id = train.until_epoch(3)
        assert service.stop() == 0
    home.ok("runs", "resume", run_id)  # by the command itself, without a service
    assert ending(home, run_id) == unbroken


def test_two_commands_at_once_end_well_both(home: Home, arguments: list[object], unbroken: dict[str, Any]) -> None:
    with home.started(*arguments, "--json") as first, home.started(*arguments, "--json") as second:
        # Both want the workspace at the same moment: one holds it, the other finds it and waits for its turn. When the
        # first has ended, and its session with it, the other goes on in a session of its own.
        answers = [first.end(), second.end()]
    assert [answer.status for answer in answers] == [0, 0], answers
    assert home.registered() == (["digits:1", "digits:2"], ["digits:1"])
    for answer in answers:
        assert ending(home, answer.lines[-1]["run"]["id"]) == unbroken


def test_a_second_service_is_refused(live: Service) -> None:
    message = live.home.refused("up", "--port", "0")
    assert f"held by process {live.process.pid}, which answers at {live.url}" in message
    assert live.curl("/healthz")["status"] == "ok"


def test_a_service_finds_its_port_taken(live: Service, tmp_path: Path) -> None:
    port = live.url.rsplit(":", 1)[1]
    assert port in Home(tmp_path / "other").refused("up", "--port", port)
