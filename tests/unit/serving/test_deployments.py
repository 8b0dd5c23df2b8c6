from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.serving.parts import make_lane

from yunmo.core.access import KeyRecord, new_key
from yunmo.core.snapshot import Deployment, EndpointState, Role, Snapshot, Variant, WorkerState, encode_snapshot
from yunmo.serving.deployments import Deployments
from yunmo.serving.gate import Keyring
from yunmo.serving.routing import Loaded, Route
from yunmo.serving.shelf import open_predictor as open_limited

open_predictor = partial(open_limited, max_pixels=1_000_000)

ROW = {"age": 3, "city": "Berlin"}


class Place:
    """A worker's view: the snapshot file, its state file, and its deployments."""

    def __init__(self, folder: Path, public: str, **more: Any) -> None:
        self.folder, self.public = folder, public
        self.snapshot, self.state_path = folder / "snapshot.json", folder / "workers" / "1.json"
        self.keyring = Keyring()
        self.deployments = Deployments(
            self.snapshot,
            self.state_path,
            self.keyring,
            drain_timeout=1,
            **{"open_predictor": open_predictor, "make_lane": make_lane, **more},
        )

    def publish(self, number: int, *deployments: Deployment, keys: tuple[KeyRecord, ...] = ()) -> None:
        temporary = self.folder / "new"
        temporary.write_bytes(encode_snapshot(Snapshot(number, keys, deployments, self.public)))
        temporary.replace(self.snapshot)

    async def applied(self, number: int) -> WorkerState:
        await until(lambda: self.deployments.applied >= number)
        return self.state

    @property
    def state(self) -> WorkerState:
        return msgspec.json.decode(self.state_path.read_bytes(), type=WorkerState)

    @property
    def pets(self) -> EndpointState:
        return self.state.endpoints["p/pets"]

    def route(self, endpoint: str = "pets", project: str = "p") -> Route:
        route = self.deployments.route(project, endpoint)
        assert route is not None
        return route

    def label(self, endpoint: str = "pets", project: str = "p") -> str:
        return label(self.route(endpoint, project).live)


def label(loaded: Loaded | None) -> str:
    assert loaded is not None
    return str(loaded.predictor.predict([ROW])[0]["label"]["value"])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def place(tmp_path: Path, signer: tuple[Path, str]) -> Place:
    return Place(tmp_path, signer[1])


def renamed(
    deployment: Deployment, *, endpoint: str | None = None, project: str | None = None, **live: Any
) -> Deployment:
    return msgspec.structs.replace(
        deployment,
        endpoint=endpoint or deployment.endpoint,
        project_id=project or deployment.project_id,
        variants=(msgspec.structs.replace(deployment.live, **live), *deployment.variants[1:]),
    )


def beside(deployment: Deployment, other: Deployment, role: Role, weight: int = 10, **more: Any) -> Deployment:
    """Give the live version of another deployment a part beside that of this one; it is version 2."""
    added = msgspec.structs.replace(other.live, **{"version": 2, "role": role, "weight": weight, **more})
    return msgspec.structs.replace(deployment, variants=(*deployment.variants, added))


def test_a_new_version_takes_over_and_the_state_says_so(place: Place, bundles: dict[str, Deployment]) -> None:
    async def main() -> None:
        place.publish(1, bundles["cat"])
        await place.deployments.start()
        assert place.label() == "cat"
        old = place.deployments.route("p", "pets")
        place.publish(2, renamed(bundles["dog"], version=2))
        state = await place.applied(2)
        assert place.label() == "dog"
        assert state.endpoints == {"p/pets": EndpointState(2, (bundles["dog"].live.digest,))}
        assert old is not place.deployments.route("p", "pets")
        await until(lambda: place.deployments.open_bundles == {bundles["dog"].live.digest})
        await place.deployments.stop()
        assert not place.state_path.exists()
        assert place.deployments.open_bundles == frozenset()

    asyncio.run(main())


def test_a_bad_bundle_keeps_the_old_version_and_is_reported(
    place: Place, bundles: dict[str, Deployment], tmp_path: Path
) -> None:
    folder = shutil.copytree(bundles["dog"].live.path, tmp_path / "changed")
    (folder / "weights.safetensors").write_bytes(b"changed")
    bad = renamed(bundles["dog"], path=str(folder))
    digest = bad.live.digest

    async def main() -> None:
        place.publish(1, bundles["cat"])
        await place.deployments.start()
        before = place.route()
        for number, wanted in enumerate(
            (renamed(bad, version=2), beside(bundles["cat"], bad, "canary"), beside(bundles["cat"], bad, "shadow")), 2
        ):
            place.publish(number, wanted)
            await place.applied(number)
            assert place.route() is before
            assert place.pets.loaded == (bundles["cat"].live.digest,)
            assert "weights.safetensors" in place.pets.failed[digest]
        place.publish(9, bundles["cat"])
        await place.applied(9)
        assert place.pets.failed == {}
        await place.deployments.stop()

    asyncio.run(main())


