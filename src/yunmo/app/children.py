"""Child processes that are kept alive: started again when they die, later and later if they keep dying."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable

_FIRST_DELAY = 0.2
_LAST_DELAY = 10.0
_HEALTHY_SECONDS = 30.0
"""A child that lived so long is started again without delay."""

_logger = logging.getLogger("yunmo.supervisor")


class Child:
    """One child process.

    Args:
        name: for the log.
        command: program and arguments.
        gone: called with the process id and the exit status of each process that ended, before it is replaced.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        gone: Callable[[int, int], None] | None = None,
    ) -> None:
        self.name = name
        self.deaths = 0
        """How often it ended without being asked to."""
        self._command = command
        self._gone = gone
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def start(self) -> None:
        """Begin to keep it running."""
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self, timeout: float) -> None:
        """End it: SIGTERM, and SIGKILL after ``timeout`` seconds."""
        self._stopping.set()
        if self._task is None:
            return
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self._task)
        except TimeoutError:
            _logger.warning("killed, for it did not end in time", extra={"facts": {"child": self.name}})
            self.signal(signal.SIGKILL)
            await self._task

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self.pid is not None and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _keep(self) -> None:
        delay = 0.0
        while not self._stopping.is_set():
            began = time.monotonic()
            # A group of its own: Ctrl-C in the terminal is for the supervisor, which ends its children in order.
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
            self._end_if_stopping()  # `stop` may have come while it was being started
            pid = self._process.pid
            status = await self._process.wait()
            if self._gone is not None:
                self._gone(pid, status)
            if self._stopping.is_set():
                return
            self.deaths += 1
            healthy = time.monotonic() - began >= _HEALTHY_SECONDS
            delay = 0.0 if healthy else min(max(_FIRST_DELAY, delay * 2), _LAST_DELAY)
            _logger.error(
                "a process ended and is started again",
                extra={"facts": {"child": self.name, "pid": pid, "status": status, "delay": delay}},
            )
            await self._pause(delay)

    def _end_if_stopping(self) -> None:
        if self._stopping.is_set():
            self.signal(signal.SIGTERM)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
