"""Where the benchmarks keep things, and how they give up."""

from __future__ import annotations

import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
CACHE_VARIABLE = "YUNMO_BENCH_CACHE"


class Failed(Exception):
    """The benchmark cannot go on; the message says why and what to do."""


def cache_folder() -> Path:
    """Return the folder of environments, models and compiled programs; it may be removed at any time."""
    folder = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache/yunmo-bench")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition.

    Raises:
        Failed: it did not come true in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds:g} seconds")
        time.sleep(0.05)


def answers(url: str) -> bool:
    """Say whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:  # noqa: S310 - an http URL of ours
            return bool(reply.status == 200)
    except (OSError, urllib.error.URLError):
        return False
