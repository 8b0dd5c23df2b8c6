from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from tests.unit.serving.parts import AUTHORIZATION, KEY, World, json_app, keyring, record, say
from tests.unit.serving.wire import Answer

from yunmo.core.access import new_key
from yunmo.core.errors import Unauthenticated, Unavailable
from yunmo.serving.gate import Keyring
from yunmo.serving.http import PRINCIPAL, Scope


class Control:
    """What is behind the gate: remembers what reached it."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await json_app({"ok": True})(scope, receive, send)


@pytest.fixture
def control() -> Control:
    return Control()


@pytest.fixture
def world(control: Control) -> World:
    return World(control, {"known": say({"known": True})})


def ask(world: World, path: str = "/api/v1/models", method: str = "GET", **headers: str) -> Answer:
    return world.ask(method, path, headers)


PATHS = ["/", "/api/v1/models", "/nothing/here", "/docs", "/t/known", "/t/unknown"]
ALMOST_OPEN = ["/healthz/", "/HEALTHZ", "//healthz", "/readyz/x", "/healthz/../readyz", "/%20healthz", "/healthz%2F"]


@pytest.mark.parametrize("path", [*PATHS, *ALMOST_OPEN])
@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer nonsense",
        "Bearer ",
        "Bearer",
        "Basic eDp5",
        "ym_x",
        KEY,
        f"Token {KEY}",
        "Bearer " + "x" * 9000,
    ],
)
def test_without_a_valid_key_every_path_is_401(world: World, control: Control, path: str, header: str | None) -> None:
    reply = ask(world, path, **({"authorization": header} if header is not None else {}))
    assert reply.status == 401
    assert reply.all("www-authenticate")[0] == 'Bearer realm="yunmo"'
    assert not control.scopes


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH"])
def test_known_and_unknown_paths_look_alike_to_strangers(world: World, method: str) -> None:
    known, unknown = (ask(world, path, method) for path in ("/t/known", "/t/unknown"))
    assert known.status == unknown.status == 401
    assert known.body == unknown.body
    assert known.all("www-authenticate") == unknown.all("www-authenticate")
    assert not known.all("allow")


def test_a_key_of_the_right_form_that_is_not_known_is_refused(world: World) -> None:
    assert ask(world, authorization=f"Bearer {new_key()[0]}").status == 401
    assert ask(world, authorization=f"Bearer {KEY[:-1]}{'A' if KEY[-1] != 'A' else 'B'}").status == 401


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {}", "Bearer {}  "])
def test_a_valid_key_passes_and_goes_no_further(world: World, control: Control, form: str) -> None:
    forged = {"x-yunmo-principal": "forged", "x-yunmo-request-id": "forged", "x-yunmo-": "x"}
    reply = ask(world, authorization=form.format(KEY), **forged, accept="a", **{"x-yunm": "b"})
    assert reply.status == 200
    assert control.scopes[0]["headers"] == [(b"host", b"x"), (b"accept", b"a"), (b"x-yunm", b"b")]
    assert control.scopes[0][PRINCIPAL].key_id == "key_1"


def test_several_authorization_headers_are_none(world: World) -> None:
    valid: tuple[str, str | bytes] = ("authorization", f"Bearer {KEY}")
    for second in (f"Bearer {KEY}", "Bearer x", "", b"\xff"):
        for pairs in ([valid, ("Authorization", second)], [("Authorization", second), valid]):
            assert world.ask("GET", "/x", pairs).status == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer nonsense"}, {"x-yunmo-principal": "forged"}])
def test_health_is_open_to_everybody(world: World, control: Control, path: str, headers: dict[str, str]) -> None:
    assert ask(world, path, **headers).json == {"status": "ok"}
    assert ask(world, path, "DELETE", **headers).status == 405
    assert not control.scopes


BASIC = base64.b64encode(f"anyone:{KEY}".encode()).decode()


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
        ("/api/v1/runs/run_1/report/x", "GET", 401),
        ("/api/v1/models/pets/report", "GET", 401),
        ("/api/v1/endpoints/pets/predict", "POST", 401),
        ("/t/known", "GET", 401),
        ("/docsecret", "GET", 401),
        ("/openapiXjson", "GET", 401),
    ],
)
def test_basic_is_for_pages_that_a_browser_opens(world: World, path: str, method: str, status: int) -> None:
    assert ask(world, path, method, authorization=f"Basic {BASIC}").status == status
    asked = ask(world, path, method).all("www-authenticate")
    assert asked[0].startswith("Bearer ")
    assert any(value.startswith("Basic ") for value in asked) is (status == 200)


@pytest.mark.parametrize("rest", ["%%%", *(base64.b64encode(text).decode() for text in (b"\xff:\xff", KEY.encode()))])
def test_what_is_no_basic_is_refused(world: World, rest: str) -> None:
    assert ask(world, "/docs", authorization=f"Basic {rest}").status == 401


def test_revoked_and_expired_keys_are_worth_nothing(world: World) -> None:
    assert ask(world, **AUTHORIZATION).status == 200
    world.keyring.replace([])
    assert ask(world, **AUTHORIZATION).status == 401
    world.keyring.replace([record(expires_at=time.time() + 60)])
    assert ask(world, **AUTHORIZATION).status == 200
    world.keyring.replace([record(expires_at=time.time() - 1)])
    assert ask(world, **AUTHORIZATION).status == 401


@pytest.mark.parametrize("headers", [{}, AUTHORIZATION, {"authorization": "Bearer nonsense"}])
def test_before_the_first_snapshot_nobody_is_called_invalid(control: Control, headers: dict[str, str]) -> None:
    world = World(control, keys=Keyring())
    reply = ask(world, **headers)
    assert reply.status == 503
    assert reply.header("retry-after")
    assert not reply.all("www-authenticate")
    assert ask(world, "/healthz").status == 200


def test_the_keyring_admits_as_the_gate_does() -> None:
    with pytest.raises(Unavailable):
        Keyring().admit(KEY)
    for wrong in (None, "", "nonsense", "ä中", new_key()[0]):
        with pytest.raises(Unauthenticated):
            keyring().admit(wrong)
    assert keyring().admit(KEY).project_id == "p"
