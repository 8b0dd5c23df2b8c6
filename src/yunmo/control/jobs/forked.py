"""Work in a fork of this process, which may be ended at any time: what it told by then is kept.

A fork has the libraries that were imported before, so that trying something takes no second import of torch. It must
not be made after threads were: of torch, only what is imported may have been used before.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

import msgspec

from yunmo.core.errors import InternalError, YunmoError, from_problem, problem

_logger = logging.getLogger("yunmo.run")
_PORTION = 65_536

Say = Callable[[Any], None]


class Forked:
    """A fork that does some work.

    Args:
        work: gets a function that tells something, as JSON.
    """

    def __init__(self, work: Callable[[Say], None]) -> None:
        self.told: list[Any] = []
        """What it said so far."""
        self.status: int | None = None
        """How it ended by itself: 0, or the negative number of a signal; None: it was ended, or goes on."""
        reader, writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(reader)
            _work(work, writer)
        os.close(writer)
        self._reader = reader
        self._rest = b""
        self._problem: dict[str, Any] | None = None

    def wait(self, until: float, patience: float | None = None) -> list[Any]:
        """Wait for its end, and end it when the time is over.

        Args:
            until: as `time.monotonic` counts.
            patience: until when it may go on if it has told nothing yet; None: no longer.

        Returns:
            What it told.

        Raises:
            YunmoError: what it raised.
        """
        try:
            while self._read(until if self.told or patience is None else max(until, patience)):
                pass
        finally:
            self.kill()
        self._raise()
        return self.told

    def look(self, seconds: float) -> None:
        """Wait a while for the first that it tells.

        Raises:
            YunmoError: what it raised.
        """
        until = time.monotonic() + seconds
        while not self.told and self._read(until):
            pass
        self._raise()

    def _read(self, until: float) -> bool:
        """Take what comes next; say whether more may come in time."""
        left = until - time.monotonic()
        if not self._pid or left <= 0 or not select.select([self._reader], [], [], left)[0]:
            return False
        portion = os.read(self._reader, _PORTION)
        if not portion:
            self.status = os.waitstatus_to_exitcode(self._reap())
            return False
        self._take(portion)
        return True

    def _raise(self) -> None:
        if self._problem is not None:
            self.kill()
            raise from_problem(self._problem)

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._reap()

    def _reap(self) -> int:
        _, status = os.waitpid(self._pid, 0)
        os.close(self._reader)
        self._pid = 0
        return status

    def _take(self, portion: bytes) -> None:
        *lines, self._rest = (self._rest + portion).split(b"\n")
        for line in lines:
            message = msgspec.json.decode(line)
            if "problem" in message:
                self._problem = message["problem"]
            else:
                self.told.append(message["told"])


def _work(work: Callable[[Say], None], writer: int) -> None:
    """Do the work of the fork, which ends here: nothing of its parent's is cleaned up in it."""
    try:
        with os.fdopen(writer, "wb") as file:

            def say(message: dict[str, Any]) -> None:
                file.write(msgspec.json.encode(message) + b"\n")
                file.flush()

            try:
                work(lambda what: say({"told": what}))
            except YunmoError as error:
                say({"problem": problem(error)})
            except Exception as error:
                _logger.exception("a fork failed")
                failure = InternalError(f"{type(error).__name__}: {error}".splitlines()[0])
                say({"problem": problem(failure)})
    finally:
        os._exit(0)
