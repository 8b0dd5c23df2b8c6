from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
import pytest
from tests.unit.serving.parts import Meter
from tests.unit.serving.wire import run, until

from yunmo.core.errors import DeadlineExceeded, ModelFailed, TooManyRequests, Unavailable
from yunmo.serving import lane as module
from yunmo.serving.batch import CHUNK_ROWS
from yunmo.serving.lane import Lane

HANGS = -1.0
"""A number with which a run lasts until it is told to stop."""
NEVER_ENDS = -2.0
"""A number with which a run lasts until the test ends, whatever it is told."""
FAILS = -3.0
LOSES_A_ROW = -4.0


class Doubler:
    """A model that doubles ``x``; it can be held up, and some numbers are too much for it."""

    def __init__(self, *, run_seconds: float = 0.01, batch_rows: int = 16) -> None:
        self.run_seconds = run_seconds
        self.batch_rows = batch_rows
        self.go = threading.Event()
        self.go.set()
        self.end = threading.Event()
        self.batches: list[list[float]] = []
        self.threads: Counter[int] = Counter()
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def new_stop(self) -> threading.Event:
        return threading.Event()

    def run(self, tensors: Mapping[str, Any], stop: Any = None) -> dict[str, Any]:
        x = tensors["x"]
        with self._lock:
            self.batches.append(x.reshape(len(x), -1)[:, 0].tolist())
            self.threads[threading.get_ident()] += 1
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            assert self.go.wait(60)
            if (x == HANGS).any():
                assert stop.wait(60)
                raise RuntimeError("stopped")
            if (x == NEVER_ENDS).any():
                assert self.end.wait(60)
            if (x == FAILS).any():
                raise ZeroDivisionError("secret")
            if stop is not None and stop.is_set():
                raise RuntimeError("stopped")
            return {"y": x[1:] * 2 if (x == LOSES_A_ROW).any() else x * 2, "z": -x}
        finally:
            with self._lock:
                self.running -= 1


class Bench:
    """A lane, its model, and what happens there."""

    def __init__(self, model: Doubler, lane: Lane, meter: Meter) -> None:
        self.model = model
        self.lane = lane
        self.meter = meter

    async def ask(self, *values: float, seconds: float = 60.0, wide: int = 0, alone: bool = False) -> list[float]:
        """Ask as the data plane does."""
        x = np.array(values, np.float32)
        if wide:
            x = np.repeat(x[:, None], wide, axis=1)
        deadline = asyncio.get_running_loop().time() + seconds
        with self.lane:
            answers = await self.lane.run({"x": x}, len(values), deadline, alone=alone)
        assert np.array_equal(answers["z"], -x)
        assert answers["y"].shape == x.shape
        return answers["y"].reshape(len(values), -1)[:, 0].tolist()

    def later(self, *values: float, **more: Any) -> asyncio.Task[list[float]]:
        return asyncio.ensure_future(self.ask(*values, **more))

    async def hold(self, *values: float) -> asyncio.Task[list[float]]:
        """Have the model run a request, and not come to its end before ``model.go`` is set."""
        self.model.go.clear()
        before = len(self.model.batches)
        task = self.later(*(values or (0,)))
        await until(lambda: len(self.model.batches) > before)
        return task

    async def queued(self, rows: int) -> None:
        await until(lambda: self.lane.waiting_rows == rows)


def on(model: Doubler | None = None, **more: Any) -> Callable[[Callable[[Bench], Awaitable[None]]], None]:
    """Run a test with a lane, and see that it drains at the end."""

    def decorate(work: Callable[[Bench], Awaitable[None]]) -> None:
        used = model or Doubler()

        async def main() -> None:
            meter = Meter()
            bench = Bench(used, Lane(used, meter, **more), meter)
            try:
                await work(bench)
            finally:
                used.go.set()
                used.end.set()
                await bench.lane.drain(20)

        run(main)

    return decorate


# Batches.


