from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from yunmo.core.errors import ModelFailed, TooManyRequests, Unavailable
from yunmo.serving.lane import CHUNK_ROWS, Lane, Tensors


class Doubler:
    """A model that doubles ``x``; it can be held up, and fails on a negative number."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.batches: list[int] = []

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> Tensors:
        return {"x": np.array([row["x"] for row in rows], np.float32)}

    def run(self, tensors: Tensors) -> Tensors:
        self.go.wait(5)
        self.batches.append(len(tensors["x"]))
        if (tensors["x"] < 0).any():
            raise ZeroDivisionError("secret")
        return {"y": tensors["x"] * 2}

    def decode(self, answers: Tensors) -> list[dict[str, Any]]:
        return [{"y": value} for value in answers["y"].tolist()]


def tensors(*values: float) -> Tensors:
    return {"x": np.array(values, np.float32)}


async def ask(lane: Lane, *values: float) -> list[float]:
    with lane:
        return (await lane.run(tensors(*values), len(values)))["y"].tolist()


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def test_everyone_gets_their_own_answer_and_the_queue_becomes_one_batch() -> None:
    async def main() -> None:
        model = Doubler()
        lane = Lane(model)
        model.go.clear()
        tasks = [asyncio.ensure_future(ask(lane, 0, 0.5))]
        await until(lambda: lane.busy)
        tasks += [asyncio.ensure_future(ask(lane, number, number + 0.5)) for number in range(1, 6)]
        await until(lambda: lane.waiting_rows == 10)
        model.go.set()
        for number, task in enumerate(tasks):
            assert await task == [2 * number, 2 * number + 1]
        assert model.batches == [2, 10]  # the first alone and at once, the rest together
        await lane.drain(1)

    asyncio.run(main())


def test_different_shapes_never_meet_in_a_batch() -> None:
    async def main() -> None:
        model = Doubler()
        lane = Lane(model)
        model.go.clear()
        first = asyncio.ensure_future(ask(lane, 1))
        await until(lambda: lane.busy)
        wide = asyncio.ensure_future(lane.run({"x": np.ones((1, 3), np.float32)}, 1))
        flat = asyncio.ensure_future(ask(lane, 2))
        await until(lambda: lane.waiting_rows == 2)
        model.go.set()
        assert await first == [2]
        assert (await wide)["y"].shape == (1, 3)
        assert await flat == [4]
        await lane.drain(1)

    asyncio.run(main())


def test_an_error_reaches_its_own_request_only() -> None:
    async def main() -> None:
        model = Doubler()
        lane = Lane(model)
        model.go.clear()
        tasks = [asyncio.ensure_future(ask(lane, 0))]
        await until(lambda: lane.busy)
        tasks += [asyncio.ensure_future(ask(lane, value)) for value in (1, -1, 3)]
        await until(lambda: lane.waiting_rows == 3)
        model.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [results[0], results[1], results[3]] == [[0], [2], [6]]
        assert isinstance(results[2], ModelFailed)
        assert "secret" not in str(results[2])
        await lane.drain(1)

    asyncio.run(main())


def test_a_full_queue_refuses_at_once() -> None:
    async def main() -> None:
        model = Doubler()
        lane = Lane(model, queue_rows=4)
        model.go.clear()
        tasks = [asyncio.ensure_future(ask(lane, 1))]
        await until(lambda: lane.busy)
        tasks += [asyncio.ensure_future(ask(lane, 1)) for _ in range(4)]
        await until(lambda: lane.waiting_rows == 4)
        with pytest.raises(TooManyRequests):
            await ask(lane, 1)
        model.go.set()
        assert await asyncio.gather(*tasks) == [[2]] * 5
        await lane.drain(1)

    asyncio.run(main())


def test_a_cancelled_request_frees_its_place() -> None:
    async def main() -> None:
        model = Doubler()
        lane = Lane(model, queue_rows=1)
        model.go.clear()
        running = asyncio.ensure_future(ask(lane, 1))
        await until(lambda: lane.busy)
        waiting = asyncio.ensure_future(ask(lane, 2))
        await until(lambda: lane.waiting_rows == 1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert lane.waiting_rows == 0
        other = asyncio.ensure_future(ask(lane, 3))
        await until(lambda: lane.waiting_rows == 1)
        model.go.set()
        assert await running == [2]
        assert await other == [6]
        assert model.batches == [1, 1]  # what was cancelled never ran
        await lane.drain(1)

    asyncio.run(main())


def test_a_large_request_runs_in_chunks() -> None:
    async def main() -> None:
        model = Doubler()
        lane = Lane(model)
        values = list(range(2 * CHUNK_ROWS + 3))
        assert await ask(lane, *values) == [2 * value for value in values]
        assert model.batches == [CHUNK_ROWS, CHUNK_ROWS, 3]
        await lane.drain(1)

    asyncio.run(main())


def test_draining_waits_for_those_who_came_before() -> None:
    async def main() -> None:
        model = Doubler()
        lane = Lane(model)
        model.go.clear()
        tasks = [asyncio.ensure_future(ask(lane, 1))]
        await until(lambda: lane.busy)
        tasks.append(asyncio.ensure_future(ask(lane, 2)))
        await until(lambda: lane.waiting_rows == 1)
        drain = asyncio.ensure_future(lane.drain(5))
        await asyncio.sleep(0.02)
        assert not drain.done()
        model.go.set()
        assert await asyncio.gather(*tasks) == [[2], [4]]
        await drain
        with pytest.raises(Unavailable):
            await ask(lane, 1)

    asyncio.run(main())


def test_nobody_hangs_when_a_hung_model_is_given_up() -> None:
    async def main() -> None:
        model = Doubler()
        lane = Lane(model)
        model.go.clear()
        tasks = [asyncio.ensure_future(ask(lane, 1))]
        await until(lambda: lane.busy)
        tasks.append(asyncio.ensure_future(ask(lane, 2)))
        await until(lambda: lane.waiting_rows == 1)
        await lane.drain(0.05)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(tasks[1], 1)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(tasks[0], 1)
        model.go.set()

    asyncio.run(main())
