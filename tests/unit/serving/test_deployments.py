from __future__ import annotations

import asyncio
import shutil
import threading
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from yunmo.core.access import KeyRecord, new_key
from yunmo.core.snapshot import Deployment, Snapshot, WorkerState, encode_snapshot
from yunmo.serving.deployments import Deployments
from yunmo.serving.deployments import open_predictor as open_limited
from yunmo.serving.gate import Keyring

open_predictor = partial(open_limited, max_pixels=1_000_000)

ROW = {"age": 3, "city": "Berlin"}


class Place:
    """A worker's view: the snapshot file, its state file, and its deployments."""

    def __init__(self, folder: Path, public: str, **more: Any) -> None:
        self.folder, self.public = folder, public
        self.snapshot, self.state_path = folder / "snapshot.json", folder / "workers" / "1.json"
        self.keyring = Keyring()
        self.deployments = Deployments(
            self.snapshot, self.state_path, self.keyring, drain_timeout=1, **{"open_predictor": open_predictor, **more}
        )

    def publish(self, number: int, *deployments: Deployment, keys: tuple[KeyRecord, ...] = ()) -> None:
        temporary = self.folder / "new"
        temporary.write_bytes(encode_snapshot(Snapshot(number, keys, deployments, self.public)))
        temporary.replace(self.snapshot)

    async def applied(self, number: int) -> WorkerState:
        async with asyncio.timeout(10):
            while self.deployments.applied < number:
                await asyncio.sleep(0.01)
        return self.state

    @property
    def state(self) -> WorkerState:
        return msgspec.json.decode(self.state_path.read_bytes(), type=WorkerState)

    def label(self, endpoint: str = "pets") -> str:
        route = self.deployments.route("p", endpoint)
        assert route is not None
        return str(route.predictor.predict([ROW])[0]["label"]["value"])


@pytest.fixture
def place(tmp_path: Path, signer: tuple[Path, str]) -> Place:
    return Place(tmp_path, signer[1])


def renamed(deployment: Deployment, **changes: Any) -> Deployment:
    return msgspec.structs.replace(deployment, **changes)


def test_a_new_version_takes_over_and_the_state_says_so(place: Place, bundles: dict[str, Deployment]) -> None:
    async def main() -> None:
        place.publish(1, bundles["cat"])
        await place.deployments.start()
        assert place.label() == "cat"
        old = place.deployments.route("p", "pets")
        place.publish(2, renamed(bundles["dog"], version=2))
        state = await place.applied(2)
        assert place.label() == "dog"
        assert state.loaded == {"pets": bundles["dog"].digest}
        assert state.failed == {}
        assert old is not place.deployments.route("p", "pets")
        await place.deployments.stop()
        assert not place.state_path.exists()

    asyncio.run(main())


def test_a_bad_bundle_keeps_the_old_version_and_is_reported(
    place: Place, bundles: dict[str, Deployment], tmp_path: Path
) -> None:
    folder = shutil.copytree(bundles["dog"].path, tmp_path / "changed")
    (folder / "weights.safetensors").write_bytes(b"changed")

    async def main() -> None:
        place.publish(1, bundles["cat"])
        await place.deployments.start()
        place.publish(2, renamed(bundles["dog"], version=2, path=str(folder)))
        state = await place.applied(2)
        assert place.label() == "cat"
        assert state.loaded == {"pets": bundles["cat"].digest}
        assert "weights.safetensors" in state.failed["pets"]
        place.publish(3, bundles["cat"])
        assert (await place.applied(3)).failed == {}
        await place.deployments.stop()

    asyncio.run(main())


def test_another_signed_bundle_in_its_place_is_refused(
    bundles: dict[str, Deployment], signer: tuple[Path, str]
) -> None:
    from yunmo.core.errors import IntegrityError

    with pytest.raises(IntegrityError, match="digest"):
        open_predictor(renamed(bundles["cat"], path=bundles["dog"].path), signer[1])
    with pytest.raises(IntegrityError, match="not there"):
        open_predictor(renamed(bundles["cat"], path="/nowhere"), signer[1])


def test_an_endpoint_that_is_taken_away_is_gone(place: Place, bundles: dict[str, Deployment]) -> None:
    async def main() -> None:
        place.publish(1, bundles["cat"], renamed(bundles["dog"], endpoint="other"))
        await place.deployments.start()
        assert place.deployments.counts == (2, 0)
        place.publish(2, bundles["cat"])
        assert (await place.applied(2)).loaded == {"pets": bundles["cat"].digest}
        assert place.deployments.route("p", "other") is None
        assert place.deployments.route("q", "pets") is None
        await place.deployments.stop()

    asyncio.run(main())


def test_keys_change_at_once_while_a_bundle_still_loads(
    tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment]
) -> None:
    go = threading.Event()

    def slowly(deployment: Deployment, trusted_key: str) -> Any:
        go.wait(10)
        return open_predictor(deployment, trusted_key)

    place = Place(tmp_path, signer[1], open_predictor=slowly)
    key, prefix, digest = new_key()
    record = KeyRecord("key_1", "p", "k", prefix, digest, ("admin",))

    async def main() -> None:
        place.publish(1, keys=(record,))
        await place.deployments.start()
        assert place.keyring.principal(key)
        place.publish(2, bundles["cat"], keys=(record,))
        while not place.deployments.wanted("p", "pets"):
            await asyncio.sleep(0.01)
        place.publish(3, bundles["cat"])
        async with asyncio.timeout(10):
            while place.keyring.principal(key):
                await asyncio.sleep(0.01)
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
        assert place.state.failed.keys() == {"pets"}
        shutil.copytree(bundles["cat"].path, tmp_path / "late")
        async with asyncio.timeout(10):
            while place.state.failed:
                await asyncio.sleep(0.02)
        assert place.label() == "cat"
        await place.deployments.stop()

    asyncio.run(main())
