from __future__ import annotations

import asyncio
import base64
import logging
import time
from typing import Any

import pytest
from tests.unit.serving.asgi import Reply, call

from yunmo.core.access import KeyRecord, new_key
from yunmo.core.errors import Forbidden
from yunmo.serving.gate import Gate, Keyring
from yunmo.serving.http import PRINCIPAL, ClientGone, Scope, send_json
from yunmo.serving.log import JsonFormatter


def record(prefix: str, digest: str, **more: Any) -> KeyRecord:
    return KeyRecord(id="key_1", project_id="p", name="k", prefix=prefix, hash=digest, scopes=("predict",), **more)


class Inner:
    """The application behind the gate: remembers what reached it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.scopes: list[Scope] = []
        self.error = error

    async def __call__(self, scope: Scope, _receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if self.error:
            raise self.error
        await send_json(scope, send, {"ok": True})


@pytest.fixture
def key() -> str:
    return new_key()[0]


def gate_for(key: str, inner: Inner, **more: Any) -> tuple[Gate, Keyring]:
    from yunmo.core.access import hash_key, key_prefix

    keyring = Keyring()
    keyring.replace([record(key_prefix(key) or "", hash_key(key), **more)])
    return Gate(inner, keyring), keyring


def ask(gate: Gate, path: str = "/api/v1/models", method: str = "GET", **headers: str) -> Reply:
    return asyncio.run(call(gate, method, path, headers))


@pytest.mark.parametrize(
    "path", ["/", "/api/v1/models", "/nothing/here", "/docs", "/healthz/", "/HEALTHZ", "//healthz"]
)
@pytest.mark.parametrize("header", [None, "Bearer nonsense", "Bearer ", "Basic eDp5", "ym_x", "Bearer " + "x" * 9000])
def test_without_a_valid_key_every_path_is_401(key: str, path: str, header: str | None) -> None:
    inner = Inner()
    gate, _ = gate_for(key, inner)
    reply = ask(gate, path, **({"authorization": header} if header else {}))
    assert reply.status == 401
    assert reply.all("www-authenticate")[0] == 'Bearer realm="yunmo"'
    assert reply.json["code"] == "unauthenticated"
    assert not inner.scopes


def test_a_valid_key_passes_and_is_not_handed_on(key: str) -> None:
    inner = Inner()
    gate, _ = gate_for(key, inner)
    reply = ask(gate, authorization=f"Bearer {key}", **{"x-yunmo-principal": "forged", "accept": "a"})
    assert reply.status == 200
    assert [name for name, _ in inner.scopes[0]["headers"]] == [b"accept"]
    assert inner.scopes[0][PRINCIPAL].key_id == "key_1"


def test_two_authorization_headers_are_none(key: str) -> None:
    gate, _ = gate_for(key, Inner())
    pair = (b"authorization", f"Bearer {key}".encode())
    assert asyncio.run(call(gate, "GET", "/x", scope={"headers": [pair, pair]})).status == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_open_but_carries_no_principal(key: str, path: str) -> None:
    inner = Inner()
    gate, _ = gate_for(key, inner)
    assert ask(gate, path, **{"x-yunmo-principal": "forged"}).status == 200
    assert PRINCIPAL not in inner.scopes[0]
    assert inner.scopes[0]["headers"] == []


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/docs", "GET", 200),
        ("/docs/oauth2", "HEAD", 200),
        ("/openapi.json", "GET", 200),
        ("/api/v1/runs/run_1/report", "GET", 200),
        ("/api/v1/models/pets/1/report", "GET", 200),
        ("/docs", "POST", 401),
        ("/api/v1/runs", "GET", 401),
        ("/api/v1/endpoints/pets/predict", "POST", 401),
        ("/docsecret", "GET", 401),
    ],
)
def test_basic_is_for_pages_that_a_browser_opens(key: str, path: str, method: str, status: int) -> None:
    gate, _ = gate_for(key, Inner())
    basic = base64.b64encode(f"anyone:{key}".encode()).decode()
    assert ask(gate, path, method, authorization=f"Basic {basic}").status == status


def test_a_browser_is_asked_for_the_key(key: str) -> None:
    gate, _ = gate_for(key, Inner())
    assert any(value.startswith("Basic ") for value in ask(gate, "/docs").all("www-authenticate"))


def test_revoked_and_expired_keys_are_worth_nothing(key: str) -> None:
    gate, keyring = gate_for(key, Inner())
    assert ask(gate, authorization=f"Bearer {key}").status == 200
    keyring.replace([])
    assert ask(gate, authorization=f"Bearer {key}").status == 401
    expired, _ = gate_for(key, Inner(), expires_at=time.time() - 1)
    assert ask(expired, authorization=f"Bearer {key}").status == 401


def test_before_the_first_snapshot_nobody_is_called_invalid(key: str) -> None:
    reply = ask(Gate(Inner(), Keyring()), authorization=f"Bearer {key}")
    assert reply.status == 503
    assert reply.header("retry-after")


def test_every_answer_has_its_own_request_id(key: str) -> None:
    gate, _ = gate_for(key, Inner())
    ids = [ask(gate, **{"x-request-id": "mine"}).header("x-request-id") for _ in range(3)]
    assert len(set(ids)) == 3
    assert "mine" not in ids


def test_errors_become_problems_without_internals(key: str) -> None:
    gate, _ = gate_for(key, Inner(Forbidden("not yours")))
    reply = ask(gate, authorization=f"Bearer {key}")
    assert (reply.status, reply.header("content-type")) == (403, "application/problem+json")
    assert reply.json["instance"] == reply.header("x-request-id")
    logging.getLogger("yunmo.gate").disabled = True
    try:
        gate, _ = gate_for(key, Inner(ZeroDivisionError("/secret/path")))
        reply = ask(gate, authorization=f"Bearer {key}")
    finally:
        logging.getLogger("yunmo.gate").disabled = False
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert b"Zero" not in reply.body


def test_a_client_that_closed_only_its_sending_side_is_told(key: str) -> None:
    gate, _ = gate_for(key, Inner(ClientGone()))
    assert ask(gate, authorization=f"Bearer {key}").status == 422


def test_the_log_has_facts_and_never_the_key(key: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "yunmo.request")
    gate, _ = gate_for(key, Inner())
    ask(gate, f"/api/v1/models/{key}", authorization=f"Bearer {key}")
    line = JsonFormatter().format(caplog.records[-1])
    assert '"key_id": "key_1"' in line
    assert '"status": 200' in line
    assert key not in line
    assert key[12:] not in line


@pytest.mark.parametrize(("error", "lines"), [(ConnectionResetError("cut"), 0), (ValueError("defect"), 1)])
def test_half_an_answer_is_cut_and_only_a_defect_is_logged_as_one(
    key: str, caplog: pytest.LogCaptureFixture, error: Exception, lines: int
) -> None:
    async def breaks(_scope: Scope, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    _, keyring = gate_for(key, Inner())
    with pytest.raises(type(error)):
        ask(Gate(breaks, keyring), authorization=f"Bearer {key}")
    assert sum(each.name == "yunmo.gate" for each in caplog.records) == lines
