"""What every child process of the service does alike: dies with its parent, reads its arguments, ends in time."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import uvloop

from yunmo.core.settings import Settings
from yunmo.serving.log import configure_log

_PR_SET_PDEATHSIG = 1
_EXIT_GRACE = 2.0


@dataclass(frozen=True, slots=True)
class ChildArguments:
    """What the supervisor tells a child."""

    home: Path
    settings: Settings
    parent: int
    control_socket: Path
    address: str
    port: int
    grpc_port: int | None = None
    """None: no gRPC."""


def child_command(module: str, arguments: ChildArguments) -> list[str]:
    """Return the command line that starts a child; `child_arguments` reads it there."""
    return [
        sys.executable,
        "-m",
        module,
        f"--home={arguments.home}",
        f"--settings={msgspec.json.encode(arguments.settings).decode()}",
        f"--parent={arguments.parent}",
        f"--control-socket={arguments.control_socket}",
        f"--address={arguments.address}",
        f"--port={arguments.port}",
        *([] if arguments.grpc_port is None else [f"--grpc-port={arguments.grpc_port}"]),
    ]


def child_arguments() -> ChildArguments:
    """Read this child's command line, set up its log, and bind its life to its parent's."""
    parser = argparse.ArgumentParser(description="A part of the Yunmo service; `yunmo up` starts it.")
    for name in ("home", "settings", "control-socket", "address"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("parent", "port"):
        parser.add_argument(f"--{name}", required=True, type=int)
    parser.add_argument("--grpc-port", type=int)
    given = parser.parse_args()
    settings = msgspec.json.decode(given.settings, type=Settings)
    configure_log(settings.log_level)
    os.umask(0o077)
    die_with_parent(given.parent)
    return ChildArguments(
        Path(given.home),
        settings,
        given.parent,
        Path(given.control_socket),
        given.address,
        given.port,
        given.grpc_port,
    )


def die_with_parent(parent: int) -> None:
    """Have this process get SIGTERM when its parent ends, however that ends (also by kill -9).

    Args:
        parent: process id of the parent; if it is gone already, this process ends here.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        sys.exit(0)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def exit_within(seconds: float) -> None:
    """End this process for good after some seconds, whatever it may be stuck in by then."""
    timer = threading.Timer(seconds + _EXIT_GRACE, os._exit, (1,))
    timer.daemon = True
    timer.start()


def allow_many_connections() -> None:
    """Raise the limit of open files to what the system lets this user have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def serve_until_signal(serve: Callable[[], Awaitable[None]], stop: Callable[[], None], drain_timeout: float) -> None:
    """Run a server's coroutine; SIGTERM or SIGINT calls ``stop`` and bounds the time that is left."""

    def interrupted() -> None:
        exit_within(drain_timeout)
        stop()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, interrupted)
        await serve()

    uvloop.run(main())
