from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest

from yunmo.core.access import Principal
from yunmo.core.errors import NotFound
from yunmo.core.snapshot import Deployment, Sticky, Variant
from yunmo.serving.routing import Loaded, Route, place

CALLERS = [f"user {number}" for number in range(2000)]


class Call(msgspec.Struct):
    """What routing looks at."""

    sticky: str | None = None
    version: int | None = None
    key_id: str = "key_1"

    @property
    def principal(self) -> Principal:
        return Principal(self.key_id, "p", frozenset({"predict"}), None)


def loaded(variant: Variant) -> Loaded:
    unused: Any = None  # routing never touches the model
    return Loaded(variant, unused, unused)


def route(weight: int, *, sticky: Sticky = "request", endpoint: str = "pets", shadow: bool = False) -> Route:
    live = Variant("pets", 1, "a", "/a", 100 - weight)
    canary = Variant("pets", 2, "b", "/b", weight, "canary")
    other = Variant("pets", 3, "c", "/c", 100, "shadow")
    deployment = Deployment(endpoint, "p", (live, canary, other) if shadow else (live, canary), sticky=sticky)
    return Route(deployment, loaded(live), loaded(canary), loaded(other) if shadow else None)


def side(found: Route, **call: Any) -> str:
    return found.choose(Call(**call)).variant.role


def canaries(found: Route) -> set[str]:
    return {each for each in CALLERS if side(found, sticky=each) == "canary"}


def test_the_canarys_share_is_exactly_the_first_places() -> None:
    for weight in (1, 10, 50, 99):
        assert canaries(route(weight)) == {each for each in CALLERS if place("pets", each) < weight * 100}


def test_a_growing_share_keeps_everybody_on_their_side() -> None:
    sets = [canaries(route(weight)) for weight in (1, 5, 10, 20, 50, 99)]
    assert all(smaller < larger for smaller, larger in pairwise(sets))
    # 2000 fixed names: these counts never change, whatever the machine or Python.
    assert [len(each) for each in sets] == [30, 117, 226, 420, 1016, 1976]


def test_places_are_the_same_in_every_process_and_differ_between_endpoints() -> None:
    assert [place("pets", "user 1"), place("pets", "用户"), place("other", "user 1")] == [2297, 1891, 6369]
    assert canaries(route(10)) != canaries(route(10, endpoint="other"))


def test_the_header_decides_then_the_key_then_chance() -> None:
    by_key = route(50, sticky="key")
    keys = {key: side(by_key, key_id=key) for key in CALLERS[:200]}
    assert set(keys.values()) == {"live", "canary"}
    assert all(side(by_key, key_id=key) == found for key, found in keys.items())
    assert {side(by_key, sticky="user 1", key_id=key) for key in keys} == {side(by_key, sticky="user 1")}
    # Chance: one caller sees both sides. 1000 draws that all fall on one side don't happen (2 to the power of -999).
    assert {side(route(50)) for _ in range(1000)} == {"live", "canary"}


def test_a_version_can_be_asked_for_if_it_has_traffic() -> None:
    found = route(1, shadow=True)
    assert side(found, version=1, sticky="x") == "live"
    assert side(found, version=2, sticky="x") == "canary"
    for version in (3, 4):  # a shadow is never returned
        with pytest.raises(NotFound, match=f"version {version}"):
            found.choose(Call(version=version))


def test_without_a_canary_everything_is_the_live_ones() -> None:
    live = Variant("pets", 1, "a", "/a")
    found = Route(Deployment("pets", "p", (live,), sticky="key"), loaded(live))
    assert {side(found, sticky=each) for each in CALLERS} == {"live"}


def test_a_deployment_that_nobody_could_route_is_refused() -> None:
    live, canary = Variant("m", 1, "a", "/a"), Variant("m", 2, "b", "/b", 10, "canary")
    for variants in ((), (canary,), (canary, live), (live, canary, canary)):
        with pytest.raises(ValueError, match="one live variant"):
            Deployment("e", "p", variants)