def test_everyone_gets_their_own_answer_and_the_queue_becomes_one_batch() -> None:
    @on()
    async def _(bench: Bench) -> None:
        tasks = [await bench.hold(0, 0.5)]
        tasks += [bench.later(number, number + 0.5) for number in range(1, 6)]
        await bench.queued(10)
        bench.model.go.set()
        for number, task in enumerate(tasks):
            assert await task == [2 * number, 2 * number + 1]
        assert [len(batch) for batch in bench.model.batches] == [2, 10]  # the first at once, the rest together
        assert bench.model.batches[1] == sorted(bench.model.batches[1])  # in the order in which they came
        await until(lambda: len(bench.meter.batches) == 2)
        assert [batch[:2] for batch in bench.meter.batches] == [(1, 2), (5, 10)]
        assert len(bench.meter.waits) == 6
        assert min(bench.meter.waits) >= 0
        assert max(bench.meter.depths) == 10
        assert bench.meter.depths[-1] == 0


def test_a_batch_is_full_at_the_rows_that_the_model_takes() -> None:
    @on(Doubler(batch_rows=4))
    async def _(bench: Bench) -> None:
        first = await bench.hold()
        tasks = [bench.later(*range(rows)) for rows in (1, 2, 2, 3, 1, 9, 1)]
        await bench.queued(19)
        bench.model.go.set()
        assert await asyncio.gather(*tasks) == [[2 * x for x in range(rows)] for rows in (1, 2, 2, 3, 1, 9, 1)]
        await first
        assert [len(batch) for batch in bench.model.batches] == [1, 3, 2, 4, 9, 1]
        await until(lambda: len(bench.meter.batches) == 6)
        assert [reason for *_, reason in bench.meter.batches][1:] == ["full", "full", "full", "full", "drained"]


def test_different_shapes_never_meet_in_a_batch() -> None:
    @on()
    async def _(bench: Bench) -> None:
        first = await bench.hold()
        tasks = [bench.later(number, wide=wide) for number, wide in enumerate((3, 3, 0, 0, 2, 3))]
        await bench.queued(6)
        bench.model.go.set()
        assert await asyncio.gather(*tasks) == [[2 * number] for number in range(6)]
        await first
        assert bench.model.batches[1:] == [[0, 1], [2, 3], [4], [5]]
        await until(lambda: len(bench.meter.batches) == 5)
        assert [reason for *_, reason in bench.meter.batches][1:] == ["shape", "shape", "shape", "drained"]


def test_the_first_request_of_an_idle_model_is_released_because_it_is_idle() -> None:
    @on()
    async def _(bench: Bench) -> None:
        for number in range(3):
            assert await bench.ask(number) == [2 * number]
            await until(lambda: not bench.lane.busy)
            await until(lambda number=number: len(bench.meter.batches) == number + 1)
        assert bench.meter.batches == [(1, 1, "idle")] * 3


def test_batches_run_side_by_side_if_they_may() -> None:
    @on(Doubler(batch_rows=1), runs=2)
    async def _(bench: Bench) -> None:
        bench.model.go.clear()
        tasks = [bench.later(number) for number in range(4)]
        await until(lambda: bench.model.running == 2)
        bench.model.go.set()
        assert await asyncio.gather(*tasks) == [[0], [2], [4], [6]]
        assert bench.model.most == 2


def test_one_run_at_a_time_is_the_rule() -> None:
    @on(Doubler(batch_rows=1))
    async def _(bench: Bench) -> None:
        await asyncio.gather(*(bench.ask(number) for number in range(200)))
        assert bench.model.most == 1


# Limits.


def test_a_full_queue_refuses_at_once() -> None:
    @on(queue_rows=4)
    async def _(bench: Bench) -> None:
        tasks = [await bench.hold(), *(bench.later(1) for _ in range(3))]
        await bench.queued(3)
        with pytest.raises(TooManyRequests, match="full"):
            await bench.ask(1, 2)
        tasks.append(bench.later(1))
        await bench.queued(4)
        with pytest.raises(TooManyRequests, match="full"):
            await bench.ask(1)
        bench.model.go.set()
        assert await asyncio.gather(*tasks) == [[0], *[[2]] * 4]


