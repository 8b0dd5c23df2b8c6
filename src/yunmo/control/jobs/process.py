"""The runner's side of a run's child process: starting it, giving it steps, ending it."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from yunmo.core.errors import Cancelled, TrainingFailed, from_problem
from yunmo.core.events import AnyEvent

_POLL_SECONDS = 0.2
_CANCEL_SECONDS = 60.0
"""How long a step may take to stop before its process is killed; it loses no more than the epoch it is in."""

Emit = Callable[[AnyEvent], None]


def training_environment(cores: int) -> dict[str, str]:
    """Return the environment of a process that trains.

    Args:
        cores: processor cores it may use.
    """
    return {
        **os.environ,
        # Idle threads sleep: spinning ones slow down everything else on shared cores.
        "OMP_WAIT_POLICY": "passive",
        "OMP_NUM_THREADS": str(cores),
        "MKL_NUM_THREADS": str(cores),
        "OPENBLAS_NUM_THREADS": str(cores),
        # Keep freed memory for the next step instead of giving it back to the kernel (glibc): every step of a
        # network takes and frees the same large blocks, and fresh pages cost up to 40 % of the time.
        "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
        "MALLOC_TOP_PAD_": str(256 << 20),
    }


class ChildDied(Exception):
    """The child ended without an answer: killed, or out of memory."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def reason(self) -> str:
        """Say how it ended."""
        if self.code < 0:
            with contextlib.suppress(ValueError):
                return f"was killed ({signal.Signals(-self.code).name})"
        return f"ended with status {self.code}"


class Child:
    """One child process, for one run or job.

    Args:
        folder: the run's or job's, with its order in it.
        log: file that gets what the child writes to stderr.
        cores: processor cores it may use.
        kind: what it works on, as ``child.KINDS`` names it.
    """

    def __init__(self, folder: Path, log: Path, cores: int, kind: str) -> None:
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "yunmo.control.jobs.child", str(folder), kind],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=training_environment(cores),
                # Not in the terminal's process group: Ctrl-C is the runner's to handle.
                start_new_session=True,
            )
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, name="yunmo-child-reader", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def step(self, step: str, emit: Emit, cancelled: Callable[[], bool]) -> dict[str, Any]:
        """Have a step done and return its result.

        Args:
            step: one of its kind's.
            emit: gets the step's events as they come.
            cancelled: asked a few times a second; True stops the step.

        Raises:
            YunmoError: what the step raised.
            Cancelled: ``cancelled`` said so.
            ChildDied: the child ended without an answer.
        """
        self._send({"step": step})
        deadline: float | None = None
        while True:
            try:
                line = self._lines.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if deadline is None and cancelled():
                    self._send({"cancel": True})
                    deadline = time.monotonic() + _CANCEL_SECONDS
                if deadline is not None and time.monotonic() > deadline:
                    self.end()
                    raise Cancelled("stopped; the step did not end by itself") from None
                continue
            if line is None:
                raise ChildDied(self._process.wait())
            message = msgspec.json.decode(line)
            if "event" in message:
                emit(msgspec.convert(message["event"], AnyEvent))
                if deadline is None and cancelled():
                    self._send({"cancel": True})
                    deadline = time.monotonic() + _CANCEL_SECONDS
            elif "problem" in message:
                raise from_problem(message["problem"])
            else:
                result: dict[str, Any] = message["result"]
                return result

    def end(self) -> None:
        """End the child, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _send(self, command: dict[str, Any]) -> None:
        if self._process.stdin is None:
            raise TrainingFailed("the training process has no input")
        with contextlib.suppress(BrokenPipeError):  # it died: the reader tells
            self._process.stdin.write(msgspec.json.encode(command) + b"\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        if self._process.stdout is not None:
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put(None)
