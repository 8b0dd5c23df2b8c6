"""Endpoints through the management API, with a real worker's `Deployments` on the other side of the snapshot."""

import asyncio
import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.bundles import make_bundle, writable
from tests.unit.control.service import Api, problem
from tests.unit.serving.parts import make_lane

from yunmo.bundle import archive
from yunmo.control.context import Context
from yunmo.control.services.publisher import Publisher
from yunmo.core.events import EndpointChanged, RoutedVersion
from yunmo.core.snapshot import Limits, decode_snapshot
from yunmo.serving.deployments import Deployments
from yunmo.serving.gate import Keyring
from yunmo.serving.shelf import open_predictor


class Worker(threading.Thread):
    """A data worker without a server."""

    def __init__(self, context: Context) -> None:
        super().__init__(daemon=True)
        self._context = context
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._ready = threading.Event()
        self.deployments: Deployments

    def __enter__(self) -> "Worker":
        self.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self.join(20)

    def run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        workspace = self._context.workspace
        self.deployments = Deployments(
            workspace.snapshot_path,
            workspace.workers_folder / f"{os.getpid()}.json",
            Keyring(),
            drain_timeout=1,
            open_predictor=partial(open_predictor, max_pixels=1_000_000),
            make_lane=make_lane,
        )
        await self.deployments.start()
        self._ready.set()
        await self._end.wait()
        await self.deployments.stop()

    def label(self, part: str = "live") -> str:
        route = self.deployments.route("default", "pets")
        assert route is not None
        predictor = getattr(route, part).predictor
        return str(predictor.predict([{"age": 3, "city": "Berlin"}])[0]["label"]["value"])


@pytest.fixture
def worker(context: Context) -> Iterator[Worker]:
    with Worker(context) as worker:
        yield worker


@pytest.fixture
def models(context: Context, api: Api, tmp_path: Path) -> list[str]:
    """``tiny:1`` says cat, ``tiny:2`` dog, ``tiny:3`` fish, ``tiny:4`` cat."""
    for seed, always in enumerate(("cat", "dog", "fish", "cat")):
        folder = tmp_path / f"bundle-{seed}"
        make_bundle(folder, private_key=context.signing_keys()[0], always=always, seed=seed)
        archive.export(folder, tmp_path / f"{seed}.zip")
        answer = api.post("/models", content=(tmp_path / f"{seed}.zip").read_bytes())
        assert answer.status_code == 201, answer.text
    return [f"tiny:{version}" for version in (1, 2, 3, 4)]


