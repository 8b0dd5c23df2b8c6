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
from tests.unit.serving.asgi import Reply, call

from yunmo.core.access import Principal, Scope
from yunmo.core.snapshot import Deployment, Snapshot, encode_snapshot
from yunmo.serving.dataplane import DataPlane
from yunmo.serving.deployments import Deployments
from yunmo.serving.deployments import open_predictor as open_limited
from yunmo.serving.gate import Keyring
from yunmo.serving.http import FACTS, PRINCIPAL, REQUEST_ID, App, ClientGone, send_json
from yunmo.serving.native.face import NativeFace

open_predictor = partial(open_limited, max_pixels=1_000_000)

JSON = {"content-type": "application/json"}
ROW = b'{"age": 3, "city": "Berlin"}'
PREDICT = "/api/v1/endpoints/pets/predict"


def principal(*scopes: Scope, endpoints: frozenset[str] | None = None, project: str = "p") -> Principal:
    return Principal("key_1", project, frozenset(scopes or ("predict",)), endpoints)


async def control(scope: Any, _receive: Any, send: Any) -> None:
    await send_json(scope, send, {"control": scope["path"]})


class Service:
    """The native face on real bundles."""

    def __init__(self, folder: Path, public: str, deployments: Sequence[Deployment], **more: Any) -> None:
        (folder / "snapshot.json").write_bytes(encode_snapshot(Snapshot(1, (), tuple(deployments), public)))
        opener = more.pop("open_predictor", open_predictor)
        self.deployments = Deployments(
            folder / "snapshot.json", None, Keyring(), drain_timeout=1, open_predictor=opener
        )
        dataplane = DataPlane(self.deployments, timeout=more.pop("timeout", 10.0))
        self.app: App = NativeFace(dataplane, control, max_body=more.pop("max_body", 100_000))

    def run(self, work: Callable[[Ask], Awaitable[None]]) -> None:
        async def main() -> None:
            await self.deployments.start()
            try:
                await work(Ask(self.app))
            finally:
                await self.deployments.stop()

        asyncio.run(main())


class Ask:
    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"", **more: Any
    ) -> Reply:
        scope = {PRINCIPAL: more.pop("who", principal()), REQUEST_ID: "req_1", FACTS: {}}
        return await call(self._app, method, path, headers, body, scope=scope, **more)


@pytest.fixture
def service(tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment]) -> Service:
    pictures = msgspec.structs.replace(bundles["image"], endpoint="pictures", model="pictures")
    return Service(tmp_path, signer[1], [bundles["cat"], pictures])


async def refused(ask: Ask, *arguments: Any, **more: Any) -> tuple[int, str]:
    from yunmo.core.errors import YunmoError

    with pytest.raises(YunmoError) as caught:
        await ask(*arguments, **more)
    return caught.value.status, str(caught.value)


def test_one_row_and_several(service: Service) -> None:
    async def work(ask: Ask) -> None:
        reply = await ask("POST", PREDICT, JSON, ROW)
        assert reply.status == 200
        assert {key: reply.json[key] for key in ("endpoint", "model", "version", "request_id")} == {
            "endpoint": "pets",
            "model": "pets",
            "version": 1,
            "request_id": "req_1",
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
        assert raw.json == sent.json == (await ask("POST", path, JSON, text)).json
        assert (await refused(ask, "POST", path, {"content-type": "image/png"}, png(90)[:40]))[0] == 422

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
        ({**JSON, "content-length": "100001"}, b"", 413, "100000"),
        (JSON, b"x" * 100_001, 413, "100000"),
    ],
)
def test_bad_input_is_refused(service: Service, headers: dict[str, str], body: bytes, status: int, says: str) -> None:
    async def work(ask: Ask) -> None:
        found, text = await refused(ask, "POST", PREDICT, headers, body)
        assert found == status
        assert says in text

    service.run(work)