def test_a_request_larger_than_the_queue_is_taken_when_nobody_waits() -> None:
    @on(queue_rows=4)
    async def _(bench: Bench) -> None:
        assert await bench.ask(*range(50)) == [2 * x for x in range(50)]


def test_who_could_not_be_answered_in_time_is_refused_before_any_work() -> None:
    @on(Doubler(run_seconds=1.0))
    async def _(bench: Bench) -> None:
        tasks = [await bench.hold(), bench.later(*range(10))]
        await bench.queued(10)
        with pytest.raises(TooManyRequests, match="in time"):
            await bench.ask(1, seconds=5)
        with pytest.raises(TooManyRequests, match="in time"):
            bench.lane.check_room(1, 5)
        bench.lane.check_room(1, 50)
        tasks.append(bench.later(1, seconds=50))
        bench.model.go.set()
        await asyncio.gather(*tasks)
        assert sum(map(len, bench.model.batches)) == 12


def test_what_the_model_really_takes_is_learned() -> None:
    """A model that was measured as slow and is fast refuses nobody for long."""

    @on(Doubler(run_seconds=100.0))
    async def _(bench: Bench) -> None:
        for _ in range(60):
            await bench.ask(1)
        task = await bench.hold()
        waiting = bench.later(*range(10))
        await bench.queued(10)
        bench.lane.check_room(1, 5)
        bench.model.go.set()
        await asyncio.gather(task, waiting)


# Time.


def test_a_deadline_passes_in_the_queue() -> None:
    @on()
    async def _(bench: Bench) -> None:
        first = await bench.hold()
        late = bench.later(1, seconds=0.05)
        await bench.queued(1)
        with pytest.raises(DeadlineExceeded):
            await late
        assert bench.lane.waiting_rows == 0
        bench.model.go.set()
        assert await first == [0]
        assert bench.model.batches == [[0]]  # what nobody waits for never runs


def test_a_deadline_passes_while_the_model_runs() -> None:
    @on()
    async def _(bench: Bench) -> None:
        bench.model.go.clear()
        late = bench.later(1, seconds=0.05)
        with pytest.raises(DeadlineExceeded):
            await late
        assert bench.lane.busy
        bench.model.go.set()
        assert await bench.ask(2) == [4]  # and not what the late one would have got


def test_a_deadline_that_has_passed_is_no_full_queue() -> None:
    @on()
    async def _(bench: Bench) -> None:
        with pytest.raises(DeadlineExceeded):
            await bench.ask(1, seconds=-1)
        assert await bench.ask(2) == [4]
        assert bench.lane.waiting_rows == 0


# Leaving.