def test_another_signed_bundle_in_its_place_is_refused(
    bundles: dict[str, Deployment], signer: tuple[Path, str]
) -> None:
    from yunmo.core.errors import IntegrityError

    with pytest.raises(IntegrityError, match="digest"):
        open_predictor(renamed(bundles["cat"], path=bundles["dog"].live.path).live, signer[1])
    with pytest.raises(IntegrityError, match="not there"):
        open_predictor(renamed(bundles["cat"], path="/nowhere").live, signer[1])


def test_an_endpoint_that_is_taken_away_is_gone(place: Place, bundles: dict[str, Deployment]) -> None:
    async def main() -> None:
        place.publish(1, bundles["cat"], renamed(bundles["dog"], endpoint="other"))
        await place.deployments.start()
        assert place.deployments.counts == (2, 0)
        place.publish(2, bundles["cat"])
        assert (await place.applied(2)).endpoints.keys() == {"p/pets"}
        assert place.deployments.route("p", "other") is None
        assert place.deployments.route("q", "pets") is None
        await place.deployments.stop()

    asyncio.run(main())


def test_endpoints_of_one_name_in_two_projects_are_two(place: Place, bundles: dict[str, Deployment]) -> None:
    async def main() -> None:
        place.publish(1, bundles["cat"], renamed(bundles["dog"], project="q"))
        await place.deployments.start()
        assert (place.label(), place.label(project="q")) == ("cat", "dog")
        assert {key: each.loaded for key, each in place.state.endpoints.items()} == {
            "p/pets": (bundles["cat"].live.digest,),
            "q/pets": (bundles["dog"].live.digest,),
        }
        place.publish(2, renamed(bundles["dog"], project="q"))
        await place.applied(2)
        assert place.state.endpoints.keys() == {"q/pets"}
        await place.deployments.stop()

    asyncio.run(main())


def test_a_promoted_canary_keeps_its_lane_and_the_old_version_stays_for_a_rollback(
    place: Place, bundles: dict[str, Deployment]
) -> None:
    cat, dog = bundles["cat"], bundles["dog"]

    async def main() -> None:
        place.publish(1, cat)
        await place.deployments.start()
        live = place.route().live
        place.publish(2, beside(cat, dog, "canary"))
        await place.applied(2)
        trial = place.route().canary
        assert trial is not None
        assert (label(place.route().live), label(trial)) == ("cat", "dog")
        assert place.route().live.lane is live.lane
        until_then = time.time() + 600
        place.publish(3, beside(renamed(dog, version=2), cat, "standby", version=1, until=until_then))
        await place.applied(3)
        assert place.route().live.lane is trial.lane
        assert place.route().standby is not None
        assert place.pets.loaded == (dog.live.digest, cat.live.digest)
        place.publish(4, beside(cat, dog, "standby", until=until_then))
        await place.applied(4)
        assert place.route().live.lane is live.lane
        assert place.label() == "cat"
        await place.deployments.stop()

    asyncio.run(main())


def test_requests_in_progress_are_answered_by_a_version_that_is_taken_away(
    place: Place, bundles: dict[str, Deployment]
) -> None:
    async def main() -> None:
        place.publish(1, bundles["cat"])
        await place.deployments.start()
        old = place.route().live
        with old.lane:
            place.publish(2, renamed(bundles["dog"], version=2))
            await place.applied(2)
            tensors = old.predictor.encode([ROW])
            answers = await old.lane.run(tensors, 1, asyncio.get_running_loop().time() + 5)
            assert old.predictor.decode(answers)[0]["label"]["value"] == "cat"
            assert bundles["cat"].live.digest in place.deployments.open_bundles
        await until(lambda: bundles["cat"].live.digest not in place.deployments.open_bundles)
        await place.deployments.stop()

    asyncio.run(main())


