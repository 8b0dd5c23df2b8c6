from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.unit.serving.asgi import call

from yunmo.app.application import Application
from yunmo.core.access import KeyRecord, new_key
from yunmo.core.settings import Settings
from yunmo.core.snapshot import Snapshot, encode_snapshot
from yunmo.serving.http import PRINCIPAL, send_json


async def control(scope: Any, _receive: Any, send: Any) -> None:
    await send_json(scope, send, {"who": scope[PRINCIPAL].key_id})


def test_gate_hot_paths_and_control_are_one_application(tmp_path: Path) -> None:
    key, prefix, digest = new_key()
    record = KeyRecord("key_1", "p", "k", prefix, digest, ("admin",))
    (tmp_path / "snapshot").write_bytes(encode_snapshot(Snapshot(1, (record,))))
    state = tmp_path / "workers" / "1.json"
    application = Application(tmp_path / "snapshot", state, Settings(), control)
    headers = {"authorization": f"Bearer {key}"}

    async def main() -> None:
        inbox: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        outbox: asyncio.Queue[Any] = asyncio.Queue()
        server = asyncio.ensure_future(application({"type": "lifespan"}, inbox.get, outbox.put))
        await inbox.put({"type": "lifespan.startup"})
        assert (await outbox.get())["type"] == "lifespan.startup.complete"
        assert state.exists()
        assert (await call(application, "GET", "/readyz")).status == 200
        assert (await call(application, "GET", "/api/v1/models")).status == 401
        assert (await call(application, "GET", "/api/v1/models", headers)).json == {"who": "key_1"}
        assert (await call(application, "POST", "/api/v1/endpoints/none/predict", headers)).status == 404
        await inbox.put({"type": "lifespan.shutdown"})
        assert (await outbox.get())["type"] == "lifespan.shutdown.complete"
        await server
        assert not state.exists()

    asyncio.run(main())
