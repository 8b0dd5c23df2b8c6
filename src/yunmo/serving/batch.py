"""Batches: requests that run together, and each one's own outcome."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from yunmo.core.errors import ModelFailed, Unavailable, YunmoError
from yunmo.serving.observer import Span

Tensors = dict[str, np.ndarray]
"""Arrays by name; the first dimension of each is the row."""

CHUNK_ROWS = 64
"""Rows of one large request that run at a time: between chunks it is seen whether anybody still waits for it."""

_logger = logging.getLogger("yunmo.lane")


class Stop(Protocol):
    """Ends runs from another thread."""

    def set(self) -> None:
        """Let the runs that were given this end with an error."""


class Model(Protocol):
    """What a lane needs of a predictor: `yunmo.inference.predictor.Predictor` is one."""

    @property
    def run_seconds(self) -> float:
        """Seconds that one row takes, measured when the model was loaded."""

    @property
    def batch_rows(self) -> int:
        """Rows beyond which a larger batch is no faster, measured when the model was loaded."""

    def run(self, tensors: Mapping[str, Any], stop: Any = None) -> Tensors:
        """Compute the answers of a batch; ``stop`` is what `new_stop` made."""

    def new_stop(self) -> Stop:
        """Return what can end runs that are given it."""


class Item:
    """A request that waits: its rows, and the future that its answer goes to.

    Args:
        tensors: as the model's ``encode`` made them.
        rows: how many rows they have.
        answer: what the caller awaits.
        queued: `time.perf_counter` of now.
        span: is told of the batch, if the request is traced.
    """

    __slots__ = ("answer", "queued", "rows", "shapes", "span", "tensors")

    def __init__(
        self, tensors: Tensors, rows: int, answer: asyncio.Future[Tensors], queued: float, span: Span | None
    ) -> None:
        self.tensors = tensors
        self.rows = rows
        self.answer = answer
        self.queued = queued
        self.span = span
        self.shapes = [array.shape[1:] for array in tensors.values()]

    def give(self, outcome: Tensors | YunmoError) -> None:
        """Answer the caller, unless that was done or nobody waits any more; to be called on the event loop."""
        if self.answer.done():
            return
        if isinstance(outcome, YunmoError):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


def compute(model: Model, batch: Sequence[Item], stop: Stop | None) -> list[Tensors | YunmoError]:
    """Run a batch and return the outcome of each request; if they fail together, each is tried alone."""
    try:
        if len(batch) == 1:
            return [_compute_one(model, batch[0], stop)]
        return list(_compute_joined(model, batch, stop))
    except Exception as error:
        if len(batch) == 1:
            return [failure(error)]
        # One of them may be at fault: alone, each gets the answer that it deserves.
        return [compute(model, [item], stop)[0] for item in batch]


def complete(answers: Tensors, rows: int) -> Tensors:
    """Return answers that have a row for each that was asked for.

    Raises:
        ModelFailed: they have not.
    """
    for name, array in answers.items():
        if len(array) != rows:
            _logger.error("the model gave %d rows of %r for %d", len(array), name, rows)
            raise ModelFailed("the model gave another number of answers than it was asked for")
    return answers


def failure(error: Exception) -> YunmoError:
    """Return what callers are told of an error in a model: nothing of its inside, which the log has."""
    if isinstance(error, YunmoError):
        return error
    _logger.error("the model failed", exc_info=error)
    return ModelFailed("the model could not compute an answer")


def _compute_joined(model: Model, batch: Sequence[Item], stop: Stop | None) -> list[Tensors]:
    joined = {name: np.concatenate([item.tensors[name] for item in batch]) for name in batch[0].tensors}
    answers = complete(model.run(joined, stop), sum(item.rows for item in batch))
    parts, begin = [], 0
    for item in batch:
        parts.append({name: array[begin : begin + item.rows] for name, array in answers.items()})
        begin += item.rows
    return parts


def _compute_one(model: Model, item: Item, stop: Stop | None) -> Tensors:
    if item.rows <= CHUNK_ROWS:
        return complete(model.run(item.tensors, stop), item.rows)
    chunks: list[Tensors] = []
    for begin in range(0, item.rows, CHUNK_ROWS):
        if item.answer.done():
            raise Unavailable("nobody waits for this answer any more")
        chunk = {name: array[begin : begin + CHUNK_ROWS] for name, array in item.tensors.items()}
        chunks.append(complete(model.run(chunk, stop), min(CHUNK_ROWS, item.rows - begin)))
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
