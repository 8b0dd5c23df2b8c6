"""Real data workers on hand-written snapshots: what foreign clients are let loose on."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import msgspec
from tests.fixtures.bundles import Kind, key_files, make_bundle

from yunmo.app.process import ChildArguments, child_command
from yunmo.app.sockets import Listening, reserve_port
from yunmo.bundle.files import bundle_digest
from yunmo.core.access import KeyRecord, Scope, new_key
from yunmo.core.settings import Settings
from yunmo.core.snapshot import Deployment, Role, Snapshot, Variant, WorkerState, encode_snapshot
from yunmo.monitoring.slots import forget_slots
from yunmo.store.workspace import Workspace


class Workers(AbstractContextManager["Workers"]):
    """Data workers without a control process: the test publishes snapshots itself."""

    module = "yunmo.app.worker"
    """What a worker runs."""

    def __init__(self, home: Path, *, count: int = 1, settings: Settings | None = None) -> None:
        self.workspace = Workspace(home)
        self.private, self.public = key_files(self.workspace.home)
        self.settings = settings or Settings()
        self.deployments: dict[str, Deployment] = {}
        self.keys: list[KeyRecord] = []
        self.number = 0
        self.key = self.add_key("admin")
        self._count = count
        self._stack = ExitStack()
        self._log: IO[bytes] | None = None
        self.processes: list[subprocess.Popen[bytes]] = []
        self.listening: Listening
        self.grpc: Listening

    def __enter__(self) -> Workers:
        self.listening = self._stack.enter_context(reserve_port("127.0.0.1", 0))
        self.grpc = self._stack.enter_context(reserve_port("127.0.0.1", 0))
        self._log = self._stack.enter_context(open(self.log_path, "ab"))
        self.publish()
        for _ in range(self._count):
            self.start_worker()
        self.wait(lambda: len(self.states()) == self._count and self.listening.accepts() and self.grpc.accepts())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        forget_slots(self.workspace.home)
        self._stack.close()

    @property
    def log_path(self) -> Path:
        return self.workspace.home / "workers.log"

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def url(self) -> str:
        return self.listening.url

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def start_worker(self) -> subprocess.Popen[bytes]:
        arguments = ChildArguments(
            self.workspace.home,
            self.settings,
            os.getpid(),
            self.workspace.control_socket,
            self.listening.address,
            self.listening.port,
            self.grpc.port,
        )
        process = subprocess.Popen(child_command(self.module, arguments), stderr=self._log)
        self.processes.append(process)
        return process

    def add_key(self, *scopes: Scope, endpoints: tuple[str, ...] | None = None) -> str:
        """Make a key; it is valid from the next `publish` on."""
        key, prefix, digest = new_key()
        name = f"key_{len(self.keys)}"
        self.keys.append(KeyRecord(name, "p", name, prefix, digest, scopes, endpoints))
        return key

    def bundle(
        self, name: str, *, kind: Kind = "table", always: str | None = None, seed: int = 0, breaks: bool = False
    ) -> Path:
        """Make a signed bundle."""
        folder = self.workspace.home / "made" / name
        make_bundle(folder, kind=kind, private_key=self.private, always=always, seed=seed, breaks=breaks)
        return folder

    def deploy(self, endpoint: str, folder: Path, version: int = 1, **more: Any) -> None:
        """Name a bundle for an endpoint in the next snapshot; ``more`` is of its `Deployment`: limits, sticky."""
        live = Variant(endpoint, version, bundle_digest(folder), str(folder))
        self.deployments[endpoint] = Deployment(endpoint, "p", (live,), **more)

    def beside(self, endpoint: str, folder: Path, version: int, role: Role, weight: int = 100) -> None:
        """Name a bundle that gets a part in an endpoint beside its live one: canary, shadow or standby."""
        deployment = self.deployments[endpoint]
        others = [each for each in deployment.variants[1:] if each.role != role]
        left = 100 - weight if role == "canary" else deployment.live.weight
        live = msgspec.structs.replace(deployment.live, weight=left)
        added = Variant(endpoint, version, bundle_digest(folder), str(folder), weight, role)
        self.deployments[endpoint] = msgspec.structs.replace(deployment, variants=(live, *others, added))

    def publish(self) -> int:
        """Publish the next snapshot."""
        self.number += 1
        snapshot = Snapshot(self.number, tuple(self.keys), tuple(self.deployments.values()), self.public)
        temporary = self.workspace.home / "snapshot.new"
        temporary.write_bytes(encode_snapshot(snapshot))
        temporary.replace(self.workspace.snapshot_path)
        return self.number

    def apply(self) -> None:
        """Publish, and wait until every worker has applied it."""
        number = self.publish()
        self.wait(lambda: bool(self.states()) and all(state.snapshot >= number for state in self.states()))

    def states(self) -> list[WorkerState]:
        alive = {process.pid for process in self.processes if process.poll() is None}
        found = []
        for path in self.workspace.workers_folder.glob("*.json"):
            state = msgspec.json.decode(path.read_bytes(), type=WorkerState)
            if state.pid in alive:
                found.append(state)
        return found

    def wait(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.log[-3000:]
            time.sleep(0.02)

    def kill(self, index: int = 0) -> None:
        """kill -9 a worker."""
        self.processes[index].send_signal(signal.SIGKILL)
        self.processes[index].wait()

    def connect(self, timeout: float = 10.0) -> socket.socket:
        """Open a bare connection."""
        return socket.create_connection((self.listening.address, self.listening.port), timeout=timeout)

    def http(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.listening.address, self.listening.port, timeout=20)
