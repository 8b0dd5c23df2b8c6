from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.fixtures.bundles import table_rows
from tests.unit.serving.parts import make_lane

from yunmo.core.settings import Isolate
from yunmo.core.snapshot import Deployment, EndpointState, Snapshot, WorkerState, encode_snapshot
from yunmo.serving.deployments import Deployments
from yunmo.serving.gate import Keyring
from yunmo.serving.quarantine import KEPT, Quarantine, Record, read_record, write_record
from yunmo.serving.routing import Route
from yunmo.serving.shelf import open_predictor


class Place:
    """A worker's deployments, with a quarantine."""

    def __init__(self, folder: Path, public: str, isolate: Isolate = "crashed") -> None:
        self.folder, self.public, self.path = folder, public, folder / "quarantine.json"
        self.state_path = folder / "workers" / "1.json"
        self.deployments = Deployments(
            folder / "snapshot.json",
            self.state_path,
            Keyring(),
            drain_timeout=5,
            open_predictor=partial(open_predictor, max_pixels=1_000_000),
            make_lane=make_lane,
            quarantine=Quarantine(self.path, isolate),
        )

    def publish(self, number: int, *deployments: Deployment) -> None:
        (self.folder / "new").write_bytes(encode_snapshot(Snapshot(number, (), deployments, self.public)))
        (self.folder / "new").replace(self.folder / "snapshot.json")

    def blame(self, *digests: str) -> None:
        write_record(self.path, Record(dict.fromkeys(digests, "SIGSEGV")))

    @property
    def route(self) -> Route | None:
        return self.deployments.route("p", "pets")

    @property
    def state(self) -> EndpointState:
        return msgspec.json.decode(self.state_path.read_bytes(), type=WorkerState).endpoints["p/pets"]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def isolated(route: Route | None) -> dict[str, bool]:
    return {each.variant.role: each.predictor.isolated for each in route.loaded} if route else {}


def beside(deployment: Deployment, other: Deployment, role: Any) -> Deployment:
    added = msgspec.structs.replace(other.live, role=role, version=2)
    return msgspec.structs.replace(deployment, variants=(deployment.live, added))


def test_a_version_that_ended_a_worker_is_opened_isolated(
    tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment]
) -> None:
    place, cat = Place(tmp_path, signer[1]), bundles["cat"]
    place.blame(cat.live.digest)

    async def main() -> None:
        place.publish(1, cat)
        await place.deployments.start()
        assert isolated(place.route) == {"live": True}
        assert place.state == EndpointState(1, (cat.live.digest,), isolated=(cat.live.digest,))
        place.publish(2, bundles["dog"])  # another version has done nothing
        await until(lambda: place.deployments.applied == 2)
        assert isolated(place.route) == {"live": False}
        await place.deployments.stop()

    asyncio.run(main())


def test_one_that_is_open_answers_no_more_until_it_is_isolated_and_requests_under_way_end(
    tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment]
) -> None:
    place, cat = Place(tmp_path, signer[1]), bundles["cat"]
    seen: list[dict[str, bool]] = []

    async def main() -> None:
        place.publish(1, cat)
        await place.deployments.start()
        assert isolated(place.route) == {"live": False}
        assert place.route is not None
        old = place.route.live
        with old.lane as lane:
            place.blame(cat.live.digest)
            while isolated(place.route) != {"live": True}:
                seen.append(isolated(place.route))
                await asyncio.sleep(0.001)
            tensors = old.predictor.encode(table_rows())
            answers = await lane.run(tensors, len(table_rows()), asyncio.get_running_loop().time() + 30)
        assert place.deployments.wanted("p", "pets")
        new = place.route.live.predictor
        assert new.decode(new.run(tensors)) == old.predictor.decode(answers)
        await until(lambda: place.state.isolated == (cat.live.digest,))
        await place.deployments.stop()
        assert place.deployments.open_bundles == frozenset()

    asyncio.run(main())
    assert {} in seen


@pytest.mark.parametrize("role", ["canary", "shadow", "standby"])
def test_beside_the_live_version_it_takes_nothing_from_that(
    tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment], role: str
) -> None:
    place = Place(tmp_path, signer[1])
    both = beside(bundles["cat"], bundles["dog"], role)
    roles: list[set[str]] = []

    async def main() -> None:
        place.publish(1, both)
        await place.deployments.start()
        await until(lambda: isolated(place.route) == {"live": False, role: False})
        place.blame(bundles["dog"].live.digest)
        while isolated(place.route) != {"live": False, role: True}:
            roles.append(set(isolated(place.route)))
            await asyncio.sleep(0.001)
        await place.deployments.stop()

    asyncio.run(main())
    assert roles[-1] == {"live"}
    assert all("live" in each for each in roles)


@pytest.mark.parametrize(("isolate", "expected"), [("always", True), ("never", False)])
def test_the_setting_decides(
    tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment], isolate: Isolate, expected: bool
) -> None:
    place = Place(tmp_path, signer[1], isolate)
    place.blame(*(each.live.digest for each in bundles.values() if not expected))

    async def main() -> None:
        place.publish(1, bundles["cat"])
        await place.deployments.start()
        assert isolated(place.route) == {"live": expected}
        await place.deployments.stop()

    asyncio.run(main())


def test_the_record_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.json"
    write_record(path, Record({f"sha256:{number}": "SIGSEGV" for number in range(KEPT + 5)}, {"sha256:x": 1.0}))
    record = read_record(path)
    assert len(record.isolated) == KEPT
    assert f"sha256:{KEPT + 4}" in record.isolated
    assert record.suspected == {"sha256:x": 1.0}
    assert path.stat().st_mode & 0o777 == 0o600
