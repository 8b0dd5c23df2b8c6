from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from tests.unit.serving.wire import request, run, serving, until

from yunmo.app.application import Application
from yunmo.core.access import KeyRecord, new_key
from yunmo.core.settings import Settings
from yunmo.core.snapshot import Snapshot, WorkerState, encode_snapshot
from yunmo.serving.http import PRINCIPAL, REQUEST_ID


async def control(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    body = msgspec.json.encode({"who": scope[PRINCIPAL].key_id, "request_id": scope[REQUEST_ID]})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def test_gate_faces_and_control_are_one_application(tmp_path: Path) -> None:
    key, prefix, digest = new_key()
    record = KeyRecord("key_1", "p", "k", prefix, digest, ("admin",))
    (tmp_path / "snapshot").write_bytes(encode_snapshot(Snapshot(1, (record,))))
    state = tmp_path / "workers" / "1.json"
    headers: list[tuple[str, str | bytes]] = [("authorization", f"Bearer {key}")]

    async def main() -> None:
        application = Application(tmp_path / "snapshot", state, Settings(), control)
        await application.start()
        assert msgspec.json.decode(state.read_bytes(), type=WorkerState).snapshot == 1
        async with serving(application.handle) as served:
            connection = await served.connect()
            assert (await connection.ask("GET", "/readyz")).status == 200
            for path in ("/api/v1/models", "/metrics", "/v2", "/v2/models/none/infer"):
                assert (await connection.ask("GET", path)).status == 401
            answer = await connection.ask("GET", "/api/v1/models", headers)
            assert answer.json == {"who": "key_1", "request_id": answer.header("x-request-id")}
            missing = await connection.ask("POST", "/api/v1/endpoints/none/predict", headers, b"{}")
            assert (missing.status, missing.json["code"]) == (404, "not_found")
            assert (await connection.ask("GET", "/v2", headers)).json["name"]
            assert (await connection.ask("POST", "/v2/models/none/infer", headers, b"{}")).json.keys() == {"error"}
            assert (await connection.ask("GET", "/metrics", headers)).status == 404  # they are off here
        await application.stop()
        assert not [each.name for each in state.parent.iterdir() if each.suffix in (".json", ".board", ".marks")]

    run(main)


def test_requests_are_answered_to_the_last_when_the_server_stops(tmp_path: Path) -> None:
    key, prefix, digest = new_key()
    record = KeyRecord("key_1", "p", "k", prefix, digest, ("admin",))
    (tmp_path / "snapshot").write_bytes(encode_snapshot(Snapshot(1, (record,))))

    async def main() -> None:
        entered = []

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            entered.append(scope["path"])
            await until(lambda: served.stopping)
            await control(scope, receive, send)

        application = Application(tmp_path / "snapshot", tmp_path / "workers" / "1.json", Settings(), slow)
        await application.start()
        async with serving(application.handle) as served:
            idle, busy = await served.connect(), await served.connect()
            assert (await idle.ask("GET", "/healthz")).status == 200
            await busy.send(request("GET", "/api/v1/models", [("authorization", f"Bearer {key}")]))
            await until(lambda: entered)
            served.stop()
            assert await idle.closed()
            answer = await busy.answer()
            assert (answer.status, answer.header("connection")) == (200, "close")
            assert await busy.closed()
        await application.stop()

    run(main)
