"""The child process of a run or job. ``python -m yunmo.control.jobs.child FOLDER run|job``; of a run, it has torch.

It reads commands from stdin and answers on stdout, one JSON document a line:

    {"step": "train"}  ->  {"event": {...}} any number of times, then {"result": {...}} or {"problem": {...}}
    {"cancel": true}   ->  the running step stops soon, with the problem "cancelled"

When stdin ends, its runner is gone, and it ends at once: two children never write one folder. (It also holds a lock
on the folder, in case the old one takes a moment.)
"""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import msgspec

from yunmo.control.jobs import answering, steps
from yunmo.control.jobs.extras import missing_extra
from yunmo.control.jobs.steps import LOCK, ORDER
from yunmo.core.errors import Conflict, InternalError, TrainingFailed, YunmoError, problem
from yunmo.core.events import AnyEvent, DataPrepared
from yunmo.core.files import is_full, storage_full

_LOCK_SECONDS = 30.0

KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "run": (steps.Order, steps.Run, steps.STEPS),
    "job": (answering.Order, answering.Answering, answering.STEPS),
}
"""By kind: its order, what is made of that, and its steps."""

_logger = logging.getLogger("yunmo.run")


def main() -> None:
    """Carry out commands until stdin ends."""
    answers = _take_stdout()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = Path(sys.argv[1])
    _hold(folder)
    cancel = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: cancel.set())
    commands: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read_commands, args=(commands, cancel), daemon=True).start()
    orders, make, known = KINDS[sys.argv[2]]
    order = msgspec.json.decode((folder / ORDER).read_bytes(), type=orders)
    teller = _Teller(answers)
    work = make(folder, order, teller.event, cancel.is_set)
    while True:
        step = commands.get()["step"]
        teller.say(_answer(partial(known[step], work), step))


class _Teller:
    """Writes answers and events, whole lines at a time."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._told_data = False

    def event(self, event: AnyEvent) -> None:
        # Steps open the prepared data anew; one report of it is enough.
        if isinstance(event, DataPrepared):
            if self._told_data:
                return
            self._told_data = True
        self.say({"event": event})

    def say(self, message: dict[str, Any]) -> None:
        self._file.write(msgspec.json.encode(message) + b"\n")
        self._file.flush()


def _answer(do: Callable[[], dict[str, Any]], step: str) -> dict[str, Any]:
    """Do a step; every error becomes a problem document, and what nobody expected stays in the log."""
    _logger.info("step %s", step)
    try:
        return {"result": do()}
    except YunmoError as error:
        _logger.info("step %s: %s", step, error)
        return {"problem": problem(error)}
    except Exception as error:
        _logger.exception("step %s failed", step)
        return {"problem": problem(_known(error, step))}


def _known(error: Exception, step: str) -> YunmoError:
    if isinstance(error, ImportError) and (missing := missing_extra(error, "training")):
        return missing
    if is_full(error):
        return storage_full("run folder")
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        return TrainingFailed("not enough memory", where=step, remedy="Take a smaller batch_size or network")
    return InternalError(f"the step {step} failed: {type(error).__name__}: {error}", remedy="See `yunmo runs logs`")


def _take_stdout() -> IO[bytes]:
    """Keep stdout for answers: whatever a library prints goes to stderr, which is the run's log."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _hold(folder: Path) -> None:
    """Lock the run's folder for the rest of this process's life.

    Raises:
        Conflict: another process holds it, and does not end.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise Conflict("another process works in this run's folder", where=str(folder)) from None
            time.sleep(0.1)
        else:
            return


def _read_commands(commands: queue.Queue[dict[str, Any]], cancel: threading.Event) -> None:
    for line in sys.stdin.buffer:
        command = msgspec.json.decode(line)
        if "cancel" in command:
            cancel.set()
        else:
            commands.put(command)
    # The runner is gone, or has no more to do. Nothing needs cleaning up: whatever is written is written atomically.
    os._exit(0)


if __name__ == "__main__":
    main()
