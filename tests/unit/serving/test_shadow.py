from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fixtures.bundles import make_bundle

from yunmo.bundle.files import bundle_digest
from yunmo.core.snapshot import Deployment, Variant
from yunmo.inference.predictor import Predictor
from yunmo.serving import shadow as module
from yunmo.serving.lane import Lane
from yunmo.serving.routing import Loaded, Route
from yunmo.serving.shadow import Mirror, agree
from yunmo.serving.shelf import open_predictor

ROWS = [{"age": age, "city": "Berlin"} for age in (3, 40)]


class Meter:
    """Keeps what shadows are told."""

    def __init__(self) -> None:
        self.verdicts: list[bool | None] = []

    def begin(self) -> None: ...
    def request(self, face: Any, code: str, seconds: float) -> None: ...
    def waiting(self, rows: int) -> None: ...
    def batch(self, requests: int, rows: int, waits: Sequence[float], run_seconds: float, reason: Any) -> None: ...
    def close(self) -> None: ...

    def shadow(self, agrees: bool | None) -> None:
        self.verdicts.append(agrees)


class Slow:
    """A predictor that waits before it computes, or fails."""

    def __init__(self, predictor: Predictor, go: threading.Event, *, fails: bool = False) -> None:
        self._predictor = predictor
        self._go = go
        self._fails = fails
        self.run_seconds = 0.001  # too slow to be run on the event loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)

    def run(self, tensors: Any, stop: Any = None) -> Any:
        self._go.wait(10)
        if self._fails:
            raise RuntimeError("no")
        return self._predictor.run(tensors, stop)


@pytest.fixture(scope="module")
def predictors(
    tmp_path_factory: pytest.TempPathFactory, bundles: dict[str, Deployment], signer: tuple[Path, str]
) -> dict[str, Predictor]:
    """Also ``twin``: another table model that says cat and gives other prices."""
    folder = tmp_path_factory.mktemp("more") / "twin"
    make_bundle(folder, private_key=signer[0], always="cat", seed=7)
    variants = {name: each.live for name, each in bundles.items()}
    variants["twin"] = Variant("pets", 1, bundle_digest(folder), str(folder))
    return {name: open_predictor(each, signer[1], max_pixels=1_000_000) for name, each in variants.items()}


def route(live: Any, shadow: Any, meter: Meter) -> Route:
    variants = (Variant("pets", 1, "a", "/a"), Variant("pets", 2, "b", "/b", 100, "shadow"))
    first, second = (
        Loaded(variant, predictor, Lane(predictor, meter))
        for variant, predictor in zip(variants, (live, shadow), strict=True)
    )
    return Route(Deployment("pets", "p", variants), first, shadow=second)


async def settled(mirror: Mirror, meter: Meter, count: int) -> list[bool | None]:
    async with asyncio.timeout(10):
        while len(meter.verdicts) < count:
            await asyncio.sleep(0.005)
    await mirror.close()
    return meter.verdicts


def encode(predictor: Any) -> Any:
    return predictor.encode(ROWS)


@pytest.mark.parametrize(("other", "verdict"), [("cat", True), ("dog", False), ("image", None)])
def test_what_the_live_version_answered_is_compared(
    predictors: dict[str, Predictor], other: str, verdict: bool | None
) -> None:
    meter = Meter()

    async def main() -> None:
        found, mirror = route(predictors["cat"], predictors[other], meter), Mirror()
        mirror.show(found, found.live, encode, len(ROWS), predictors["cat"].run(encode(predictors["cat"])))
        assert meter.verdicts == []  # nothing runs before the caller goes on
        assert await settled(mirror, meter, 1) == [verdict]

    asyncio.run(main())


def test_only_the_live_versions_answers_are_compared(predictors: dict[str, Predictor]) -> None:
    meter = Meter()

    async def main() -> None:
        found, mirror = route(predictors["cat"], predictors["dog"], meter), Mirror()
        assert found.shadow is not None
        mirror.show(found, found.shadow, encode, 2, {})
        mirror.show(Route(found.deployment, found.live), found.live, encode, 2, {})
        await mirror.close()
        assert meter.verdicts == []

    asyncio.run(main())


def test_a_shadow_without_room_drops_copies_and_holds_nobody_up(predictors: dict[str, Predictor]) -> None:
    meter, go = Meter(), threading.Event()
    live = predictors["cat"]
    answers = live.run(encode(live))

    async def main() -> None:
        found, mirror = route(live, Slow(live, go), meter), Mirror()
        for _ in range(module.ROOM + 5):
            mirror.show(found, found.live, encode, len(ROWS), answers)
        assert meter.verdicts == [None] * 5
        go.set()
        assert await settled(mirror, meter, module.ROOM + 5) == [None] * 5 + [True] * module.ROOM

    asyncio.run(main())


def test_a_shadow_that_always_fails_is_counted_and_nothing_else(predictors: dict[str, Predictor]) -> None:
    meter, go = Meter(), threading.Event()
    go.set()
    live = predictors["cat"]

    def broken(_: Any) -> Any:
        raise RuntimeError("a defect")

    async def main() -> None:
        found, mirror = route(live, Slow(live, go, fails=True), meter), Mirror()
        mirror.show(found, found.live, encode, len(ROWS), live.run(encode(live)))
        mirror.show(found, found.live, broken, len(ROWS), {})
        assert await settled(mirror, meter, 2) == [None, None]
        assert found.shadow is not None
        await found.shadow.lane.drain(1)

    asyncio.run(main())


def test_a_shadow_that_is_unloaded_waits_for_its_copies(predictors: dict[str, Predictor]) -> None:
    meter, go = Meter(), threading.Event()
    live = predictors["cat"]

    async def main() -> None:
        found, mirror = route(live, Slow(live, go), meter), Mirror()
        assert found.shadow is not None
        mirror.show(found, found.live, encode, len(ROWS), live.run(encode(live)))
        await asyncio.sleep(0)
        draining = asyncio.ensure_future(found.shadow.lane.drain(10))
        await asyncio.sleep(0.05)
        assert not draining.done()
        go.set()
        await draining
        assert await settled(mirror, meter, 1) == [True]

    asyncio.run(main())


def test_numbers_agree_if_they_are_near_and_labels_by_name(predictors: dict[str, Predictor]) -> None:
    cat, twin = predictors["cat"], predictors["twin"]
    expected = {"label": np.array([[0.9, 0.1, 0.0]]), "price": np.array([100.0], np.float32)}
    assert agree(cat, expected, twin, expected | {"price": np.array([104.0], np.float32)}) is True
    assert agree(cat, expected, twin, expected | {"price": np.array([106.0], np.float32)}) is False
    assert agree(cat, expected, twin, expected | {"price": np.array([np.nan], np.float32)}) is False
    assert agree(cat, expected, twin, expected | {"price": np.ones((1, 2), np.float32)}) is None
    assert agree(cat, expected, twin, expected | {"label": np.array([[0.4, 0.3, 0.3]])}) is True
    assert agree(cat, expected, twin, expected | {"label": np.array([[0.1, 0.9, 0.0]])}) is False
    swapped = partial(agree, cat, expected, Renamed(twin, ["dog", "cat", "fish"]))  # type: ignore[arg-type]
    assert swapped(expected | {"label": np.array([[0.1, 0.9, 0.0]])}) is True
    assert swapped(expected) is False
    assert agree(cat, expected, predictors["image"], {"label": expected["label"]}) is None


class Renamed:
    """A predictor's categories under other names."""

    def __init__(self, predictor: Predictor, names: list[str]) -> None:
        self.categories = predictor.categories | {"label": names}
        self.labels = predictor.labels