def test_a_cancelled_request_frees_its_place() -> None:
    @on(queue_rows=1)
    async def _(bench: Bench) -> None:
        running = await bench.hold(1)
        waiting = bench.later(2)
        await bench.queued(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert bench.lane.waiting_rows == 0
        other = bench.later(3)
        await bench.queued(1)
        bench.model.go.set()
        assert await running == [2]
        assert await other == [6]
        assert bench.model.batches == [[1], [3]]  # what was cancelled never ran


def test_a_request_that_is_cancelled_while_it_runs_takes_nothing_from_those_beside_it() -> None:
    @on()
    async def _(bench: Bench) -> None:
        first = await bench.hold()
        tasks = [bench.later(number) for number in range(1, 4)]
        await bench.queued(3)
        bench.model.go.set()
        await first
        bench.model.go.clear()
        again = [bench.later(number) for number in range(1, 4)]
        await until(lambda: bench.lane.busy)
        again[0].cancel()
        await asyncio.gather(*again[:1], return_exceptions=True)
        bench.model.go.set()
        assert await asyncio.gather(*tasks) == [[2], [4], [6]]
        assert await asyncio.gather(*again[1:]) == [[4], [6]]


# Failures.


def test_an_error_reaches_its_own_request_only() -> None:
    @on()
    async def _(bench: Bench) -> None:
        tasks = [await bench.hold(), *(bench.later(value) for value in (1, FAILS, 3))]
        await bench.queued(3)
        bench.model.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [results[0], results[1], results[3]] == [[0], [2], [6]]
        assert isinstance(results[2], ModelFailed)
        assert "secret" not in str(results[2])
        assert bench.model.batches[1:] == [[1, FAILS, 3], [1], [FAILS], [3]]  # together, then each alone
        await until(lambda: len(bench.meter.batches) == 2)  # it was one batch, however it went


def test_a_batch_with_another_number_of_rows_goes_to_nobody() -> None:
    @on()
    async def _(bench: Bench) -> None:
        tasks = [await bench.hold(), *(bench.later(value, value + 0.5) for value in (1, 2))]
        tasks.append(bench.later(LOSES_A_ROW, 7))
        await bench.queued(6)
        bench.model.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[:3] == [[0], [2, 3], [4, 5]]
        assert isinstance(results[3], ModelFailed), "half an answer went out"


@pytest.mark.parametrize("run_seconds", [0.01, 1e-6], ids=["in the thread", "inline"])
@pytest.mark.parametrize("value", [FAILS, LOSES_A_ROW])
def test_a_failing_model_alone(run_seconds: float, value: float) -> None:
    @on(Doubler(run_seconds=run_seconds))
    async def _(bench: Bench) -> None:
        with pytest.raises(ModelFailed) as caught:
            await bench.ask(value, 1)
        assert "secret" not in str(caught.value)
        assert await bench.ask(2) == [4]


# The event loop itself.


def test_a_fast_model_runs_on_the_event_loop() -> None:
    @on(Doubler(run_seconds=1e-5))
    async def _(bench: Bench) -> None:
        assert await bench.ask(1) == [2]
        assert await bench.ask(*range(8)) == [2 * x for x in range(8)]
        assert set(bench.model.threads) == {threading.get_ident()}
        assert bench.meter.batches == [(1, 1, "idle"), (1, 8, "idle")]
        assert bench.meter.waits == [0.0, 0.0]
        assert await bench.ask(*range(100)) == [2 * x for x in range(100)]  # that is no short run any more
        assert len(bench.model.threads) == 2


def test_short_batches_take_turns_with_the_event_loop() -> None:
    @on(Doubler(run_seconds=1e-3))
    async def _(bench: Bench) -> None:
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            asyncio.get_running_loop().call_soon(turn)

        turn()
        assert await asyncio.gather(*(bench.ask(x) for x in range(20))) == [[2 * x] for x in range(20)]
        assert set(bench.model.threads) == {threading.get_ident()}
        assert [rows for _, rows, _ in bench.meter.batches] == [5, 5, 5, 5]  # as many as fit into 5 ms
        assert turns >= 4
        assert await bench.ask(*range(6)) == [2 * x for x in range(6)]  # more than fit: in a thread
        assert len(bench.model.threads) == 2
        assert await bench.ask(1) == [2]


def test_a_request_that_is_alone_runs_on_the_event_loop_if_it_is_short() -> None:
    @on(Doubler(run_seconds=4e-3))
    async def _(bench: Bench) -> None:
        assert await bench.ask(1, alone=True) == [2]
        assert set(bench.model.threads) == {threading.get_ident()}
        assert await bench.ask(1) == [2]
        assert len(bench.model.threads) == 2
        held = await bench.hold(7)
        beside = bench.later(8, alone=True)  # it is not: the model runs
        await bench.queued(1)
        bench.model.go.set()
        assert await asyncio.gather(held, beside) == [[14], [16]]


def test_a_model_that_may_not_run_on_the_event_loop_does_not() -> None:
    @on(Doubler(run_seconds=1e-6), inline=False)
    async def _(bench: Bench) -> None:
        assert await bench.ask(1, alone=True) == [2]
        assert threading.get_ident() not in bench.model.threads


# Large requests.


def test_a_large_request_runs_in_chunks() -> None:
    @on()
    async def _(bench: Bench) -> None:
        values = list(range(2 * CHUNK_ROWS + 3))
        assert await bench.ask(*values) == [2 * value for value in values]
        assert [len(batch) for batch in bench.model.batches] == [CHUNK_ROWS, CHUNK_ROWS, 3]


def test_a_large_request_that_nobody_waits_for_ends_between_two_chunks() -> None:
    @on()
    async def _(bench: Bench) -> None:
        large = await bench.hold(*range(50 * CHUNK_ROWS))
        large.cancel()
        await asyncio.gather(large, return_exceptions=True)
        bench.model.go.set()
        assert await bench.ask(1) == [2]
        assert len(bench.model.batches) == 2


# The end.


def test_draining_waits_for_those_who_came_before_and_takes_nobody_after() -> None:
    async def main() -> None:
        model, meter = Doubler(), Meter()
        bench = Bench(model, Lane(model, meter), meter)
        tasks = [await bench.hold(1), bench.later(2)]
        await bench.queued(1)
        drain = asyncio.ensure_future(bench.lane.drain(60))
        await asyncio.sleep(0.02)
        assert not drain.done()
        assert not meter.closed
        late = bench.later(3)  # the lane is still open for who has just looked it up
        await bench.queued(2)
        model.go.set()
        assert await asyncio.gather(*tasks, late) == [[2], [4], [6]]
        await drain
        assert meter.closed == 1
        with pytest.raises(Unavailable):
            await bench.ask(1)
        with pytest.raises(Unavailable):
            await bench.ask(1, alone=True)
        await ended_threads()

    run(main)


async def ended_threads() -> None:
    await until(lambda: not any(thread.name == "yunmo-lane" for thread in threading.enumerate()))


def test_a_lane_that_was_never_used_drains_at_once() -> None:
    @on()
    async def _(bench: Bench) -> None:
        await bench.lane.drain(0)
        assert bench.meter.closed == 1


def test_nobody_hangs_when_draining_takes_too_long() -> None:
    async def main() -> None:
        model, meter = Doubler(), Meter()
        bench = Bench(model, Lane(model, meter), meter)
        tasks = [await bench.hold(1), *(bench.later(number) for number in range(5))]
        await bench.queued(5)
        await bench.lane.drain(0.02)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {Unavailable}
        assert bench.lane.waiting_rows == 0
        told = len(meter.batches)
        model.go.set()
        await ended_threads()
        assert len(model.batches) == 1
        await asyncio.sleep(0.01)
        assert len(meter.batches) == told, "something was said of a version after its end"

    run(main)


# Runs that do not end.


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.05)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01, raising=False)


