from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.serving.parts import Watcher
from tests.unit.serving.wire import run, until

from yunmo.core.access import Principal, Scope
from yunmo.core.errors import (
    DeadlineExceeded,
    Forbidden,
    InvalidInput,
    ModelFailed,
    NotFound,
    TooManyRequests,
    Unavailable,
    YunmoError,
)
from yunmo.core.snapshot import Deployment, Limits, Snapshot, Variant, encode_snapshot
from yunmo.serving.admission import Admission
from yunmo.serving.dataplane import INLINE_BYTES, Call, DataPlane
from yunmo.serving.deployments import Deployments
from yunmo.serving.gate import Keyring
from yunmo.serving.lane import Lane

BROKEN = -1.0
"""A number that encoding has a defect with."""
ODD = -2.0
"""A number that decoding has a defect with."""
FAILS = -3.0


class Adder:
    """A model that adds its version to ``x``; it can be held up."""

    run_seconds = 0.004  # too long for the event loop, except for a request that is alone
    batch_rows = 16
    isolated = False
    inline = True

    def __init__(self, version: int) -> None:
        self.version = version
        self.go = threading.Event()
        self.go.set()
        self.entered = 0
        self.encoded_in: set[int] = set()

    def new_stop(self) -> threading.Event:
        return threading.Event()

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return self.encode_columns({"x": [row["x"] for row in rows]}, len(rows))

    def encode_columns(self, columns: Mapping[str, Any], rows: int) -> dict[str, Any]:
        self.encoded_in.add(threading.get_ident())
        x = columns["x"]
        if len(x) != rows or "no" in x:
            raise InvalidInput("that is no number", where="row 0, field x")
        if BROKEN in x:
            raise ZeroDivisionError("secret")
        return {"x": np.array(x, np.float32)}

    def run(self, tensors: Mapping[str, Any], stop: Any = None) -> dict[str, Any]:
        del stop
        self.entered += 1
        assert self.go.wait(60)
        if FAILS in tensors["x"]:
            raise ZeroDivisionError("secret")
        return {"y": tensors["x"] + self.version}

    def decode(self, answers: Mapping[str, Any]) -> list[dict[str, Any]]:
        if ODD + self.version in answers["y"]:
            raise ZeroDivisionError("secret")
        return [{"y": value} for value in answers["y"].tolist()]

    def close(self) -> None: ...


def who(*scopes: Scope, key: str = "key_1", endpoints: frozenset[str] | None = None, project: str = "p") -> Principal:
    return Principal(key, project, frozenset(scopes or ("predict",)), endpoints)


def call(principal: Principal | None = None, endpoint: str = "pets", **more: Any) -> Call:
    return Call(endpoint, principal or who(), **more)


class World:
    """A data plane on models of numbers; versions 1 and 2 are opened, 3 cannot be."""

    def __init__(self, folder: Path, deployment: Deployment, timeout: float = 60.0) -> None:
        snapshot = folder / "snapshot.json"
        snapshot.write_bytes(encode_snapshot(Snapshot(1, (), (deployment,), "")))
        self.models: dict[int, Adder] = {}
        self.watcher = Watcher()
        self.admission = Admission(folder / "workers", "1")
        self.deployment = deployment
        self.deployments = Deployments(
            snapshot, None, Keyring(), drain_timeout=20, open_predictor=self.open, make_lane=self.lane
        )
        self.plane = DataPlane(self.deployments, self.admission, timeout=timeout)

    def open(self, variant: Variant, _trusted_key: str, **_more: Any) -> Any:
        if variant.version == 3:
            raise InvalidInput("it cannot be opened")
        return self.models.setdefault(variant.version, Adder(variant.version))

    def lane(self, deployment: Deployment, variant: Variant, predictor: Any) -> Lane:
        meter = self.watcher.lane(deployment.project_id, deployment.endpoint, variant.model, variant.version)
        return Lane(predictor, meter)

    async def y(self, *values: float, asked: Call | None = None) -> list[float]:
        """Ask, and return what was answered."""
        rows = [{"x": value} for value in values]
        answer = await self.plane.predict(asked or call(), rows)
        assert answer.endpoint == "pets"
        assert answer.model == "m"
        assert [each["y"] for each in answer.predictions] == [value + answer.version for value in values]
        return [each["y"] for each in answer.predictions]

    def meter(self, version: int) -> Any:
        return self.watcher.meters["p", "pets", version]

    def in_progress(self) -> int:
        """Count what admission holds; the test's deployment needs a limit for that."""
        free = 0
        held = []
        limit = self.deployment.limits.concurrency
        assert limit is not None
        while free <= limit:
            try:
                entry = self.admission.enter(self.deployment, 0)
            except TooManyRequests:
                break
            entry.__enter__()
            held.append(entry)
            free += 1
        for entry in held:
            entry.__exit__(None, None, None)
        return limit - free