def deploy(api: Api, model: str, **more: Any) -> dict[str, Any]:
    answer = api.put("/endpoints/pets", {"model": model, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def parts(endpoint: dict[str, Any]) -> dict[str, tuple[int, int, bool]]:
    """Return each part's version, weight, and whether it is loaded."""
    found = {role: endpoint[role] for role in ("live", "canary", "shadow", "previous") if endpoint[role]}
    return {role: (part["version"], part["weight"], part["ready"]) for role, part in found.items()}


def changes(context: Context) -> list[EndpointChanged]:
    return [each.event for each in context.events.read() if isinstance(each.event, EndpointChanged)]


@pytest.mark.usefixtures("models")
def test_canary_promotion_and_rollback(context: Context, api: Api, worker: Worker) -> None:
    first = deploy(api, "tiny:1")
    assert (parts(first), first["ready"]) == ({"live": (1, 100, True)}, True)
    assert parts(deploy(api, "tiny:2", canary=10)) == {"live": (1, 90, True), "canary": (2, 10, True)}
    assert (worker.label(), worker.label("canary")) == ("cat", "dog")
    assert parts(deploy(api, "tiny:3", canary=20)) == {"live": (1, 80, True), "canary": (3, 20, True)}
    assert worker.label("canary") == "fish"
    promoted = deploy(api, "tiny:3")
    assert parts(promoted) == {"live": (3, 100, True), "previous": (1, 0, True)}
    assert worker.label() == "fish"
    back = api.post("/endpoints/pets/rollback").json()
    assert parts(back) == {"live": (1, 100, True), "previous": (3, 0, True)}
    assert worker.label() == "cat"
    found = changes(context)
    assert [each.change for each in found] == ["deployed", "canary", "canary", "deployed", "rolled_back"]
    assert found[2].versions == (RoutedVersion("live", "tiny", 1, 80), RoutedVersion("canary", "tiny", 3, 20))
    assert [each.snapshot for each in found] == sorted({each.snapshot for each in found})


@pytest.mark.usefixtures("models", "worker")
def test_canary_and_shadow_side_by_side_and_one_rollback_takes_both(api: Api) -> None:
    deploy(api, "tiny:1")
    deploy(api, "tiny:2")
    deploy(api, "tiny:3", canary=10)
    both = deploy(api, "tiny:4", shadow=True)
    assert parts(both) == {
        "live": (2, 90, True),
        "canary": (3, 10, True),
        "shadow": (4, 100, True),
        "previous": (1, 0, True),
    }
    assert parts(api.post("/endpoints/pets/rollback").json()) == {"live": (2, 100, True), "previous": (1, 0, True)}
    assert parts(api.post("/endpoints/pets/rollback").json()) == {"live": (1, 100, True), "previous": (2, 0, True)}


@pytest.mark.usefixtures("models", "worker")
def test_what_makes_no_sense_is_refused_and_changes_nothing(context: Context, api: Api) -> None:
    assert (
        "first version"
        in problem(api.put("/endpoints/pets", {"model": "tiny:1", "canary": 5}), 404, "not_found")["remedy"]
    )
    problem(api.put("/endpoints/pets", {"model": "tiny:1", "shadow": True}), 404, "not_found")
    before = deploy(api, "tiny:1")
    problem(api.put("/endpoints/pets", {"model": "tiny:1", "canary": 5}), 409, "conflict")
    problem(api.put("/endpoints/pets", {"model": "tiny:1", "shadow": True}), 409, "conflict")
    problem(api.post("/endpoints/pets/rollback"), 409, "conflict")
    for body in (
        {"canary": 0},
        {"canary": 100},
        {"canary": -1},
        {"canary": 10**30},
        {"canary": 2.5},
        {"canary": "many"},
        {"canary": 10, "shadow": True},
        {"shadow": "tiny:2"},
        {"weight": 10},
    ):
        problem(api.put("/endpoints/pets", {"model": "tiny:2", **body}), 422, "invalid_input")
    assert api.get("/endpoints/pets").json() == before
    assert len(changes(context)) == 1


@pytest.mark.parametrize("trial", [{}, {"canary": 10}, {"shadow": True}])
@pytest.mark.usefixtures("models")
def test_a_version_that_a_worker_refuses_leaves_everything_as_before(
    context: Context, api: Api, worker: Worker, trial: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(api, "tiny:1")
    before = deploy(api, "tiny:3", canary=30)
    bundles = context.workspace.bundle_folder("x").parent

    # What control has checked is changed before the worker reads it.
    def tampered(_: object, digest: str, __: str) -> None:
        (writable(context.workspace.bundle_folder(digest)) / "graph.onnx").write_bytes(b"broken")

    monkeypatch.setattr("yunmo.control.context.Context.verified_bundle", tampered)
    refused = problem(api.put("/endpoints/pets", {"model": "tiny:2", **trial}), 422, "invalid_bundle")
    assert "graph.onnx" in refused["detail"]
    assert str(bundles) not in str(refused)
    after = api.get("/endpoints/pets").json()
    assert {**after, "updated_at": 0} == {**before, "updated_at": 0}
    assert (worker.label(), worker.label("canary")) == ("cat", "fish")
    [deployment] = decode_snapshot(context.workspace.snapshot_path.read_bytes()).deployments
    assert [each.version for each in deployment.variants] == [1, 3]
    assert len(changes(context)) == 2


@pytest.mark.usefixtures("models", "worker")
def test_a_rollback_needs_no_file(context: Context, api: Api) -> None:
    deploy(api, "tiny:1")
    digest = deploy(api, "tiny:2")["previous"]["digest"]
    shutil.rmtree(writable(context.workspace.bundle_folder(digest)))
    began = time.monotonic()
    assert parts(api.post("/endpoints/pets/rollback").json())["live"] == (1, 100, True)
    print(f"rolled back in {time.monotonic() - began:.3f} s")  # noqa: T201 - shown by pytest -rP


@pytest.mark.usefixtures("models", "worker")
def test_limits_are_set_published_and_reset(context: Context, api: Api) -> None:
    deploy(api, "tiny:1")
    options = {"concurrency": 4, "queue": 100, "timeout": 2.5, "sticky": "key"}
    changed = api.request("PATCH", "/api/v1/endpoints/pets", json=options).json()
    assert changed["limits"] == {"concurrency": 4, "queue": 100, "timeout": 2.5}
    assert changed["sticky"] == "key"
    [deployment] = decode_snapshot(context.workspace.snapshot_path.read_bytes()).deployments
    assert (deployment.limits, deployment.sticky) == (Limits(concurrency=4, queue=100, timeout=2.5), "key")
    changed = api.request("PATCH", "/api/v1/endpoints/pets", json={"queue": None, "sticky": None}).json()
    assert changed["limits"] == {"concurrency": 4, "queue": None, "timeout": 2.5}
    assert changed["sticky"] == "request"
    assert deploy(api, "tiny:2")["limits"] == changed["limits"]
    assert [each.change for each in changes(context)] == ["deployed", "settings", "settings", "deployed"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"concurrency": 0}',
        b'{"concurrency": 1000000000000000000000000000000}',
        b'{"concurrency": "4"}',
        b'{"concurrency": true}',
        b'{"queue": 1.5}',
        b'{"timeout": 0}',
        b'{"timeout": Infinity}',
        b'{"timeout": NaN}',
        b'{"sticky": "glue"}',
        b'{"concurency": 4}',
        b"[]",
        b"4",
    ],
)
@pytest.mark.usefixtures("models")
def test_settings_that_are_none_are_refused(api: Api, body: bytes) -> None:
    deploy(api, "tiny:1")
    headers = {"content-type": "application/json"}
    refused = problem(
        api.request("PATCH", "/api/v1/endpoints/pets", content=body, headers=headers), 422, "invalid_input"
    )
    assert refused["where"]
    assert api.get("/endpoints/pets").json()["limits"] == {"concurrency": None, "queue": None, "timeout": None}


def test_settings_of_no_endpoint(api: Api) -> None:
    problem(api.request("PATCH", "/api/v1/endpoints/none", json={"queue": 3}), 404, "not_found")


@pytest.mark.usefixtures("models", "worker")
def test_two_projects_may_use_one_name(context: Context, api: Api) -> None:
    from yunmo.store.tables import ProjectRow

    with context.database.write() as session:
        session.add(ProjectRow(id="proj_2", name="two", created_at=0.0))
    other = Api(context, "admin", project_id="proj_2")
    deploy(api, "tiny:1")
    bundle = api.get("/models/tiny/2/bundle").content
    assert other.post("/models", content=bundle).json()["version"] == 1
    theirs = deploy(other, "tiny:1")
    assert theirs["ready"] is True
    assert theirs["live"]["digest"] != api.get("/endpoints/pets").json()["live"]["digest"]
    assert other.delete("/endpoints/pets").status_code == 204
    assert api.get("/endpoints/pets").json()["ready"] is True


@pytest.mark.parametrize(
    ("left", "number"),
    [
        (b'{"number": 900, "deployments": [{"endpoint": "pets", "digest": "sha256:0", "path": "/x"}]}', 901),
        (b"{damaged", 1),
    ],
)
def test_a_snapshot_of_another_yunmo_or_a_damaged_one_is_overtaken(context: Context, left: bytes, number: int) -> None:
    context.workspace.snapshot_path.write_bytes(left)
    assert Publisher(context).publish() >= number
    assert decode_snapshot(context.workspace.snapshot_path.read_bytes()).number >= number


@pytest.mark.usefixtures("models")
def test_deleting_waits_for_the_workers(context: Context, api: Api, worker: Worker) -> None:
    deploy(api, "tiny:1")
    assert api.delete("/endpoints/pets").status_code == 204
    assert worker.deployments.route("default", "pets") is None
    assert changes(context)[-1].change == "deleted"