SHORT: dict[str, Any] = {"run_timeout": lambda: 0.05}


@pytest.mark.usefixtures("impatient")
def test_a_run_that_takes_too_long_is_stopped() -> None:
    stuck: list[int] = []

    @on(stuck=lambda: stuck.append(1), **SHORT)
    async def _(bench: Bench) -> None:
        with pytest.raises(ModelFailed):
            await bench.ask(HANGS)
        for number in range(3):
            assert await bench.ask(number) == [2 * number]
        with pytest.raises(ModelFailed):
            await bench.ask(HANGS)
        assert await bench.ask(4) == [8]

    assert not stuck


@pytest.mark.usefixtures("impatient")
def test_a_run_that_cannot_be_stopped_is_given_up_and_the_others_go_on() -> None:
    stuck: list[int] = []

    @on(stuck=lambda: stuck.append(threading.get_ident()), **SHORT)
    async def _(bench: Bench) -> None:
        hung = bench.later(NEVER_ENDS)
        await until(lambda: bench.lane.busy)
        others = [bench.later(number) for number in range(5)]
        with pytest.raises(ModelFailed):
            await hung
        assert await asyncio.gather(*others) == [[2 * number] for number in range(5)]
        assert stuck == [threading.get_ident()]  # once, on the event loop
        assert await bench.ask(7) == [14]
        assert len(bench.model.threads) == 2
        bench.model.end.set()  # what comes now, comes to nobody
        assert await bench.ask(8) == [16]
        await until(lambda: not bench.model.running)
        assert len(bench.meter.batches) == sum(1 for batch in bench.model.batches if NEVER_ENDS not in batch)