def on(
    folder: Path,
    *more: Variant,
    timeout: float = 60.0,
    timeout_limit: float | None = None,
    sticky: Any = "request",
    **limits: Any,
) -> Any:
    """Run a test on a data plane."""
    live = Variant("m", 1, "sha256:1", "/1", 100 - sum(each.weight for each in more if each.role == "canary"))
    deployment = Deployment("pets", "p", (live, *more), Limits(timeout=timeout_limit, **limits), sticky)

    def decorate(work: Callable[[World], Awaitable[None]]) -> None:
        async def main() -> None:
            world = World(folder, deployment, timeout)
            await world.deployments.start()
            try:
                await work(world)
            finally:
                for model in world.models.values():
                    model.go.set()
                await world.deployments.stop()
                await world.plane.mirror.close()

        run(main)

    return decorate


def canary(weight: int) -> Variant:
    return Variant("m", 2, "sha256:2", "/2", weight, "canary")


def test_rows_and_columns_get_the_same_answers(tmp_path: Path) -> None:
    @on(tmp_path)
    async def _(world: World) -> None:
        assert await world.y(1, 2, 3) == [2, 3, 4]
        seen = []

        def columns(predictor: Any) -> Any:
            seen.append(predictor)
            return {"x": np.arange(3.0)}

        inferred = await world.plane.infer(call(), columns, 3)
        assert (inferred.model, inferred.version) == ("m", 1)
        assert inferred.tensors["y"].tolist() == [1, 2, 3]
        assert inferred.predictor is world.models[1]
        assert seen == [world.models[1]]


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (call(who("read")), Forbidden),
        (call(who("read"), "none"), Forbidden),
        (call(endpoint="none"), NotFound),
        (call(who(project="q")), NotFound),
        (call(who(endpoints=frozenset({"others"}))), NotFound),
        (call(version=9), NotFound),
    ],
)
def test_who_may_call_what(tmp_path: Path, asked: Call, error: type[YunmoError]) -> None:
    @on(tmp_path, concurrency=2)
    async def _(world: World) -> None:
        with pytest.raises(error):
            await world.y(1, asked=asked)
        assert asked.meter is None
        assert world.in_progress() == 0
        assert not world.models[1].entered


def test_looking_is_not_calling(tmp_path: Path) -> None:
    @on(tmp_path)
    async def _(world: World) -> None:
        for principal in (who("read"), who("write"), who("predict"), who("admin")):
            assert world.plane.route("pets", principal, read=True).live.variant.version == 1
            assert world.plane.endpoints(principal).keys() == {"pets"}
        for principal in (who("predict", endpoints=frozenset()), who(project="q")):
            with pytest.raises(NotFound):
                world.plane.route("pets", principal, read=True)
            assert not world.plane.endpoints(principal)


def test_what_cannot_be_loaded_is_unavailable_and_not_unknown(tmp_path: Path) -> None:
    async def main() -> None:
        deployment = Deployment("pets", "p", (Variant("m", 3, "sha256:3", "/3"),))
        world = World(tmp_path, deployment)
        await world.deployments.start()
        with pytest.raises(Unavailable):
            await world.y(1)
        with pytest.raises(NotFound):
            await world.y(1, asked=call(who(endpoints=frozenset())))
        assert world.plane.endpoints(who()) == {"pets": None}
        await world.deployments.stop()

    run(main)


def test_a_request_for_one_version_gets_that_one(tmp_path: Path) -> None:
    @on(tmp_path, canary(1), Variant("m", 4, "sha256:4", "/4", 100, "standby"))
    async def _(world: World) -> None:
        for version in (1, 2):
            for number in range(20):
                assert await world.y(number, asked=call(version=version)) == [number + version]
        for version in (3, 4, 0):
            with pytest.raises(NotFound):
                await world.y(1, asked=call(version=version))
        assert world.meter(2).begun == 20


def test_who_sticks_stays_on_one_side(tmp_path: Path) -> None:
    @on(tmp_path, canary(50))
    async def _(world: World) -> None:
        sides = {}
        for name in "abcdefghijklmnopqrstuvwxyz":
            found = {(await world.y(0, asked=call(who(key=f"key_{turn}"), sticky=name)))[0] for turn in range(5)}
            assert len(found) == 1
            sides[name] = found.pop()
        assert set(sides.values()) == {1, 2}


