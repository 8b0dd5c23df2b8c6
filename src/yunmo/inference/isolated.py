"""The graph of a bundle in a process of its own: a model that dies or hangs there takes nobody along.

`IsolatedSession` is the side of who asks; ``python -m yunmo.inference.isolated`` is the model's process. They talk over
a socket pair (`yunmo.inference.frames`). No shared memory: a call costs 0.2 ms, most of it to wake two processes, and a
megabyte 0.3 ms (``benchmarks/isolation.py``), which is little beside what a model does with a megabyte.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import resource
import select
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from yunmo.bundle.files import GRAPH
from yunmo.bundle.manifest import Tensors
from yunmo.core.errors import BundleError, ModelFailed, Unavailable, YunmoError, from_problem, problem
from yunmo.inference.frames import Head, Order, open_reader, receive, send
from yunmo.inference.session import Arrays, Session, stopped

FREE_STARTS = 3
"""So many deaths within `WINDOW_SECONDS` are followed by a new start at once: one bad request among many."""
WINDOW_SECONDS = 60.0
_FIRST_DELAY = 0.5
_LAST_DELAY = 30.0
_TURN_SECONDS = 0.05
_GRAPH = "graph"

_logger = logging.getLogger("yunmo.isolated")


class Kill:
    """Ends the runs that were given it, by ending the model's process. Any thread may set it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._end: Callable[[], None] | None = None
        self._set = False

    @property
    def is_set(self) -> bool:
        """Whether it was set."""
        return self._set

    def set(self) -> None:
        """Let the runs end with an error."""
        with self._lock:
            self._set = True
            if self._end is not None:
                self._end()

    @contextlib.contextmanager
    def ends(self, end: Callable[[], None]) -> Iterator[None]:
        """Have ``end`` called if this is set before the block is over."""
        with self._lock:
            self._end = end
            if self._set:
                end()
        try:
            yield
        finally:
            with self._lock:
                self._end = None


