"""A lane: one model version in one worker, with its bounded queue and its batches.

Batches have no timer: the first request to find the model idle runs at once, alone; what queues up meanwhile is the
next batch. So a batch is as large as the load makes it, and nobody waits for company.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from yunmo.core.errors import ModelFailed, TooManyRequests, Unavailable, YunmoError

Tensors = dict[str, np.ndarray]
"""Arrays by name; the first dimension of each is the row."""

BATCH_ROWS = 16
"""Rows in a batch of several requests; a larger batch is no faster on a CPU."""
CHUNK_ROWS = 64
"""Rows of one large request that run at a time: between chunks it is seen whether anybody still waits for it."""
QUEUE_ROWS = 1024
"""Rows that may wait; over it a request is refused at once instead of waiting in vain."""

_logger = logging.getLogger("yunmo.lane")


class Model(Protocol):
    """What a lane needs of a predictor: `yunmo.inference.predictor.Predictor` is one."""

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> Tensors:
        """Turn rows into the network's tensors; raise InvalidInput where they do not fit."""

    def run(self, tensors: Tensors) -> Tensors:
        """Compute the answers of a batch."""

    def decode(self, answers: Tensors) -> list[dict[str, Any]]:
        """Turn answers into one prediction per row."""


class _Item:
    """A request that waits: its rows, and the future that its answer goes to."""

    __slots__ = ("answer", "rows", "shapes", "tensors")

    def __init__(self, tensors: Tensors, rows: int, answer: asyncio.Future[Tensors]) -> None:
        self.tensors = tensors
        self.rows = rows
        self.answer = answer
        self.shapes = {name: array.shape[1:] for name, array in tensors.items()}


class Lane:
    """Runs one model. All methods but those of the model are called on the event loop.

    Args:
        model: what runs; it is called in one thread only.
        queue_rows: rows that may wait.
    """

    def __init__(self, model: Model, *, queue_rows: int = QUEUE_ROWS) -> None:
        self.model = model
        self._queue_rows = queue_rows
        self._waiting: dict[_Item, None] = {}
        self._waiting_rows = 0
        self._users = 0
        self._running: list[_Item] = []
        self._pump: asyncio.Task[None] | None = None
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="yunmo-lane")
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
        return bool(self._running)

    def __enter__(self) -> Lane:
        """Hold the lane open for one request, from its first look at the model to its answer."""
        self._users += 1
        self._idle.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._users -= 1
        if not self._users:
            self._idle.set()

    async def run(self, tensors: Tensors, rows: int) -> Tensors:
        """Return the model's answers to one request.

        Args:
            tensors: as the model's ``encode`` made them.
            rows: how many rows they have.

        Raises:
            TooManyRequests: the queue is full.
            ModelFailed: the model raised an error; whatever ran beside this request is not affected.
            Unavailable: the lane was closed.
        """
        if self._closed:
            raise Unavailable("this version of the model has just been replaced", remedy="Try again")
        if self._waiting and self._waiting_rows + rows > self._queue_rows:
            raise TooManyRequests("the endpoint's queue is full", remedy="Try again later, or send fewer at a time")
        item = _Item(tensors, rows, asyncio.get_running_loop().create_future())
        self._waiting[item] = None
        self._waiting_rows += rows
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._run_queue())
        try:
            return await item.answer
        finally:
            self._leave_queue(item)

    async def drain(self, timeout: float) -> None:
        """Wait until every request that holds the lane has its answer, then give the model back.

        Requests still unanswered after ``timeout`` seconds get an error.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            _logger.warning("a replaced version did not finish in time", extra={"facts": {"rows": self._waiting_rows}})
        self._closed = True
        for item in (*self._running, *self._waiting):
            self._leave_queue(item)
            _answer(item, Unavailable("the model was replaced before this request was answered", remedy="Try again"))
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _leave_queue(self, item: _Item) -> None:
        if item in self._waiting:
            del self._waiting[item]
            self._waiting_rows -= item.rows

    def _next_batch(self) -> list[_Item]:
        """Take the oldest request and those after it that fit beside it."""
        first = next(iter(self._waiting))
        batch, rows = [first], first.rows
        for item in list(self._waiting)[1 : BATCH_ROWS + 1]:
            if rows + item.rows > BATCH_ROWS or item.shapes != first.shapes:
                break
            batch.append(item)
            rows += item.rows
        for item in batch:
            self._leave_queue(item)
        return batch

    async def _run_queue(self) -> None:
        try:
            while self._waiting:
                self._running = self._next_batch()
                await self._run_batch(self._running)
        finally:
            self._pump = None
            self._running = []

    async def _run_batch(self, batch: list[_Item]) -> None:
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._threads, self._compute, batch)
        except Exception as error:
            if len(batch) > 1:
                # One of them may be at fault: alone, each gets the answer that it deserves.
                for item in batch:
                    if not item.answer.done():
                        await self._run_batch([item])
                return
            if not isinstance(error, YunmoError):
                _logger.error("the model failed", exc_info=error)
                error = ModelFailed("the model could not compute an answer")
            _answer(batch[0], error)
            return
        for item, answer in zip(batch, answers, strict=True):
            _answer(item, answer)

    def _compute(self, batch: list[_Item]) -> list[Tensors]:
        """Run a batch in the lane's thread and return the answers of each of its requests."""
        if len(batch) == 1:
            return [self._compute_one(batch[0])]
        joined = {name: np.concatenate([item.tensors[name] for item in batch]) for name in batch[0].tensors}
        answers = self.model.run(joined)
        total = sum(item.rows for item in batch)
        for name, array in answers.items():
            if len(array) != total:
                raise ModelFailed(f"the model gave {len(array)} rows of {name!r} for {total}")
        parts, begin = [], 0
        for item in batch:
            parts.append({name: array[begin : begin + item.rows] for name, array in answers.items()})
            begin += item.rows
        return parts

    def _compute_one(self, item: _Item) -> Tensors:
        if item.rows <= CHUNK_ROWS:
            return self.model.run(item.tensors)
        chunks: list[Tensors] = []
        for begin in range(0, item.rows, CHUNK_ROWS):
            if item.answer.done():
                raise Unavailable("nobody waits for this answer any more")
            chunks.append(
                self.model.run({name: array[begin : begin + CHUNK_ROWS] for name, array in item.tensors.items()})
            )
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _answer(item: _Item, outcome: Tensors | Exception) -> None:
    if item.answer.done():
        return
    if isinstance(outcome, Exception):
        item.answer.set_exception(outcome)
    else:
        item.answer.set_result(outcome)
