"""``yunmo up``: the process tree. One control process, one runner, N data workers, kept alive and ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from yunmo.app.children import Child
from yunmo.app.process import ChildArguments, child_command
from yunmo.app.sockets import Listening, private_socket, reserve_port
from yunmo.app.watch import BLOCKED_LOOKS, LOOK_SECONDS, Watch
from yunmo.client.client import Client
from yunmo.core.errors import Conflict, Unavailable
from yunmo.core.settings import Settings
from yunmo.core.snapshot import WorkerState
from yunmo.monitoring.slots import forget_slots
from yunmo.monitoring.traces import check_installed
from yunmo.serving.log import configure_log
from yunmo.store.workspace import Workspace

START_SECONDS = 120.0
MAX_DEATHS = 3
"""A process that dies so often before the service is ready will not get well by itself."""
_EXTRA_SECONDS = 5.0

_logger = logging.getLogger("yunmo.supervisor")

Ready = Callable[[str, int | None, str | None], None]
"""Called once when the service answers: its URL, its gRPC port, and the first key if it was made at this very start."""


def up(
    home: Path,
    *,
    host: str | None = None,
    port: int | None = None,
    grpc_port: int | None = None,
    as_json: bool = False,
) -> int:
    """Run the service and say on standard output where it answers; the body of ``yunmo up``.

    Args:
        home: the workspace.
        host: over the setting of that name.
        port: over the setting of that name.
        grpc_port: over the setting of that name; where ``port`` is 0, so is this if it is not given.
        as_json: say it as one JSON object a line.

    Returns:
        The exit status: 0 once it was told to stop.

    Raises:
        YunmoError: as `run_service`.
    """
    settings = Workspace(home).settings()
    if host is not None:
        settings = msgspec.structs.replace(settings, host=host)
    if port is not None:
        settings = msgspec.structs.replace(settings, port=port)
    if grpc_port is None and port == 0 and settings.grpc_port is not None:
        grpc_port = 0
    if grpc_port is not None:
        settings = msgspec.structs.replace(settings, grpc_port=grpc_port)

    def ready(url: str, grpc_port: int | None, key: str | None) -> None:
        if as_json:
            said = {"url": url, "grpc_port": grpc_port, "key": key, "pid": os.getpid()}
            text = msgspec.json.encode(said).decode()
        else:
            grpc = f", gRPC: port {grpc_port}" if grpc_port is not None else ""
            text = f"Yunmo answers at {url} (documentation: {url}/docs{grpc}). Ctrl-C ends it."
            if key is not None:
                text += f"\nYour first key, shown this once: {key}"
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    run_service(home, settings, ready)
    return 0


def run_service(home: Path, settings: Settings, ready: Ready) -> None:
    """Run the service until SIGTERM or SIGINT; a second signal ends it at once.

    Args:
        home: the workspace.
        settings: those of the workspace, with what the command line said over them.
        ready: called when it answers.

    Raises:
        WorkspaceBusy: another process holds the workspace.
        MissingExtra: the settings ask for something that is not installed.
        Unavailable: the port is in use, or a process of the service does not start; its log says why.
    """
    if settings.traces is not None:
        check_installed()
    configure_log(settings.log_level)
    os.umask(0o077)
    workspace = Workspace(home)
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(workspace.lock())
        listening = stack.enter_context(reserve_port(settings.host, settings.port))
        grpc_port = None
        if settings.grpc_port is not None:
            grpc_port = stack.enter_context(reserve_port(settings.host, settings.grpc_port, option="--grpc-port")).port
        control_socket = stack.enter_context(private_socket(workspace.control_socket))
        arguments = ChildArguments(
            workspace.home, settings, os.getpid(), control_socket, listening.address, listening.port, grpc_port
        )

        def announce() -> None:
            lock.announce(listening.url)
            ready(listening.url, grpc_port, _first_key(listening.url, workspace))

        asyncio.run(_Service(workspace, arguments, announce).run())


def _first_key(url: str, workspace: Workspace) -> str | None:
    """Return the secret of an installation's first key, None if it was made at an earlier start."""
    with Client(url, workspace.workspace_key()) as client:
        try:
            return client.create_first_key().secret
        except Conflict:
            return None