@pytest.mark.usefixtures("impatient")
def test_everybody_in_a_batch_that_does_not_end_is_answered() -> None:
    stuck: list[int] = []

    @on(stuck=lambda: stuck.append(1), **SHORT)
    async def _(bench: Bench) -> None:
        first = await bench.hold()
        hung = [bench.later(number) for number in (1, NEVER_ENDS, 3)]
        await bench.queued(3)
        bench.model.go.set()
        await first
        results = await asyncio.gather(*hung, return_exceptions=True)
        assert {type(result) for result in results} == {ModelFailed}
        assert stuck == [1]
        assert await bench.ask(7) == [14]


@pytest.mark.usefixtures("impatient")
def test_a_run_that_hangs_does_not_keep_a_lane_from_draining() -> None:
    async def main() -> None:
        model, meter, stuck = Doubler(), Meter(), list[int]()
        lane = Lane(model, meter, stuck=lambda: stuck.append(1), run_timeout=lambda: 0.05)
        bench = Bench(model, lane, meter)
        hung = bench.later(NEVER_ENDS)
        await until(lambda: lane.busy)
        try:
            await lane.drain(0)
            with pytest.raises(Unavailable):
                await hung
            await until(lambda: stuck)  # the thread is still lost, and with it a core
        finally:
            model.end.set()

    run(main)


# All together.


@pytest.fixture
def fair() -> random.Random:
    return random.Random(7)  # noqa: S311 (a test that is the same every time)


def made_up(chance: random.Random, number: int) -> list[float]:
    """Return the values of a request, all its own: some fail, a few are large."""
    kind = chance.random()
    if kind < 0.002:
        return [number + part / 1024 for part in range(3 * CHUNK_ROWS)]
    values = [number + part / 8 for part in range(chance.choice((1, 1, 1, 2, 5)))]
    return [FAILS, *values] if kind < 0.01 else values


@pytest.mark.parametrize("runs", [1, 3])
def test_ten_thousand_requests_get_their_own_answer_or_an_error(fair: random.Random, runs: int) -> None:
    count = 10_000

    @on(Doubler(run_seconds=2e-4), runs=runs, queue_rows=100_000)
    async def _(bench: Bench) -> None:
        outcomes: Counter[str] = Counter()

        async def one(number: int) -> None:
            values = made_up(fair, number)
            try:
                found = await bench.ask(*values, seconds=3600, wide=fair.choice((0, 0, 0, 2)))
            except ModelFailed:
                outcomes["failed"] += 1
                assert values[0] == FAILS
            except asyncio.CancelledError:
                outcomes["cancelled"] += 1
                assert asyncio.current_task() in cancelled
            else:
                outcomes["ok"] += 1
                # Exact: such fractions of small numbers are whole in float32.
                assert found == (2 * np.array(values, np.float32)).tolist()

        tasks: list[asyncio.Task[None]] = []
        cancelled: set[asyncio.Task[None]] = set()
        for number in range(count):
            tasks.append(asyncio.ensure_future(one(number)))
            if fair.random() < 0.2:
                await asyncio.sleep(0)
                # Only one that has begun, so that it can count its own end.
                victim = fair.choice(tasks)
                if victim.cancel():
                    cancelled.add(victim)
        _, pending = await asyncio.wait(tasks, timeout=50)
        assert not pending, "somebody was lost"
        for task in tasks:
            task.result()
        assert sum(outcomes.values()) == count
        assert min(outcomes[each] for each in ("ok", "failed", "cancelled")) > 0
        assert outcomes["ok"] > count * 0.7
        assert bench.lane.waiting_rows == 0
        await until(lambda: not bench.lane.busy)
        assert bench.model.most <= runs
        await until(lambda: bench.meter.depths[-1] == 0)
