"""The supervisor's eye on the data workers: it ends those that are blocked, and finds out which model ended one."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from yunmo.core.errors import StorageFull
from yunmo.serving.marks import Mark, MarksFile
from yunmo.serving.quarantine import quarantine_path, read_record, write_record

LOOK_SECONDS = 1.0
BLOCKED_LOOKS = 20
"""So many looks in a row may find that a worker's loop has not turned. Loading a model keeps the interpreter busy for a
second or so each gigabyte, and a machine that swaps takes its time; callers give up after 30 s by default. Looks are
counted and not seconds: if the whole machine stood still, nobody is to blame."""
SUSPECTED_SECONDS = 3600.0
"""A model that ran when a worker was killed is a suspect for so long; the second time it is isolated."""

_CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS})
"""What only a process itself, or someone who wants it to look like that, ends with."""
_FAULT = re.compile(rb"Current thread 0x([0-9a-f]+)")

_logger = logging.getLogger("yunmo.supervisor")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a worker's death says of the models that it ran."""

    guilty: frozenset[str] = frozenset()
    """Digests of those that ended it."""
    suspected: frozenset[str] = frozenset()
    """Digests of those that may have: the system kills who takes too much memory, but so do people."""


def judge(
    status: int, marks: Sequence[Mark], *, loop: int = 0, blocked: bool = False, fault: int | None = None
) -> Verdict:
    """Say which models a worker's death is due to.

    Args:
        status: that the process ended with; the negative number of the signal, if by one.
        marks: what its threads did with models when it died.
        loop: identifier of the thread of its event loop.
        blocked: it was killed because its loop no longer turned.
        fault: identifier of the thread that crashed, if it is known.
    """
    hanging = frozenset(each.digest for each in marks if each.doing == "hangs")
    if hanging:
        return Verdict(guilty=hanging)
    if blocked:
        # Runs in other threads let the interpreter go, loading does not always.
        return Verdict(guilty=frozenset(each.digest for each in marks if each.thread == loop or each.doing == "loads"))
    if -status in _CRASHES:
        # Several may have run; the crash itself says in whose thread it was. Else it may have been any of them.
        there = [each for each in marks if each.thread == fault] or marks
        return Verdict(guilty=frozenset(each.digest for each in there))
    if -status == signal.SIGKILL:
        return Verdict(suspected=frozenset(each.digest for each in marks))
    return Verdict()


class Watch:
    """Watches the data workers. It is called on one thread.

    Args:
        folder: where workers have their files.
        clock: seconds since 1970 (UTC).
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock
        self._beats: dict[int, tuple[int, int]] = {}
        self._blocked: set[int] = set()

    def look(self, workers: Sequence[int]) -> list[int]:
        """Return the workers that are blocked; to be called every `LOOK_SECONDS`.

        Args:
            workers: process ids of those that run.
        """
        seen = {}
        for pid in workers:
            with contextlib.suppress(OSError, ValueError):  # it just starts, or has just gone
                beats = MarksFile(self._folder / f"{pid}.marks").beats
                before, still = self._beats.get(pid, (-1, 0))
                seen[pid] = (beats, still + 1 if beats == before else 0)
        self._beats = seen
        blocked = [pid for pid, (_, still) in seen.items() if still >= BLOCKED_LOOKS]
        self._blocked.update(blocked)
        return blocked

    def died(self, pid: int, status: int) -> None:
        """Find out whether a model ended a worker, and write down which; before the worker's files are removed.

        Args:
            pid: of the worker.
            status: as for `judge`.
        """
        blocked = pid in self._blocked
        self._blocked.discard(pid)
        try:
            file = MarksFile(self._folder / f"{pid}.marks")
        except (OSError, ValueError):
            return  # it ended in order, or before it had any
        verdict = judge(status, file.read(), loop=file.loop, blocked=blocked, fault=self._fault(pid))
        if verdict != Verdict():
            self._write_down(verdict, _reason(status, blocked=blocked))

    def _fault(self, pid: int) -> int | None:
        """Return the thread that crashed, as the worker's last words say; None without such."""
        try:
            found = _FAULT.search((self._folder / f"{pid}.fault").read_bytes())
        except OSError:
            return None
        return int(found[1], 16) if found else None

    def _write_down(self, verdict: Verdict, reason: str) -> None:
        path = quarantine_path(self._folder)
        record, now = read_record(path), self._clock()
        suspects = {key: at for key, at in record.suspected.items() if at > now - SUSPECTED_SECONDS}
        guilty = [*verdict.guilty, *(digest for digest in verdict.suspected if digest in suspects)]
        suspects |= dict.fromkeys(verdict.suspected, now)
        isolated = record.isolated | {digest: reason for digest in guilty if digest not in record.isolated}
        for digest in guilty:
            suspects.pop(digest, None)
            _logger.error("a model ended a worker and is isolated", extra={"facts": {"digest": digest, "why": reason}})
        try:
            write_record(path, msgspec.structs.replace(record, isolated=isolated, suspected=suspects))
        except (OSError, StorageFull) as error:
            _logger.error("the models that are isolated cannot be written down", exc_info=error)


def _reason(status: int, *, blocked: bool) -> str:
    if blocked:
        return "blocked"
    if status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return "hung"
