from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.fixtures.bundles import png
from tests.unit.serving.parts import KEY, World, json_app, keyring, make_lane, record
from tests.unit.serving.wire import Answer, Connection, Served, request, run, serving, until

from yunmo.core.access import Scope, new_key
from yunmo.core.snapshot import Deployment, Limits, Snapshot, Variant, encode_snapshot
from yunmo.serving import entry, http
from yunmo.serving.admission import Admission
from yunmo.serving.dataplane import DataPlane
from yunmo.serving.deployments import Deployments
from yunmo.serving.gate import Keyring
from yunmo.serving.lane import Lane
from yunmo.serving.native.face import NativeFace
from yunmo.serving.shelf import open_predictor as open_limited

open_predictor = partial(open_limited, max_pixels=1_000_000)

JSON = {"content-type": "application/json"}
ROW = b'{"age": 3, "city": "Berlin"}'
PREDICT = "/api/v1/endpoints/pets/predict"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits: clients are looked for at once, and refusals go out at once."""
    monkeypatch.setattr(http, "WATCH_AFTER", 0.0)
    monkeypatch.setattr(entry, "REFUSAL_SECONDS", 0.0, raising=False)


class Ask:
    """Asks over one connection after the other, with any key."""

    def __init__(self, served: Served, key: str) -> None:
        self._served = served
        self._key = key

    async def connect(self) -> Connection:
        return await self._served.connect()

    def headers(self, headers: Mapping[str, str] | None, key: str | None = None) -> list[tuple[str, str | bytes]]:
        return [("authorization", f"Bearer {key or self._key}"), *(headers or {}).items()]

    async def __call__(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        key: str | None = None,
    ) -> Answer:
        connection = await self.connect()
        answer = await connection.ask(method, path, self.headers(headers, key), body)
        await connection.close()
        return answer

    async def refused(self, *arguments: Any, **more: Any) -> tuple[int, str]:
        """Ask, and return status and text of the problem that is answered."""
        answer = await self(*arguments, **more)
        assert answer.status >= 400
        document = answer.json
        assert document["status"] == answer.status
        assert document["instance"] == answer.header("x-request-id")
        return answer.status, f"{document.get('where', '')}: {document['detail']} {document.get('remedy', '')}"


class Service:
    """The native face on real bundles, behind gate and server."""

    def __init__(self, folder: Path, public: str, deployments: Sequence[Deployment], **more: Any) -> None:
        (folder / "snapshot.json").write_bytes(encode_snapshot(Snapshot(1, (), tuple(deployments), public)))
        self.deployments = Deployments(
            folder / "snapshot.json",
            None,
            Keyring(),
            drain_timeout=1,
            open_predictor=more.pop("open_predictor", open_predictor),
            make_lane=self.make_lane,
        )
        admission = Admission(folder / "workers", "1")
        self.plane = DataPlane(self.deployments, admission, timeout=more.pop("timeout", 10.0))
        self.keys = [record()]
        face = NativeFace(self.plane, max_body=more.pop("max_body", 100_000))
        self.world = World(json_app({"control": True}), keys=Keyring(), faces=[face], activity=self.plane.activity)

    def make_lane(self, deployment: Deployment, variant: Variant, predictor: Any) -> Lane:
        meter = self.world.watcher.lane(deployment.project_id, deployment.endpoint, variant.model, variant.version)
        return Lane(predictor, meter)

    def key(self, *scopes: Scope, **more: Any) -> str:
        """Make a key with these scopes."""
        key = new_key()[0]
        self.keys.append(record(key, *scopes, **more))
        return key

    def run(self, work: Callable[[Ask], Awaitable[None]]) -> None:
        self.world.keyring.replace(self.keys)

        async def main() -> None:
            await self.deployments.start()
            try:
                async with serving(self.world.entry.handle) as served:
                    await work(Ask(served, KEY))
            finally:
                await self.deployments.stop()

        run(main)


@pytest.fixture
def service(tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment]) -> Service:
    pictures = msgspec.structs.replace(bundles["image"], endpoint="pictures")
    return Service(tmp_path, signer[1], [bundles["cat"], pictures])


def test_one_row_and_several(service: Service) -> None:
    async def work(ask: Ask) -> None:
        reply = await ask("POST", PREDICT, JSON, ROW)
        assert reply.status == 200
        assert {key: reply.json[key] for key in ("endpoint", "model", "version", "request_id")} == {
            "endpoint": "pets",
            "model": "pets",
            "version": 1,
            "request_id": reply.header("x-request-id"),
        }
        assert reply.json["predictions"][0]["label"]["value"] == "cat"
        many = (await ask("POST", PREDICT, JSON, b"[" + b",".join([ROW] * 200) + b"]")).json["predictions"]
        assert len(many) == 200
        assert many[7]["price"]["value"] == pytest.approx(reply.json["predictions"][0]["price"]["value"], rel=1e-4)

    service.run(work)


def test_a_picture_comes_raw_in_a_form_or_in_json(service: Service) -> None:
    import base64

    async def work(ask: Ask) -> None:
        path = "/api/v1/endpoints/pictures/predict"
        raw = await ask("POST", path, {"content-type": "image/png"}, png(90))
        head = b'--B\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        form = {"content-type": "multipart/form-data; boundary=B"}
        sent = await ask("POST", path, form, head + png(90) + b"\r\n--B--\r\n")
        text = msgspec.json.encode({"image": base64.b64encode(png(90)).decode()})
        answers = [reply.json["predictions"] for reply in (raw, sent, await ask("POST", path, JSON, text))]
        assert answers[0] == answers[1] == answers[2]
        assert (await ask.refused("POST", path, {"content-type": "image/png"}, png(90)[:40]))[0] == 422

    service.run(work)


@pytest.mark.parametrize(
    ("headers", "body", "status", "says"),
    [
        (JSON, b"[]", 422, "no row"),
        (JSON, b'{"age": 3}', 422, "city"),
        (JSON, b'{"age": 3, "city": "x", "more": 1}', 422, "more"),
        (JSON, b'[{"age": 3, "city": "x"}, {"age": [], "city": "x"}]', 422, "row 1, field age"),
        (JSON, b"{", 422, "JSON"),
        ({}, ROW, 415, "application/json"),
        ({"content-type": "text/csv"}, ROW, 415, "multipart/form-data"),
        (JSON, b"x" * 100_001, 413, "100000"),
    ],
)
def test_bad_input_is_refused(service: Service, headers: dict[str, str], body: bytes, status: int, says: str) -> None:
    async def work(ask: Ask) -> None:
        found, text = await ask.refused("POST", PREDICT, headers, body)
        assert found == status
        assert says in text

    service.run(work)


OTHERS = {"endpoints": ("other",)}


@pytest.mark.parametrize(
    ("scopes", "more", "path", "status"),
    [
        (("read",), {}, PREDICT, 403),
        (("read",), {}, "/api/v1/endpoints/none/predict", 403),
        (("predict",), OTHERS, PREDICT, 404),
        (("predict",), OTHERS, "/api/v1/endpoints/none/predict", 404),
        (("predict",), {}, "/api/v1/endpoints/none/predict", 404),
        (("predict",), {"project_id": "q"}, PREDICT, 404),
        (("admin",), {}, PREDICT, 200),
        (("predict",), {"endpoints": ("pets",)}, PREDICT, 200),
    ],
)
def test_who_may_predict(
    service: Service, scopes: tuple[Scope, ...], more: dict[str, Any], path: str, status: int
) -> None:
    key = service.key(*scopes, **more)

    async def work(ask: Ask) -> None:
        assert (await ask("POST", path, JSON, ROW, key=key)).status == status

    service.run(work)


def test_what_may_not_be_called_looks_like_what_is_not_there(service: Service) -> None:
    key = service.key("predict", **OTHERS)

    async def work(ask: Ask) -> None:
        _, there = await ask.refused("POST", PREDICT, JSON, ROW, key=key)
        _, absent = await ask.refused("POST", PREDICT.replace("pets", "nope"), JSON, ROW, key=key)
        assert there.replace("pets", "nope") == absent

    service.run(work)


def test_the_schema_is_for_callers_and_readers(service: Service) -> None:
    keys = [service.key(scope) for scope in ("read", "predict", "write", "admin")]
    none = service.key("predict", endpoints=())

    async def work(ask: Ask) -> None:
        path = "/api/v1/endpoints/pets/schema"
        for key in keys:
            assert (await ask("GET", path, key=key)).json["input"]["required"] == ["age", "city"]
        head = await ask("HEAD", path)
        assert head.body == b""
        assert head.header("content-length") == (await ask("GET", path)).header("content-length")
        assert (await ask.refused("GET", path, key=none))[0] == 404

    service.run(work)


def test_methods(service: Service) -> None:
    async def work(ask: Ask) -> None:
        for path, allow in ((PREDICT, "POST, OPTIONS"), ("/healthz", "GET, HEAD, OPTIONS")):
            options = await ask("OPTIONS", path)
            assert (options.status, options.header("allow")) == (204, allow)
            wrong = await ask("DELETE", path)
            assert (wrong.status, wrong.header("allow")) == (405, allow)
            assert wrong.json["code"] == "method_not_allowed"

    service.run(work)


def test_health_and_everything_else(service: Service) -> None:
    async def work(ask: Ask) -> None:
        assert (await ask("GET", "/healthz")).json == {"status": "ok"}
        assert (await ask("GET", "/readyz")).json == {"status": "ready", "endpoints": 2, "refused": 0}
        long = f"/api/v1/endpoints/{'x' * 65}/predict"
        for path in ("/api/v1/models", "/api/v1/endpoints/pets", PREDICT + "/", "/api/v1/endpoints/a/b/predict", long):
            assert (await ask("GET", path)).json == {"control": True}

    service.run(work)


def test_not_ready_before_the_first_snapshot(tmp_path: Path) -> None:
    deployments = Deployments(
        tmp_path / "none", None, Keyring(), drain_timeout=1, open_predictor=open_predictor, make_lane=make_lane
    )
    plane = DataPlane(deployments, Admission(tmp_path, "1"), timeout=1)
    world = World(json_app({}), keys=keyring(), faces=[NativeFace(plane, max_body=10)])
    answer = world.ask("GET", "/readyz", {})
    assert (answer.status, answer.json["status"]) == (503, "starting")
    assert world.ask("GET", "/healthz", {}).status == 200


@pytest.mark.parametrize("text", ["0", "0.0", "-1", "1e3", "abc", "", "1.", ".5", "1" * 9, "nan", "inf", "1,5", "٣"])
def test_a_time_that_is_none_is_refused(service: Service, text: str) -> None:
    async def work(ask: Ask) -> None:
        status, says = await ask.refused("POST", PREDICT, {**JSON, "yunmo-timeout": text}, ROW)
        assert status == 422
        assert "yunmo-timeout" in says

    service.run(work)


def test_log_and_meters_say_what_became_of_each_request(service: Service) -> None:
    reader = service.key("read", id="key_2")

    async def work(ask: Ask) -> None:
        assert (await ask("POST", PREDICT, JSON, b"[" + ROW + b", " + ROW + b"]")).status == 200
        assert (await ask("POST", PREDICT, JSON, b'{"age": []}')).status == 422
        assert (await ask("POST", PREDICT, JSON, b"{")).status == 422
        assert (await ask("POST", PREDICT, JSON, ROW, key=reader)).status == 403
        assert (await ask("POST", PREDICT, JSON, ROW, key="nonsense")).status == 401
        assert (await ask("GET", PREDICT)).status == 405

    service.run(work)
    world = service.world
    world.check("ok", "invalid_input", "invalid_input", "forbidden", "unauthenticated", "method_not_allowed")
    # Whose version was chosen is told to the version's meter; the rest to the observer.
    assert world.watcher.meters["p", "pets", 1].ended == [("native", "ok"), ("native", "invalid_input")]
    assert world.watcher.requests == [
        ("p", "pets", "native", "invalid_input"),
        ("p", "pets", "native", "forbidden"),
        ("", "", "management", "unauthenticated"),
        ("p", "pets", "native", "method_not_allowed"),
    ]
    facts = world.log.lines[0]
    assert (facts["endpoint"], facts["model"], facts["rows"], facts["status"]) == ("pets", "pets:1", 2, 200)
    assert [line.get("key_id") for line in world.log.lines] == ["key_1", "key_1", "key_1", "key_2", None, "key_1"]


class Held:
    """A real predictor that waits until it is let go."""

    run_seconds = 1.0  # too long for the event loop

    def __init__(self, predictor: Any) -> None:
        self._predictor = predictor
        self.go = threading.Event()
        self.runs = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)

    def run(self, tensors: Any, stop: Any = None) -> Any:
        self.runs += 1
        assert self.go.wait(60)
        return self._predictor.run(tensors, stop)


def held_service(folder: Path, public: str, deployment: Deployment, **more: Any) -> tuple[Service, list[Held]]:
    made: list[Held] = []

    def opener(variant: Variant, trusted_key: str, **options: Any) -> Any:
        made.append(Held(open_predictor(variant, trusted_key, **options)))
        return made[-1]

    return Service(folder, public, [deployment], open_predictor=opener, **more), made


def test_a_model_that_is_held_up_answers_in_time_and_others_do_not_wait(
    tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment]
) -> None:
    service, made = held_service(tmp_path, signer[1], bundles["cat"], timeout=60.0)

    async def work(ask: Ask) -> None:
        status, _ = await ask.refused("POST", PREDICT, {**JSON, "yunmo-timeout": "0.05"}, ROW)
        assert status == 504
        assert (await ask("GET", "/healthz")).status == 200
        made[0].go.set()
        assert (await ask("POST", PREDICT, JSON, ROW)).status == 200

    service.run(work)
    service.world.check("deadline_exceeded", "ok")


def test_a_client_that_leaves_frees_its_place(
    tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment]
) -> None:
    limited = msgspec.structs.replace(bundles["cat"], limits=Limits(concurrency=2))
    service, made = held_service(tmp_path, signer[1], limited)

    async def work(ask: Ask) -> None:
        running = asyncio.ensure_future(ask("POST", PREDICT, JSON, ROW))
        await until(lambda: made and made[0].runs)
        for number in range(5):
            leaves = await ask.connect()
            await leaves.send(request("POST", PREDICT, ask.headers(JSON), ROW))
            await until(lambda: service.plane.activity.requests == 2)
            assert (await ask("POST", PREDICT, JSON, ROW)).status == 429
            await leaves.close()
            await until(lambda number=number: len(service.world.log.lines) == 2 * (number + 1))
            assert service.plane.activity.requests == 1
        made[0].go.set()
        assert (await running).status == 200
        assert (await ask("POST", PREDICT, JSON, ROW)).status == 200
        assert made[0].runs == 2

    service.run(work)
    service.world.check("ok", "ok", *["client_gone"] * 5, *["too_many_requests"] * 5)
    meter = service.world.watcher.meters["p", "pets", 1]
    assert meter.begun == len(meter.ended) == 12


def test_an_endpoint_whose_model_does_not_load_is_unavailable_not_unknown(
    tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment]
) -> None:
    away = msgspec.structs.replace(bundles["cat"].live, path="/nowhere")
    service = Service(tmp_path, signer[1], [msgspec.structs.replace(bundles["cat"], variants=(away,))])

    async def work(ask: Ask) -> None:
        assert (await ask.refused("POST", PREDICT, JSON, ROW))[0] == 503

    service.run(work)


def test_a_canary_answers_its_callers(tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment]) -> None:
    live = msgspec.structs.replace(bundles["cat"].live, weight=50)
    canary = msgspec.structs.replace(bundles["dog"].live, version=2, weight=50, role="canary")
    service = Service(tmp_path, signer[1], [msgspec.structs.replace(bundles["cat"], variants=(live, canary))])
    says = {1: "cat", 2: "dog"}

    async def work(ask: Ask) -> None:
        seen = set()
        for caller in "abcdefghijkl":
            found = set()
            for _ in range(3):
                answer = (await ask("POST", PREDICT, {**JSON, "yunmo-sticky": caller}, ROW)).json
                assert answer["predictions"][0]["label"]["value"] == says[answer["version"]]
                found.add(answer["version"])
            assert len(found) == 1
            seen |= found
        assert seen == {1, 2}

    service.run(work)
