"""Whether a data worker has come through: the same process, still answering, and no larger than it was."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import psutil
from tests.contract.harness import Workers

ROW = {"age": 3, "city": "Berlin"}
PREDICT = "/api/v1/endpoints/table/predict"
MEBIBYTE = 2**20
REPOSITORY = Path(__file__).parents[2]
INSIDE = (
    "Traceback",
    "site-packages",
    "/tmp",  # noqa: S108 (a word that must not occur)
    str(REPOSITORY),
    "yunmo.",
    "numpy",
    "np.",
    "simdjson",
    "msgspec",
    " at 0x",
)
"""Words of ours that no answer may have."""


class Watch:
    """Compares a worker with what it was when this was made."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._popen = workers.processes[0]
        self._process = psutil.Process(self._popen.pid)
        self.good()
        self._memory = self.memory
        self._descriptors = self._process.num_fds()

    @property
    def memory(self) -> int:
        """Bytes of memory that the worker has."""
        return int(self._process.memory_info().rss)

    def good(self) -> None:
        """Have a good request answered."""
        reply = httpx.post(self._workers.url + PREDICT, headers=self._workers.headers, json=ROW, timeout=60)
        assert reply.status_code == 200, reply.text

    def settled(self, *, memory: int = 48 * MEBIBYTE, descriptors: int = 8) -> None:
        """Hold the worker against what it was.

        Args:
            memory: bytes that it may have more; caches of libraries and threads' arenas need some.
            descriptors: that it may have open more.
        """
        assert self._popen.poll() is None, self._workers.log[-3000:]
        self.good()
        end = time.monotonic() + 60
        while self._process.num_fds() > self._descriptors + descriptors:
            assert time.monotonic() < end, f"{self._process.num_fds()} descriptors, {self._descriptors} at first"
            time.sleep(0.05)
        assert self.memory < self._memory + memory, f"{self.memory / MEBIBYTE} MiB, {self._memory / MEBIBYTE} at first"
        log = self._workers.log
        assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:5000]
        assert "request failed" not in log
