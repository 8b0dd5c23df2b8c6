"""``yunmo up`` as a process tree: what starts, what it holds in memory, and what survives what."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.fixtures.bundles import make_bundle, table_rows

from yunmo.app.session import open_session
from yunmo.bundle.archive import export
from yunmo.client.client import Client
from yunmo.core.errors import NotFound, Unavailable, WorkspaceBusy
from yunmo.store.workspace import Workspace

UP = "import sys; from pathlib import Path; from yunmo.app.supervisor import up; "
UP += "sys.exit(up(Path(sys.argv[1]), port=int(sys.argv[2]), as_json=True))"
LIMIT_MB = 70


class Service:
    """A running ``yunmo up``."""

    def __init__(self, home: Path) -> None:
        self.home = home
        environment = {**os.environ, "YUNMO_WORKERS": "2", "YUNMO_DRAIN_TIMEOUT": "5"}
        self._log = open(home.parent / "up.log", "ab")  # noqa: SIM115 (closed by `close`)
        self.process = subprocess.Popen(
            [sys.executable, "-c", UP, str(home), "0"],
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log
        started = json.loads(line)
        self.url: str = started["url"]
        self.first_key: str | None = started["key"]

    @property
    def log(self) -> str:
        return (self.home.parent / "up.log").read_text()

    @property
    def client(self) -> Client:
        return Client(self.url, Workspace(self.home).workspace_key(), timeout=30)

    def children(self) -> dict[int, str]:
        """Return the process ids of the service's processes with the modules that they run."""
        found = {}
        for line in subprocess.run(
            ["/bin/ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
        ).stdout.splitlines():
            pid, parent, *words = line.split()
            if parent == str(self.process.pid) and "-m" in words:
                found[int(pid)] = words[words.index("-m") + 1].removeprefix("yunmo.app.")
        return found

    def one(self, module: str) -> int:
        return next(pid for pid, name in self.children().items() if name == module)

    def close(self) -> int:
        self.process.terminate()
        try:
            status = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        return status


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("up") / "home")
    yield service
    service.close()


def deploy(service: Service, always: str) -> None:
    """Import a signed bundle and deploy it as ``pets``."""
    folder = service.home.parent / f"bundle-{always}"
    make_bundle(folder, name="pets", private_key=service.home / "signing.key", always=always)
    file = folder.with_suffix(".yunmo")
    export(folder, file)
    with service.client as client:
        version = client.import_bundle(file)
        client.deploy(f"pets:{version.version}", "pets")


def predicts(service: Service) -> str:
    with service.client as client:
        return str(client.predict("pets", table_rows()[:1])[0]["label"]["value"])


def test_the_first_key_is_shown_and_opens_the_service(service: Service) -> None:
    assert service.first_key
    assert httpx.get(f"{service.url}/api/v1/models").status_code == 401
    headers = {"authorization": f"Bearer {service.first_key}"}
    assert httpx.get(f"{service.url}/api/v1/models", headers=headers).json() == []
    assert service.first_key not in service.log


def test_control_cannot_be_reached_past_the_gate(service: Service) -> None:
    forged = {"x-yunmo-principal": "eyJrZXlfaWQiOiJ4In0="}
    assert httpx.get(f"{service.url}/api/v1/keys", headers=forged).status_code == 401
    socket = service.home / "run" / "control.sock"
    assert socket.stat().st_mode & 0o777 == 0o600
    assert socket.parent.stat().st_mode & 0o777 == 0o700


def test_data_workers_stay_small_and_map_neither_torch_nor_sqlalchemy(service: Service) -> None:
    workers = [pid for pid, name in service.children().items() if name == "worker"]
    assert len(workers) == 2
    for pid in workers:
        maps = Path(f"/proc/{pid}/maps").read_text()
        for heavy in ("torch", "sqlalchemy", "pydantic", "onnxruntime"):
            assert heavy not in maps
        assert megabytes(pid, "VmRSS") < LIMIT_MB


