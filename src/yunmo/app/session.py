"""Where the command line works: a service by URL, the one that holds the workspace, or this very process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from yunmo.app.application import Application
from yunmo.app.sockets import private_socket
from yunmo.client.client import DEFAULT_TIMEOUT, Client
from yunmo.core.errors import Unavailable, WorkspaceBusy, YunmoError
from yunmo.serving.http import App, Receive, Scope, Send
from yunmo.serving.http1.server import Http1Server
from yunmo.serving.log import log_to_file
from yunmo.store.workspace import Lock, Workspace

if TYPE_CHECKING:
    from yunmo.control.context import Context
    from yunmo.control.jobs.runner import Runner

START_SECONDS = 60.0
LOG = "session.log"
"""File of the workspace with the log of services in this process: its standard error is the user's."""
_POLL_SECONDS = 0.05
_UNIX = "unix:"
_STARTS_WORK = re.compile(r"/api/v1/(runs|endpoints/[^/]+/jobs)(/[^/]+/resume)?", re.ASCII)


@contextlib.contextmanager
def open_session(home: Path, environment: Mapping[str, str] = os.environ) -> Iterator[Client]:
    """Give a client on the place where to work.

    That is the service at ``YUNMO_URL`` (with ``YUNMO_API_KEY``) if it is set; else the service that holds the
    workspace, with the workspace's own key; else this process, which then holds the workspace and runs the same
    services, the runner too, behind a private Unix socket until the block ends.

    Args:
        home: the workspace.
        environment: where ``YUNMO_URL`` and ``YUNMO_API_KEY`` are looked up.

    Raises:
        WorkspaceBusy: another process holds the workspace and answers nowhere, for as long as a start may take.
        Unavailable: the services do not start.
    """
    if url := environment.get("YUNMO_URL"):
        with Client(url, environment.get("YUNMO_API_KEY")) as client:
            yield client
        return
    workspace = Workspace(home)
    with contextlib.ExitStack() as stack:
        place = _address_or_lock(workspace, stack)
        if isinstance(place, str):
            yield stack.enter_context(_client_at(place, workspace))
            return
        socket = stack.enter_context(private_socket(_new_socket(workspace)))
        stack.enter_context(_in_process(workspace, socket))
        place.announce(f"{_UNIX}{socket}")
        # While this ends, others wait for the workspace instead of asking at a place that no longer answers.
        stack.callback(place.announce, None)
        yield stack.enter_context(_client_at(f"{_UNIX}{socket}", workspace))


def service_at(home: Path, environment: Mapping[str, str] = os.environ, *, timeout: float) -> Client | None:
    """Return a client on the service at ``YUNMO_URL``, or on the one that holds the workspace; None if there is none.

    Args:
        home: the workspace; it must be there unless ``YUNMO_URL`` is set.
        environment: where ``YUNMO_URL`` and ``YUNMO_API_KEY`` are looked up.
        timeout: seconds that an answer may take.
    """
    if url := environment.get("YUNMO_URL"):
        return Client(url, environment.get("YUNMO_API_KEY"), timeout=timeout)
    workspace = Workspace(home)
    address = workspace.service_address()
    return _client_at(address, workspace, timeout=timeout) if address else None


def _address_or_lock(workspace: Workspace, stack: contextlib.ExitStack) -> str | Lock:
    """Return where the workspace's holder answers, or the lock if nobody holds it.

    A holder without an address starts or ends right now, so it is waited for.
    """
    end = time.monotonic() + START_SECONDS
    while True:
        if address := workspace.service_address():
            return address
        try:
            return stack.enter_context(workspace.lock())
        except WorkspaceBusy:
            if time.monotonic() > end:
                raise
        time.sleep(_POLL_SECONDS)


def _new_socket(workspace: Workspace) -> Path:
    """Return a path that no session has used before, and remove what killed ones left.

    A server that takes its time to end removes its path once more when it has: that must not be the next one's.
    """
    folder = workspace.home / "run" / "session"
    for left_over in folder.glob("*.sock"):
        left_over.unlink(missing_ok=True)
    return folder / f"{secrets.token_hex(4)}.sock"


def _client_at(address: str, workspace: Workspace, *, timeout: float = DEFAULT_TIMEOUT) -> Client:
    key = workspace.workspace_key()
    if address.startswith(_UNIX):
        return Client("http://localhost", key, uds=address.removeprefix(_UNIX), timeout=timeout)
    return Client(address, key, timeout=timeout)


@contextlib.contextmanager
def _in_process(workspace: Workspace, socket: Path) -> Iterator[None]:
    """Run control, one data plane and, once there is a run to carry out, the runner in this process."""
    from yunmo.control.context import open_context

    with (
        log_to_file(workspace.home / LOG),
        open_context(workspace, workspace.settings()) as context,
        _RunnerWhenNeeded(context) as runner,
    ):
        server = _ServerThread(context, workspace, socket, runner)
        server.start()
        try:
            server.wait_ready()
            yield
        finally:
            server.stop()


class _RunnerWhenNeeded:
    """A runner that is started by the first request for a run: looking at a workspace must not set training off."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._starting = threading.Lock()
        self._runner: Runner | None = None

    def __enter__(self) -> _RunnerWhenNeeded:
        return self

    def __exit__(self, *_: object) -> None:
        with self._starting:
            if self._runner is not None:
                self._runner.stop()

    def start(self) -> None:
        from yunmo.control.jobs.runner import Runner

        with self._starting:
            if self._runner is None:
                runner = Runner(self._context)
                runner.start()
                self._runner = runner

    def before(self, control: App) -> App:
        """Return control with the runner started before a request that starts or resumes a run or job."""

        async def started(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["method"] == "POST" and _STARTS_WORK.fullmatch(scope["path"]):
                await asyncio.to_thread(self.start)
            await control(scope, receive, send)

        return started


class _ServerThread(threading.Thread):
    """The event loop and server of a session."""

    def __init__(self, context: Context, workspace: Workspace, socket: Path, runner: _RunnerWhenNeeded) -> None:
        super().__init__(name="yunmo-session", daemon=True)
        self._runner = runner
        self._context = context
        self._workspace = workspace
        self._socket = socket
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Http1Server | None = None

    def run(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        from yunmo.control.rest.app import create_app

        control = create_app(self._context)
        settings = self._context.settings
        state = self._workspace.workers_folder / f"{os.getpid()}.json"
        application = Application(self._workspace.snapshot_path, state, settings, self._runner.before(control))
        self._loop = asyncio.get_running_loop()
        self._server = Http1Server(
            application.handle, uds=self._socket, refused=application.refused, activity=application.activity
        )
        async with control.router.lifespan_context(control):
            await application.start()
            watch = asyncio.ensure_future(self._tell_when_ready())
            try:
                await self._server.serve()
            finally:
                watch.cancel()
                await application.stop()

    async def _tell_when_ready(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_unix_connection(str(self._socket))
                writer.close()
                self._ready.set()
                return
            await asyncio.sleep(0.01)

    def wait_ready(self) -> None:
        """Return when requests are answered.

        Raises:
            YunmoError: what kept the services from starting.
        """
        in_time = self._ready.wait(START_SECONDS)
        if isinstance(self._error, YunmoError):
            raise self._error
        if not in_time or self._error is not None:
            raise Unavailable("the session's services do not start") from self._error

    def stop(self) -> None:
        if self._loop is not None and self._server is not None and self.is_alive():
            self._loop.call_soon_threadsafe(self._server.stop)
            self.join(self._context.settings.drain_timeout)