def test_a_standby_is_given_up_when_its_time_is_over(place: Place, bundles: dict[str, Deployment]) -> None:
    async def main() -> None:
        place.publish(1, bundles["cat"])
        await place.deployments.start()
        wanted = renamed(bundles["dog"], version=2)
        place.publish(2, beside(wanted, bundles["cat"], "standby", version=1, until=time.time() + 1))
        await place.applied(2)
        await until(lambda: place.deployments.open_bundles == {bundles["dog"].live.digest})
        assert place.route().standby is None
        assert place.pets.loaded == (bundles["dog"].live.digest,)
        # A worker that starts later does not load it.
        place.publish(3, beside(wanted, bundles["cat"], "standby", version=1, until=time.time() - 1))
        await place.applied(3)
        assert place.deployments.open_bundles == {bundles["dog"].live.digest}
        await place.deployments.stop()

    asyncio.run(main())


def test_a_worker_that_starts_anew_loads_its_standby_after_all_else(
    place: Place, bundles: dict[str, Deployment], tmp_path: Path, signer: tuple[Path, str]
) -> None:
    go = threading.Event()

    def opener(variant: Variant, trusted_key: str, **more: Any) -> Any:
        assert variant.role != "standby" or go.wait(10)
        return open_predictor(variant, trusted_key, **more)

    place = Place(tmp_path, signer[1], open_predictor=opener)

    async def main() -> None:
        place.publish(1, beside(bundles["cat"], bundles["dog"], "standby", until=time.time() + 600))
        await place.deployments.start()  # does not wait for it
        assert place.label() == "cat"
        assert place.route().standby is None
        assert place.pets.loaded == (bundles["cat"].live.digest,)
        go.set()
        await until(lambda: place.route().standby is not None)
        assert place.pets.loaded == (bundles["cat"].live.digest, bundles["dog"].live.digest)
        await place.deployments.stop()

    asyncio.run(main())


def test_a_worker_that_starts_anew_answers_with_what_it_can_load(place: Place, bundles: dict[str, Deployment]) -> None:
    bad = renamed(bundles["dog"], path="/nowhere")

    async def main() -> None:
        place.publish(1, beside(bundles["cat"], bad, "canary"))
        await place.deployments.start()
        assert place.label() == "cat"
        assert place.route().canary is None
        assert place.pets.failed.keys() == {bad.live.digest}
        # Another change of the endpoint is not held up by it.
        limited = msgspec.structs.replace(beside(bundles["cat"], bad, "canary"), sticky="key")
        place.publish(2, limited)
        await place.applied(2)
        assert place.route().deployment.sticky == "key"
        await place.deployments.stop()

    asyncio.run(main())


def test_one_copy_of_a_bundle_serves_all_endpoints_each_with_a_lane_of_its_own(
    tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment]
) -> None:
    opened: list[str] = []

    def opener(variant: Variant, trusted_key: str, **more: Any) -> Any:
        opened.append(variant.digest)
        return open_predictor(variant, trusted_key, **more)

    place = Place(tmp_path, signer[1], open_predictor=opener)
    cat = bundles["cat"]

    async def main() -> None:
        place.publish(1, cat, renamed(cat, endpoint="other"), renamed(cat, project="q"))
        await place.deployments.start()
        assert opened == [cat.live.digest]
        first, second = place.route().live, place.route("other").live
        assert first.predictor is second.predictor
        assert first.lane is not second.lane
        place.publish(2, renamed(cat, endpoint="other"))
        await place.applied(2)
        assert place.label("other") == "cat"
        assert place.deployments.open_bundles == {cat.live.digest}
        place.publish(3)
        await place.applied(3)
        await until(lambda: not place.deployments.open_bundles)
        await place.deployments.stop()

    asyncio.run(main())


def test_unloaded_models_leave_nothing_behind(
    tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment]
) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    def opener(variant: Variant, trusted_key: str, **more: Any) -> Any:
        predictor = open_predictor(variant, trusted_key, **more)
        alive.add(predictor)
        return predictor

    place = Place(tmp_path, signer[1], open_predictor=opener)

    async def main() -> None:
        place.publish(1, bundles["cat"])
        await place.deployments.start()
        threads = threading.active_count()
        for number in range(2, 22):
            name = "dog" if number % 2 == 0 else "cat"
            place.publish(number, renamed(bundles[name], version=number))
            await place.applied(number)
            await until(lambda: len(place.deployments.open_bundles) == 1)
        gc.collect()
        assert len(alive) == 1
        assert threading.active_count() <= threads + 2
        await place.deployments.stop()

    asyncio.run(main())
    gc.collect()
    assert len(alive) == 0


def slow_opener(slow: str, go: threading.Event) -> Callable[..., Any]:
    def opener(variant: Variant, trusted_key: str, **more: Any) -> Any:
        if variant.digest == slow:
            go.wait(10)
        return open_predictor(variant, trusted_key, **more)

    return opener