def test_keys_stick_if_the_endpoint_says_so(tmp_path: Path) -> None:
    @on(tmp_path, canary(50), sticky="key")
    async def _(world: World) -> None:
        sides = set()
        for number in range(30):
            found = {(await world.y(0, asked=call(who(key=f"key_{number}"))))[0] for _ in range(4)}
            assert len(found) == 1
            sides |= found
        assert sides == {1, 2}


@pytest.mark.parametrize(
    ("installation", "endpoint", "asked"),
    [(0.05, None, None), (60, 0.05, None), (60, None, 0.05), (60, 60, 0.05), (0.05, None, 60), (60, 0.05, 60)],
)
def test_the_shortest_time_holds(
    tmp_path: Path, installation: float, endpoint: float | None, asked: float | None
) -> None:
    @on(tmp_path, timeout=installation, timeout_limit=endpoint)
    async def _(world: World) -> None:
        world.models[1].go.clear()
        world.plane.activity.requests = 2
        with pytest.raises(DeadlineExceeded):
            await world.y(1, asked=call(timeout=asked))


def test_the_endpoints_time_may_be_longer_than_the_installations(tmp_path: Path) -> None:
    @on(tmp_path, timeout=0.05, timeout_limit=60.0, concurrency=1)
    async def _(world: World) -> None:
        world.models[1].go.clear()
        world.plane.activity.requests = 2
        task = asyncio.ensure_future(world.y(1))
        await until(lambda: world.models[1].entered)
        done, _ = await asyncio.wait((task,), timeout=0.2)
        assert not done
        world.models[1].go.set()
        assert await task == [2]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (["no"], InvalidInput),
        ([], InvalidInput),
        ([BROKEN], ModelFailed),
        ([FAILS], ModelFailed),
        ([ODD], ModelFailed),
    ],
)
@pytest.mark.parametrize("size", [0, INLINE_BYTES + 1], ids=["small", "large"])
@pytest.mark.parametrize("requests", [1, 2], ids=["alone", "among others"])
def test_whatever_goes_wrong_gives_its_place_back_and_tells_nothing(
    tmp_path: Path, values: Any, error: type[YunmoError], size: int, requests: int
) -> None:
    @on(tmp_path, concurrency=2, queue=5)
    async def _(world: World) -> None:
        world.plane.activity.requests = requests
        asked = call(size=size)
        with pytest.raises(error) as caught:
            await world.y(*values, asked=asked)
        assert "secret" not in str(caught.value)
        assert world.in_progress() == 0
        assert (asked.meter is not None) == bool(values)
        if values:
            assert world.meter(1).begun == 1
            assert world.meter(1).ended == []  # that is said by who made the call
        assert await world.y(1, asked=call(size=size)) == [2]


def test_large_requests_are_translated_in_a_thread(tmp_path: Path) -> None:
    @on(tmp_path)
    async def _(world: World) -> None:
        await world.y(1, asked=call(size=INLINE_BYTES))
        assert world.models[1].encoded_in == {threading.get_ident()}
        await world.y(1, asked=call(size=INLINE_BYTES + 1))
        assert len(world.models[1].encoded_in) == 2


def test_the_endpoints_limits_hold_and_every_place_comes_back(tmp_path: Path) -> None:
    @on(tmp_path, concurrency=3)
    async def _(world: World) -> None:
        world.models[1].go.clear()
        world.plane.activity.requests = 9
        tasks = [asyncio.ensure_future(world.y(number)) for number in range(3)]
        await until(lambda: world.models[1].entered)
        asked = call()
        with pytest.raises(TooManyRequests, match="3 requests at a time"):
            await world.y(7, asked=asked)
        assert asked.meter is not None  # it belongs to the version that it would have gone to
        tasks[2].cancel()
        await asyncio.gather(tasks[2], return_exceptions=True)
        assert world.in_progress() == 2
        tasks[2] = asyncio.ensure_future(world.y(5, asked=call(timeout=0.05)))
        with pytest.raises(DeadlineExceeded):
            await tasks[2]
        assert world.in_progress() == 2
        world.models[1].go.set()
        assert await asyncio.gather(*tasks[:2]) == [[1], [2]]
        assert world.in_progress() == 0


def test_only_a_request_that_is_alone_runs_on_the_event_loop(tmp_path: Path) -> None:
    @on(tmp_path)
    async def _(world: World) -> None:
        def lanes() -> int:
            return sum(thread.name == "yunmo-lane" for thread in threading.enumerate())

        before = lanes()
        world.plane.activity.requests = 1
        await world.y(1)
        assert lanes() == before
        world.plane.activity.requests = 2
        await world.y(1)
        assert lanes() > before