class IsolatedSession:
    """A graph that is loaded in a child process. Threads may share it; their runs follow each other.

    Args:
        read_graph: returns the ONNX file's bytes; called for every process that is started. They are not kept.
        tensors: the inputs and outputs that it must have.
        threads: how many one call may use.
        name: shown in the list of processes.
        folder: of weights beside the graph, as for `Session`.
        stop: ends the loading when it is set.
        clock: monotonic seconds.

    Raises:
        BundleError: ONNX Runtime cannot load the graph or dies of it, or its inputs or outputs are others.
    """

    def __init__(
        self,
        read_graph: Callable[[], bytes],
        tensors: Tensors,
        *,
        threads: int,
        name: str = "",
        folder: Path | None = None,
        stop: Kill | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read_graph = read_graph
        self._order = Order(tensors, threads, str(folder) if folder is not None else None)
        self._name = name
        self._clock = clock
        self._turn = threading.Lock()
        self._deaths: deque[float] = deque()
        self._closed = False
        self._child: _Child | None = None
        stop = stop or Kill()
        try:
            self._start(stop)
        except _Died:
            if stop.is_set:
                raise BundleError("loading the graph took too long", where=GRAPH) from None
            raise BundleError("the process that loaded the graph ended", where=GRAPH) from None

    @property
    def pid(self) -> int | None:
        """Process id of the model; None while it has none."""
        child = self._child
        return child.pid if child is not None else None

    def new_stop(self) -> Kill:
        """Return what can end a run from another thread."""
        return Kill()

    def run(self, tensors: Mapping[str, Any], stop: Kill | None = None) -> Arrays:
        """Return the graph's outputs by name.

        Args:
            tensors: inputs by name.
            stop: ends the run when it is set, and the model's process with it.

        Raises:
            ModelFailed: ONNX Runtime could not compute them, or the process ended or was ended meanwhile. The next run
                starts another.
            Unavailable: the process keeps ending and is not started again yet, or the session is closed.
        """
        stop = stop or Kill()
        with self._my_turn(stop):
            try:
                child = self._child or self._start_again(stop)
                with stop.ends(child.kill):
                    head, answers = child.ask(Head(), tensors)
            except _Died:
                self._bury()
                if self._closed:
                    raise _closed() from None
                if stop.is_set:
                    raise stopped() from None
                raise ModelFailed("the model's process ended", remedy="Try again; another one is started") from None
        if head.problem is not None:
            raise from_problem(head.problem)
        return answers

    def close(self) -> None:
        """End the process; a run in progress ends with an error."""
        self._closed = True
        child = self._child
        if child is not None:
            child.kill()
        with self._turn:
            if self._child is not None:
                self._child.close()
                self._child = None

    @contextlib.contextmanager
    def _my_turn(self, stop: Kill) -> Iterator[None]:
        """Hold the process; whoever is stopped while they wait does not wait on."""
        while not self._turn.acquire(timeout=_TURN_SECONDS):
            if stop.is_set:
                raise stopped()
        try:
            if self._closed:
                raise _closed()
            if stop.is_set:
                raise stopped()
            yield
        finally:
            self._turn.release()

    def _start(self, stop: Kill) -> _Child:
        graph = self._read_graph()
        child = _Child(self._name)
        try:
            with stop.ends(child.kill):
                head, _ = child.ask(Head(order=self._order), {_GRAPH: np.frombuffer(graph, np.uint8)})
            if head.problem is not None:
                raise from_problem(head.problem)
        except BaseException:
            child.close()
            raise
        self._child = child
        return child

    def _start_again(self, stop: Kill) -> _Child:
        wait = self._delay()
        if wait > 0:
            raise Unavailable(
                "the model's process keeps ending",
                remedy=f"Try again in {math.ceil(wait)} s; another one is started then",
            )
        try:
            return self._start(stop)
        except (BundleError, OSError) as error:
            _logger.error("a model's process cannot be started again", exc_info=error)
            raise Unavailable("the model's process cannot be started again", remedy="See the service's log") from None

    def _delay(self) -> float:
        """Return the seconds until another process may be started."""
        now = self._clock()
        while self._deaths and self._deaths[0] < now - WINDOW_SECONDS:
            self._deaths.popleft()
        over = len(self._deaths) - FREE_STARTS
        if over <= 0:
            return 0.0
        return self._deaths[-1] + min(_FIRST_DELAY * 2.0 ** (over - 1), _LAST_DELAY) - now

    def _bury(self) -> None:
        self._deaths.append(self._clock())
        status = None
        if self._child is not None:
            status = self._child.close()
            self._child = None
        if not self._closed:
            _logger.error("a model's process ended", extra={"facts": {"status": status}})


def _closed() -> Unavailable:
    return Unavailable("this version of the model has just been replaced", remedy="Try again")


class _Died(Exception):
    """The model's process ended, or said something that makes no sense."""


class _Child:
    """The model's process and the socket to it."""

    def __init__(self, name: str) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "yunmo.inference.isolated", str(theirs.fileno()), name],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # One thread: numpy's own pool would only take memory, ONNX Runtime has its own.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                # Not in the terminal's process group: Ctrl-C is the supervisor's to handle.
                start_new_session=True,
            )
        self._reader = open_reader(self._socket)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, head: Head, tensors: Mapping[str, Any]) -> tuple[Head, Arrays]:
        """Send a message and return the answer.

        Raises:
            _Died: there is none; the process has to be closed.
        """
        try:
            send(self._socket, head, tensors)
            head, answers = receive(self._reader)
        except (OSError, EOFError, msgspec.MsgspecError, ValueError, TypeError, MemoryError) as error:
            raise _Died from error
        for line in head.said:
            _logger.error(line)
        return head, answers

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> int:
        """End the process if it runs; return its exit status."""
        self._process.kill()
        status = self._process.wait()
        self._reader.close()
        self._socket.close()
        return status


# From here on: the model's process.


def main() -> None:
    """Load what comes over the socket, and run it until the other side has gone."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    _confine(connection)
    reader = open_reader(connection)
    session: Session | None = None
    said = _Said()
    logging.getLogger().addHandler(said)
    while True:
        try:
            head, arrays = receive(reader)
        except (EOFError, ConnectionError):
            return
        try:
            if head.order is not None:
                session = _load(arrays[_GRAPH].tobytes(), head.order)
                answers: Arrays = {}
            elif session is not None:
                answers = session.run(arrays)
            else:
                raise ModelFailed("no graph is loaded")
            del arrays
            send(connection, Head(said=said.take()), answers)
        except YunmoError as error:
            send(connection, Head(problem=problem(error), said=said.take()), {})
        except MemoryError:
            send(connection, Head(problem=problem(ModelFailed("the model needs more memory than there is"))), {})


def _load(graph: bytes, order: Order) -> Session:
    folder = Path(order.folder) if order.folder is not None else None
    return Session(graph, order.tensors, threads=order.threads, folder=folder)


class _Said(logging.Handler):
    """Keeps what is logged, for the other side."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())

    def take(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines


def _confine(connection: socket.socket) -> None:
    """Leave no core dump, be the first to go when memory runs out, and end when the other side ends.

    The system's own signal for that comes when the *thread* that started this process ends, which is too early.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")
    threading.Thread(target=_end_with, args=(connection.fileno(),), daemon=True).start()


def _end_with(descriptor: int) -> None:
    """End this process, whatever it computes, when nobody holds the other end of its socket."""
    poll = select.poll()
    poll.register(descriptor, 0)  # a hang-up is told without being asked for
    poll.poll()
    os._exit(0)


if __name__ == "__main__":
    main()