def test_endpoints_do_not_wait_for_anothers_loading(
    tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment]
) -> None:
    go = threading.Event()
    image, cat = bundles["image"], bundles["cat"]
    place = Place(tmp_path, signer[1], open_predictor=slow_opener(image.live.digest, go))
    kept = beside(cat, bundles["dog"], "standby", until=time.time() + 600)
    back = beside(renamed(bundles["dog"], version=2), cat, "standby", version=1, until=time.time() + 600)

    async def main() -> None:
        place.publish(1, kept)
        await place.deployments.start()
        await until(lambda: place.route().standby is not None)
        place.publish(2, kept, renamed(image, endpoint="pictures"))
        await until(lambda: place.deployments.wanted("p", "pictures"))
        place.publish(3, back, renamed(image, endpoint="pictures"))
        await until(lambda: place.pets.snapshot == 3)
        assert place.label() == "dog"
        assert place.deployments.applied == 1
        assert "p/pictures" not in place.state.endpoints
        go.set()
        await place.applied(3)
        assert place.state.endpoints["p/pictures"].snapshot == 3
        await place.deployments.stop()

    asyncio.run(main())


def test_a_deployment_that_is_taken_back_while_it_loads_is_dropped(
    tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment]
) -> None:
    go = threading.Event()
    cat, dog = bundles["cat"], bundles["dog"]
    place = Place(tmp_path, signer[1], open_predictor=slow_opener(dog.live.digest, go))

    async def main() -> None:
        place.publish(1, cat)
        await place.deployments.start()
        place.publish(2, renamed(dog, version=2))
        await until(lambda: place.deployments.wanted("p", "pets"))
        place.publish(3, cat)
        await until(lambda: place.pets.snapshot == 3)  # at once: the other still loads
        go.set()
        await until(lambda: place.deployments.open_bundles == {cat.live.digest})
        assert place.label() == "cat"
        assert place.pets.failed == {}
        await place.deployments.stop()

    asyncio.run(main())


def test_keys_change_at_once_while_a_bundle_still_loads(
    tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment]
) -> None:
    go = threading.Event()
    place = Place(tmp_path, signer[1], open_predictor=slow_opener(bundles["cat"].live.digest, go))
    key, prefix, digest = new_key()
    record = KeyRecord("key_1", "p", "k", prefix, digest, ("admin",))

    async def main() -> None:
        place.publish(1, keys=(record,))
        await place.deployments.start()
        assert place.keyring.principal(key)
        place.publish(2, bundles["cat"], keys=(record,))
        await until(lambda: place.deployments.wanted("p", "pets"))
        place.publish(3, bundles["cat"])
        await until(lambda: place.keyring.principal(key) is None)
        assert place.deployments.applied == 1
        go.set()
        await place.applied(3)
        assert place.label() == "cat"
        await place.deployments.stop()

    asyncio.run(main())


def test_a_broken_snapshot_leaves_the_last_in_force(place: Place, bundles: dict[str, Deployment]) -> None:
    async def main() -> None:
        place.publish(1, bundles["cat"])
        await place.deployments.start()
        place.snapshot.write_bytes(b"{")
        await asyncio.sleep(0.3)
        assert place.label() == "cat"
        place.snapshot.unlink()
        await asyncio.sleep(0.2)
        place.publish(2, bundles["dog"])
        await place.applied(2)
        assert place.label() == "dog"
        await place.deployments.stop()

    asyncio.run(main())


def test_without_a_snapshot_nothing_is_ready(place: Place) -> None:
    async def main() -> None:
        await place.deployments.start()
        assert place.deployments.applied == -1
        assert not place.keyring.ready
        place.publish(1)
        await place.applied(1)
        assert place.keyring.ready
        await place.deployments.stop()

    asyncio.run(main())


def test_a_bundle_that_was_away_for_a_moment_is_tried_again(
    tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment]
) -> None:
    place = Place(tmp_path, signer[1], retry_seconds=0.1)

    async def main() -> None:
        place.publish(1, renamed(bundles["cat"], path=str(tmp_path / "late")))
        await place.deployments.start()
        assert place.pets.failed.keys() == {bundles["cat"].live.digest}
        assert place.pets.loaded == ()
        shutil.copytree(bundles["cat"].live.path, tmp_path / "late")
        await until(lambda: not place.pets.failed)
        assert place.label() == "cat"
        await place.deployments.stop()

    asyncio.run(main())