def worker_count(settings: Settings) -> int:
    """Return how many data workers there are: as set, else one per core that this process may use."""
    return settings.workers or len(os.sched_getaffinity(0))


class _Service:
    def __init__(self, workspace: Workspace, arguments: ChildArguments, announce: Callable[[], None]) -> None:
        self._workspace = workspace
        self._socket = arguments.control_socket
        ports = (arguments.port, arguments.grpc_port)
        self._listening = [Listening(arguments.address, port) for port in ports if port is not None]
        self._settings = arguments.settings
        self._announce = announce
        self._stop = asyncio.Event()
        self._signals = 0

        self._control = Child("control", child_command("yunmo.app.control_process", arguments))
        self._runner = Child("runner", child_command("yunmo.app.runner_process", arguments))
        self._workers = [
            Child(f"worker-{number}", child_command("yunmo.app.worker", arguments), gone=self._forget_worker)
            for number in range(worker_count(self._settings))
        ]
        self._watch = Watch(workspace.workers_folder)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._interrupted)
        for left_over in self._workspace.workers_folder.glob("*.*"):
            left_over.unlink(missing_ok=True)
        forget_slots(self._workspace.home)
        try:
            self._control.start()
            await self._until(self._control_published, [self._control])
            for each in (*self._workers, self._runner):
                each.start()
            await self._until(self._workers_ready, [*self._workers, self._runner])
            if not self._stop.is_set():
                self._announce()
            await self._watch_workers()
        finally:
            await self._end()

    async def _watch_workers(self) -> None:
        """End workers that are blocked, so that others take their places, until the service is to end."""
        while not self._stop.is_set():
            blocked = self._watch.look([worker.pid for worker in self._workers if worker.pid is not None])
            for worker in self._workers:
                if worker.pid in blocked:
                    facts = {"child": worker.name, "pid": worker.pid, "seconds": BLOCKED_LOOKS * LOOK_SECONDS}
                    _logger.error("a worker is blocked and is killed", extra={"facts": facts})
                    worker.signal(signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), LOOK_SECONDS)

    def _interrupted(self) -> None:
        self._signals += 1
        self._stop.set()
        if self._signals > 1:
            for each in (*self._workers, self._runner, self._control):
                each.signal(signal.SIGKILL)

    async def _end(self) -> None:
        """End the workers and the runner, then control: requests in flight may need it to the last."""
        patience = self._settings.drain_timeout + _EXTRA_SECONDS
        runner = self._runner.stop(patience + self._settings.drain_timeout)
        await asyncio.gather(runner, *(worker.stop(patience) for worker in self._workers))
        await self._control.stop(patience)
        forget_slots(self._workspace.home)

    async def _until(self, condition: Callable[[], bool], children: list[Child]) -> None:
        end = time.monotonic() + START_SECONDS
        while not condition() and not self._stop.is_set():
            for child in children:
                if child.deaths >= MAX_DEATHS:
                    raise Unavailable(f"the {child.name} process does not start", remedy="Its output above says why")
            if time.monotonic() > end:
                raise Unavailable(
                    f"the service is not ready after {START_SECONDS:g} seconds", remedy="See its output above"
                )
            await asyncio.sleep(0.05)

    def _control_published(self) -> bool:
        return self._workspace.snapshot_path.exists() and _answers(self._socket)

    def _workers_ready(self) -> bool:
        states = map(self._state, self._workers)
        loaded = all(state is not None and state.snapshot >= 0 for state in states)
        return loaded and all(each.accepts() for each in self._listening)

    def _state(self, worker: Child) -> WorkerState | None:
        try:
            data = (self._workspace.workers_folder / f"{worker.pid}.json").read_bytes()
            return msgspec.json.decode(data, type=WorkerState)
        except (OSError, msgspec.MsgspecError):
            return None

    def _forget_worker(self, pid: int, status: int) -> None:
        if not self._stop.is_set():
            self._watch.died(pid, status)
        for left_over in self._workspace.workers_folder.glob(f"{pid}.*"):
            with contextlib.suppress(OSError):
                left_over.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    """Say whether a process accepts connections on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True