def megabytes(pid: int, what: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(what)) / 1024


def test_an_upload_passes_through_without_being_held_in_memory(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "large.bin"
    with open(file, "wb") as writer:
        writer.truncate(300 * 2**20)
    before = {pid: megabytes(pid, "VmHWM") for pid in service.children()}
    with service.client as client:
        assert client.upload(file).size == 300 * 2**20
    for pid, name in service.children().items():
        assert megabytes(pid, "VmHWM") - before[pid] < 60, name


def test_controls_problems_reach_the_client_as_they_are(service: Service) -> None:
    with service.client as client, pytest.raises(NotFound, match="run_none"):
        next(client.events("run_none"))


def test_no_process_of_the_service_has_torch_mapped(service: Service) -> None:
    for pid in service.children():
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()


def test_a_data_worker_does_not_import_what_it_must_not() -> None:
    code = "import sys, yunmo.app.worker, yunmo.serving.deployments; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "sqlalchemy", "dbos", "fastapi", "pydantic", "httpx", "onnxruntime"}
    assert heavy.isdisjoint(modules)


def test_a_deployed_model_answers_and_a_rollout_is_told_when_done(service: Service) -> None:
    deploy(service, "cat")
    assert predicts(service) == "cat"
    deploy(service, "dog")
    assert [predicts(service) for _ in range(8)] == ["dog"] * 8
    with service.client as client:
        client.rollback("pets")
    assert [predicts(service) for _ in range(8)] == ["cat"] * 8


def test_with_control_killed_predictions_go_on_and_it_comes_back(service: Service) -> None:
    control = service.one("control_process")
    os.kill(control, signal.SIGKILL)
    for _ in range(20):
        assert predicts(service) == "cat"

    def recovered() -> bool:
        try:
            with service.client as client:
                return bool(client.models())
        except Unavailable:
            return False

    until(recovered)
    assert service.one("control_process") != control


def test_a_killed_worker_and_a_killed_runner_come_back(service: Service) -> None:
    worker, runner = service.one("worker"), service.one("runner_process")
    os.kill(worker, signal.SIGKILL)
    os.kill(runner, signal.SIGKILL)
    until(lambda: sorted(service.children().values()).count("worker") == 2)
    until(lambda: "runner_process" in service.children().values())
    folder = Workspace(service.home).workers_folder
    until(lambda: {int(path.stem) for path in folder.glob("*.json")} == set(pids(service, "worker")))
    for _ in range(10):
        assert predicts(service) == "cat"


def pids(service: Service, module: str) -> list[int]:
    return [pid for pid, name in service.children().items() if name == module]


def test_a_second_service_on_the_workspace_is_refused_and_a_session_uses_the_first(service: Service) -> None:
    second = subprocess.run(
        [sys.executable, "-c", UP, str(service.home), "0"], capture_output=True, text=True, check=False, timeout=60
    )
    assert second.returncode != 0
    assert service.url in second.stderr
    with open_session(service.home, {}) as client:
        assert client.url == service.url
        assert [each.name for each in client.endpoints()] == ["pets"]
    with pytest.raises(WorkspaceBusy), Workspace(service.home).lock():
        pass


def test_a_port_in_use_is_a_clear_error(service: Service, tmp_path: Path) -> None:
    port = service.url.rpartition(":")[2]
    second = subprocess.run(
        [sys.executable, "-c", UP, str(tmp_path / "home"), port],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert second.returncode != 0
    assert f"{port}: the port is in use" in second.stderr


def test_kill_9_of_the_supervisor_leaves_nobody_behind_and_the_next_start_is_clean(service: Service) -> None:
    children = service.children()
    assert len(children) == 4
    service.process.kill()
    service.process.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
    again = Service(service.home)
    try:
        assert again.first_key is None
        assert predicts(again) == "cat"
    finally:
        assert again.close() == 0
    assert list(Workspace(service.home).workers_folder.glob("*.json")) == []
    assert Workspace(service.home).holder() is None