@pytest.mark.parametrize(
    ("who", "path", "status"),
    [
        (principal("read"), PREDICT, 403),
        (principal("read"), "/api/v1/endpoints/none/predict", 403),
        (principal(endpoints=frozenset({"other"})), PREDICT, 404),
        (principal(endpoints=frozenset({"other"})), "/api/v1/endpoints/none/predict", 404),
        (principal(), "/api/v1/endpoints/none/predict", 404),
        (principal(project="q"), PREDICT, 404),
        (principal("admin"), PREDICT, 200),
        (principal(endpoints=frozenset({"pets"})), PREDICT, 200),
    ],
)
def test_who_may_predict(service: Service, who: Principal, path: str, status: int) -> None:
    async def work(ask: Ask) -> None:
        if status == 200:
            assert (await ask("POST", path, JSON, ROW, who=who)).status == 200
        else:
            assert (await refused(ask, "POST", path, JSON, ROW, who=who))[0] == status

    service.run(work)


def test_what_may_not_be_called_looks_like_what_is_not_there(service: Service) -> None:
    async def work(ask: Ask) -> None:
        who = principal(endpoints=frozenset({"other"}))
        _, there = await refused(ask, "POST", PREDICT, JSON, ROW, who=who)
        _, absent = await refused(ask, "POST", PREDICT.replace("pets", "nope"), JSON, ROW, who=who)
        assert there.replace("pets", "nope") == absent

    service.run(work)


def test_the_schema_is_for_callers_and_readers(service: Service) -> None:
    async def work(ask: Ask) -> None:
        path = "/api/v1/endpoints/pets/schema"
        for who in (principal("read"), principal("predict"), principal("write")):
            assert (await ask("GET", path, who=who)).json["input"]["required"] == ["age", "city"]
        head = await ask("HEAD", path)
        assert head.body == b""
        assert (await refused(ask, "GET", path, who=principal(endpoints=frozenset())))[0] == 404

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
        for path in ("/api/v1/models", "/api/v1/endpoints/pets", PREDICT + "/", "/api/v1/endpoints/a/b/predict"):
            assert (await ask("GET", path)).json == {"control": path}

    service.run(work)


class Stuck:
    """A real predictor that waits until it is let go."""

    def __init__(self, predictor: Any) -> None:
        self._predictor = predictor
        self.go = threading.Event()
        self.entered = threading.Event()
        self.runs = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        return self._predictor.encode(rows)

    def run(self, tensors: Any) -> Any:
        self.runs += 1
        self.entered.set()
        self.go.wait(10)
        return self._predictor.run(tensors)


def stuck_service(tmp_path: Path, public: str, deployment: Deployment, timeout: float) -> tuple[Service, list[Stuck]]:
    made: list[Stuck] = []

    def opener(each: Deployment, trusted_key: str) -> Any:
        made.append(Stuck(open_predictor(each, trusted_key)))
        return made[-1]

    return Service(tmp_path, public, [deployment], open_predictor=opener, timeout=timeout), made


def test_a_hung_model_answers_in_time_and_others_do_not_wait(
    tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment]
) -> None:
    service, made = stuck_service(tmp_path, signer[1], bundles["cat"], timeout=0.2)

    async def work(ask: Ask) -> None:
        assert (await refused(ask, "POST", PREDICT, JSON, ROW))[0] == 504
        assert (await ask("GET", "/healthz")).status == 200
        made[0].go.set()
        assert (await ask("POST", PREDICT, JSON, ROW)).status == 200

    service.run(work)


def test_a_client_that_leaves_frees_its_place(
    tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment]
) -> None:
    service, made = stuck_service(tmp_path, signer[1], bundles["cat"], timeout=10)

    async def work(ask: Ask) -> None:
        running = asyncio.ensure_future(ask("POST", PREDICT, JSON, ROW))
        while not made[0].entered.is_set():
            await asyncio.sleep(0.01)
        for _ in range(5):
            with pytest.raises(ClientGone):
                await ask("POST", PREDICT, JSON, ROW, leave=True)
        made[0].go.set()
        assert (await running).status == 200
        assert (await ask("POST", PREDICT, JSON, ROW)).status == 200
        assert made[0].runs == 2

    service.run(work)


def test_an_endpoint_whose_model_does_not_load_is_unavailable_not_unknown(
    tmp_path: Path, signer: tuple[Path, str], bundles: dict[str, Deployment]
) -> None:
    service = Service(tmp_path, signer[1], [msgspec.structs.replace(bundles["cat"], path="/nowhere")])

    async def work(ask: Ask) -> None:
        assert (await refused(ask, "POST", PREDICT, JSON, ROW))[0] == 503

    service.run(work)
