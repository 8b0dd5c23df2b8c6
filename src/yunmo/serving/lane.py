"""A lane: one loaded model version in one worker, with its bounded queue and its batches.

Batches have no timer: a request that finds the model idle runs at once, alone; what queues up meanwhile is the next
batch. So a batch is as large as the load makes it, and nobody waits for company. Where a hop to a thread would cost
more than it frees, the model runs on the event loop itself: one that answers within `INLINE_SECONDS` always, one that
answers within `TURN_SECONDS` for a request that is the only one in this worker. Batches that fit into `TURN_SECONDS`
take turns with everything else on the loop: a thread would have to share the interpreter's lock with it, and under more
load than there is room for, each would keep the other from its work.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from yunmo.core.errors import DeadlineExceeded, ModelFailed, TooManyRequests, Unavailable, YunmoError
from yunmo.serving.batch import Item, Model, Stop, Tensors, complete, compute, failure
from yunmo.serving.observer import LaneMeter, Reason, Span

INLINE_SECONDS = 100e-6
TURN_SECONDS = 5e-3
_LEAST_TURN = 2
"""Rows of a turn: of a model that is slower, a thread runs the batches."""
QUEUE_ROWS = 1024
"""Rows that may wait; over it a request is refused at once instead of waiting in vain."""
PATIENCE = 0.5
"""A request is taken only if the queue before it should take at most this share of its time: what is taken and then not
answered in time was work for nothing."""
RUN_SECONDS = 30.0
"""A run that takes longer is told to stop, if nothing else is said."""
STOP_SECONDS = 2.0
"""A run that was told to stop and has not done so by then is stuck for good."""
LOOK_SECONDS = 0.5
"""How often it is looked whether a run takes too long."""
_SMOOTHING = 0.2

_logger = logging.getLogger("yunmo.lane")


class _Runner:
    """A thread that runs batches, and the batch that it runs."""

    __slots__ = ("batch", "began", "ended", "given_up", "stop", "stopped", "thread")

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.batch: list[Item] = []
        self.began = 0.0
        self.ended = 0.0
        """When the run before ended."""
        self.stop: Stop | None = None
        self.stopped: float | None = None
        """When the run was told to end."""
        self.given_up = False


class Lane:
    """Runs one model. Its methods are called on the event loop.

    Args:
        model: what runs.
        meter: is told of every batch.
        queue_rows: rows that may wait.
        runs: batches that may run at a time, each in a thread.
        inline: a run ends by itself and soon, so a short one may be made on the event loop.
        run_timeout: returns the seconds after which a run is told to stop.
        stuck: called when a run does not stop: only a new process helps then.
    """

    def __init__(
        self,
        model: Model,
        meter: LaneMeter,
        *,
        queue_rows: int = QUEUE_ROWS,
        runs: int = 1,
        inline: bool = True,
        run_timeout: Callable[[], float] = lambda: RUN_SECONDS,
        stuck: Callable[[], None] = lambda: None,
    ) -> None:
        self.model = model
        self.meter = meter
        """Is told of what happens here."""
        self._queue_rows = queue_rows
        self._run_timeout = run_timeout
        self._stuck = stuck
        self._inline_rows = _rows_within(INLINE_SECONDS, model) if inline else 0
        self._alone_rows = _rows_within(TURN_SECONDS, model) if inline else 0
        takes_turns = runs == 1 and self._alone_rows >= min(_LEAST_TURN, model.batch_rows)
        self._turn_rows = self._alone_rows if takes_turns else 0
        self._turn: asyncio.Handle | None = None
        self._turned = 0.0
        self._row_seconds = model.run_seconds
        self._loop = asyncio.get_running_loop()
        self._work = threading.Condition()
        # Under the condition's lock: the queue, how many rows it has, and the runners' batches.
        self._queue: deque[Item] = deque()
        self._waiting_rows = 0
        self._runners = [_Runner() for _ in range(runs)]
        self._watch: asyncio.TimerHandle | None = None
        self._users = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    @property
    def waiting_rows(self) -> int:
        """Rows in the queue, not counting those that run."""
        return self._waiting_rows

    @property
    def busy(self) -> bool:
        """Whether a batch runs."""
        return any(runner.batch for runner in self._runners)

    def check_room(self, rows: int, seconds: float) -> None:
        """Refuse what could not be answered in time, before any work goes into it.

        Args:
            rows: that a request has.
            seconds: that it gives.

        Raises:
            TooManyRequests: the queue is full, or too long.
        """
        waiting = self._waiting_rows
        if waiting and waiting + rows > self._queue_rows:
            raise TooManyRequests("the endpoint's queue is full", remedy="Try again later, or send fewer at a time")
        if waiting * self._row_seconds > PATIENCE * seconds:
            raise TooManyRequests("the endpoint's queue is too long to answer in time", remedy="Try again later")

    def __enter__(self) -> Lane:
        """Hold the lane open for one request, from its first look at the model to its answer."""
        self._users += 1
        self._idle.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._users -= 1
        if not self._users:
            self._idle.set()

    async def run(
        self, tensors: Tensors, rows: int, deadline: float, *, alone: bool = False, span: Span | None = None
    ) -> Tensors:
        """Return the model's answers to one request.

        Args:
            tensors: as the model's ``encode`` made them.
            rows: how many rows they have.
            deadline: time of the event loop at which nobody waits for the answer any more.
            alone: no other request is in progress in this worker.
            span: is told of the batch, if the request is traced.

        Raises:
            TooManyRequests: the queue is full, or too long to answer in time.
            DeadlineExceeded: no answer in time.
            ModelFailed: the model raised an error; whatever ran beside this request is not affected.
            Unavailable: the lane was closed.
        """
        if self._closed:
            raise Unavailable("this version of the model has just been replaced", remedy="Try again")
        if rows <= (self._alone_rows if alone and not self.busy else self._inline_rows):
            return self._run_inline(tensors, rows, span)
        seconds = deadline - self._loop.time()
        if seconds <= 0:
            raise _late()
        self.check_room(rows, seconds)
        item = Item(tensors, rows, self._loop.create_future(), time.perf_counter(), span)
        timer = self._loop.call_at(deadline, self._expire, item)
        self._enqueue(item)
        try:
            return await item.answer
        except BaseException:
            self._leave_queue(item)
            raise
        finally:
            timer.cancel()

    async def drain(self, timeout: float) -> None:
        """Wait until every request that holds the lane has its answer, then give the model back.

        Requests still unanswered after ``timeout`` seconds get an error.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            _logger.warning("a replaced version did not finish in time", extra={"facts": {"rows": self._waiting_rows}})
        with self._work:
            self._closed = True
            left = [*(item for runner in self._runners for item in runner.batch), *self._queue]
            self._queue.clear()
            self._waiting_rows = 0
            self._work.notify_all()
        for item in left:
            item.give(Unavailable("the model was replaced before this request was answered", remedy="Try again"))
        self.meter.close()

    def _run_inline(self, tensors: Tensors, rows: int, span: Span | None) -> Tensors:
        began = time.perf_counter()
        try:
            return complete(self.model.run(tensors), rows)
        except Exception as error:
            raise failure(error) from error
        finally:
            ended = time.perf_counter()
            self.meter.batch(1, rows, (0.0,), ended - began, "idle")
            if span is not None:
                span.batch(began, began, ended, 1, rows, "idle")

    def _enqueue(self, item: Item) -> None:
        in_turn = item.rows <= self._turn_rows and not self.busy
        with self._work:
            self._queue.append(item)
            self._waiting_rows += item.rows
            if not in_turn:
                self._work.notify()
        self.meter.waiting(self._waiting_rows)
        if not in_turn:
            self._use_threads()
        elif self._turn is None:
            self._turn = self._loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        """Run one batch on the event loop, and let everything else there have its turn before the next."""
        self._turn = None
        with self._work:
            if not self._queue or self.busy:
                return
            in_turn = self._queue[0].rows <= self._turn_rows
            if in_turn:
                batch, reason = self._next_batch(self._turn_rows)
            else:
                self._work.notify()
        if not in_turn:
            self._use_threads()
            return
        began = time.perf_counter()
        outcomes = compute(self.model, batch, None)
        ended = time.perf_counter()
        if batch[0].queued >= self._turned:
            reason = "idle"
        since, self._turned = max(self._turned, batch[0].queued), ended
        self._deliver(batch, outcomes, began, ended, since, reason)
        if self._queue:
            self._turn = self._loop.call_soon(self._take_turn)

    def _use_threads(self) -> None:
        """See to it that there are threads, and that somebody looks whether their runs end."""
        if self._watch is None:
            self._watch = self._loop.call_later(LOOK_SECONDS, self._look)
            self._start_missing()

    def _start_missing(self) -> None:
        for runner in self._runners:
            if runner.thread is None:
                runner.thread = threading.Thread(target=self._serve, args=(runner,), name="yunmo-lane", daemon=True)
                runner.thread.start()

    def _expire(self, item: Item) -> None:
        self._leave_queue(item)
        item.give(_late())

    def _leave_queue(self, item: Item) -> None:
        with self._work:
            try:
                self._queue.remove(item)
            except ValueError:
                return  # it runs, or has run
            self._waiting_rows -= item.rows

    def _look(self) -> None:
        """End runs that take too long; look again as long as there is anything to look at."""
        self._watch = None
        for runner in self._runners:
            self._look_at(runner)
        if self.busy or (self._queue and self._turn is None):
            self._use_threads()

    def _look_at(self, runner: _Runner) -> None:
        now, limit = time.perf_counter(), self._run_timeout()
        with self._work:
            stop = runner.stop
            if not runner.batch or stop is None:
                return
            if runner.stopped is None:
                if now - runner.began <= limit:
                    return
                runner.stopped = now
            elif now - runner.stopped <= STOP_SECONDS:
                return
            else:
                # The thread is left alone with it; another takes its place.
                left, runner.batch, runner.given_up = runner.batch, [], True
                fresh = self._runners[self._runners.index(runner)] = _Runner()
                fresh.ended = now
        if not runner.given_up:
            _logger.error("a run takes too long and is stopped", extra={"facts": {"seconds": limit}})
            stop.set()
            return
        for item in left:
            item.give(ModelFailed("the model did not come to an end"))
        _logger.critical("a run cannot be stopped: this process has to be replaced")
        self._stuck()

    def _deliver(
        self,
        batch: list[Item],
        outcomes: list[Tensors | YunmoError],
        began: float,
        ended: float,
        since: float,
        reason: Reason,
    ) -> None:
        rows, seconds = sum(item.rows for item in batch), ended - began
        # With all that came between this batch and the one before: so long, a row in the queue really takes.
        self._row_seconds += _SMOOTHING * ((ended - since) / rows - self._row_seconds)
        for item, outcome in zip(batch, outcomes, strict=True):
            item.give(outcome)
            if item.span is not None:
                item.span.batch(item.queued, began, ended, len(batch), rows, reason)
        if not self._closed:
            self.meter.batch(len(batch), rows, [began - item.queued for item in batch], seconds, reason)
            self.meter.waiting(self._waiting_rows)

    # What follows runs in a runner's thread.

    def _serve(self, runner: _Runner) -> None:
        """Run batches until the lane is closed, or this runner was given up."""
        while True:
            with self._work:
                while not self._queue and not self._closed:
                    self._work.wait()
                if not self._queue:
                    return
                batch, reason = self._next_batch(self.model.batch_rows)
                if batch[0].queued >= runner.ended:
                    reason = "idle"
                began = time.perf_counter()
                runner.batch, runner.began, runner.stopped = batch, began, None
                stop = runner.stop = self.model.new_stop()
            outcomes = compute(self.model, batch, stop)
            ended = time.perf_counter()
            with self._work:
                if runner.given_up:
                    return
                since = max(runner.ended, batch[0].queued)
                runner.batch, runner.ended = [], ended
            self._tell(self._deliver, batch, outcomes, began, ended, since, reason)

    def _next_batch(self, most: int) -> tuple[list[Item], Reason]:
        """Take the oldest request and those after it that fit beside it into so many rows; the lock is held."""
        first = self._queue.popleft()
        batch, rows = [first], first.rows
        reason: Reason = "drained"
        while self._queue:
            item = self._queue[0]
            if rows + item.rows > most:
                reason = "full"
                break
            if item.shapes != first.shapes:
                reason = "shape"
                break
            batch.append(self._queue.popleft())
            rows += item.rows
        self._waiting_rows -= rows
        return batch, reason

    def _tell(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop has ended, and with it everybody who waited
            return


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("no answer within the time allowed", remedy="Try again later")


def _rows_within(seconds: float, model: Model) -> int:
    """Return how many rows run within a time, in one batch."""
    return min(int(seconds / model.run_seconds), model.batch_rows) if model.run_seconds > 0 else model.batch_rows
