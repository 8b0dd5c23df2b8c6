from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any, BinaryIO

import pytest
from tests.unit.serving.parts import AUTHORIZATION, KEY, Meter, World, forbid, json_app, metered, say
from tests.unit.serving.wire import Answer, Cut, request, run, serving, until

from yunmo.core.errors import BodyTooLarge, DeadlineExceeded, Forbidden, TooManyRequests, YunmoError
from yunmo.serving import entry as module
from yunmo.serving import http
from yunmo.serving.http import ClientGone, Request, Response, json_response
from yunmo.serving.log import RequestLog


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits: clients are looked for at once, and refusals go out at once."""
    monkeypatch.setattr(http, "WATCH_AFTER", 0.0)
    if hasattr(module, "REFUSAL_SECONDS"):
        monkeypatch.setattr(module, "REFUSAL_SECONDS", 0.0)


control = json_app({"control": True})


def raising(error: BaseException) -> Callable[[Request], Awaitable[Response]]:
    async def handler(request: Request) -> Response:  # noqa: ARG001 (all handlers are alike)
        raise error

    return handler


def world(app: Any = control, **handlers: Any) -> World:
    return World(app, handlers)


def ask(world: World, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
    return world.ask(method, path, AUTHORIZATION if headers is None else headers, body)


def test_every_answer_has_its_own_request_id() -> None:
    asked = world(known=say({}), no=forbid, broken=raising(ZeroDivisionError()))
    ids = []
    for path in ("/t/known", "/t/no", "/t/none", "/t/broken", "/api/v1/models", "/healthz"):
        for headers in (AUTHORIZATION, {}):
            reply = ask(asked, "GET", path, headers={**headers, "x-request-id": "mine"})
            assert len(reply.all("x-request-id")) == 1
            ids.append(reply.header("x-request-id"))
    assert len(set(ids)) == len(ids)
    assert "mine" not in ids
    assert {line["request_id"] for line in asked.log.lines} <= set(ids)


@pytest.mark.parametrize(("path", "code"), [("/t/no", "forbidden"), ("/t/none", "not_found")])
def test_errors_have_the_shape_of_their_face(path: str, code: str) -> None:
    asked = world(no=forbid)
    reply = ask(asked, "GET", path)
    assert reply.header("content-type") == "application/json"
    assert reply.json.keys() == {"error"}
    asked.check(code)
    assert asked.log.lines[0]["status"] == reply.status


def test_the_gates_refusals_too_have_the_shape_of_the_paths_face() -> None:
    asked = world(known=say({}))
    assert ask(asked, "GET", "/t/known", headers={}).json.keys() == {"error"}
    reply = ask(asked, "GET", "/api/v1/models", headers={})
    assert reply.header("content-type") == "application/problem+json"
    assert reply.json["instance"] == reply.header("x-request-id")
    asked.check("unauthenticated", "unauthenticated")


@pytest.mark.parametrize("path", ["/t/broken", "/api/v1/models"])
def test_a_defect_tells_nothing_of_our_insides(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_scope: Any, _receive: Any, _send: Any) -> None:
        raise ZeroDivisionError("/secret/path")

    asked = world(broken, broken=raising(ZeroDivisionError("/secret/path")))
    reply = ask(asked, "GET", path)
    assert reply.status == 500
    for inside in (b"secret", b"Zero", b"Traceback"):
        assert inside not in reply.body
    assert "ZeroDivisionError" in caplog.text  # the log has it
    asked.check("internal")


def test_methods_that_a_path_has_not() -> None:
    asked = world(known=say({}))
    for path in ("/t/known", "/healthz"):
        options = ask(asked, "OPTIONS", path)
        assert (options.status, options.body) == (204, b"")
        wrong = ask(asked, "DELETE", path)
        assert wrong.status == 405
        assert wrong.header("allow") == options.header("allow")
        assert str(wrong.header("allow")).startswith("GET, HEAD")
        assert ask(asked, "HEAD", path).body == b""
    asked.check_told("ok", "method_not_allowed", "ok")


def test_probes_are_neither_logged_nor_counted() -> None:
    asked = world()
    for method in ("GET", "HEAD", "POST"):
        ask(asked, method, "/healthz", headers={})
    asked.check()


def test_what_no_face_answers_goes_to_control() -> None:
    asked = world()
    assert ask(asked, "POST", "/api/v1/models", body=b"ab").json == {"control": True}
    asked.check("ok")
    assert asked.watcher.requests == [("p", "", "management", "ok")]
    assert asked.log.lines[0].keys() == {"request_id", "method", "path", "key_id", "status", "ms"}


def test_what_refused_before_a_version_was_chosen_is_told_to_the_observer() -> None:
    async def named(request: Request) -> Response:
        request.facts["endpoint"] = "pets"
        raise Forbidden("no")

    asked = world(named=named)
    ask(asked, "POST", "/t/named")
    ask(asked, "POST", "/t/named", headers={})
    assert asked.watcher.requests == [("p", "pets", "oip", "forbidden"), ("", "", "management", "unauthenticated")]
    asked.check("forbidden", "unauthenticated")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, "ok"),
        (TooManyRequests("full"), "too_many_requests"),
        (DeadlineExceeded("late"), "deadline_exceeded"),
        (ZeroDivisionError(), "internal"),
        (ClientGone(), "client_gone"),
    ],
)
@pytest.mark.parametrize("chosen", [True, False])
def test_everybody_is_told_exactly_once(error: Exception | None, code: str, chosen: bool) -> None:
    meter = Meter()

    async def work() -> object:
        if error is not None:
            raise error
        return {}

    async def unmetered(request: Request) -> Response:
        await request.body(limit=100)
        return json_response(await work())

    asked = world(work=metered(meter, work) if chosen else unmetered)
    asked.watcher.meters["p", "pets", 1] = meter
    reply = ask(asked, "POST", "/t/work", body=b"{}")
    asked.check(code)
    assert meter.begun == len(meter.ended) == chosen
    if isinstance(error, YunmoError):
        assert reply.status == error.status
        assert "error" in reply.json


def test_a_client_that_closed_only_its_sending_side_is_told() -> None:
    asked = world(gone=raising(ClientGone()))
    assert ask(asked, "POST", "/t/gone").status == 422


@pytest.mark.parametrize(
    ("error", "status"), [(BodyTooLarge("big"), 413), (ClientGone(), 422), (ValueError("defect"), 500)]
)
def test_errors_of_the_way_to_control_are_answered(error: Exception, status: int) -> None:
    async def fails(_scope: Any, _receive: Any, _send: Any) -> None:
        raise error

    asked = world(fails)
    reply = ask(asked, "POST", "/api/v1/x")
    assert reply.status == status
    assert reply.header("x-request-id")
    asked.check(getattr(error, "code", {422: "client_gone", 500: "internal"}.get(status)))


@pytest.mark.parametrize(
    ("error", "code", "logged"),
    [
        (ConnectionResetError("cut"), "ok", 0),
        (ValueError("defect"), "internal", 1),
        (Forbidden("late"), "forbidden", 0),
    ],
)
def test_half_an_answer_is_cut_and_only_a_defect_is_logged_as_one(
    caplog: pytest.LogCaptureFixture, error: Exception, code: str, logged: int
) -> None:
    async def breaks(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise error

    asked = world(breaks)
    with pytest.raises(Cut):
        ask(asked, "GET", "/api/v1/x")
    assert sum(each.name == "yunmo.entry" for each in caplog.records) == logged
    asked.check(code)
    assert asked.log.lines[0]["status"] == 200


@pytest.mark.parametrize("path", ["/t/stream", "/api/v1/x"])
def test_a_request_that_is_cancelled_leaves_nothing_behind(path: str) -> None:
    """By the end of the loop, which is the end of the process."""
    worlds = []

    async def stream(*_: Any) -> Any:
        await asyncio.Event().wait()

    async def main() -> None:
        asked = world(stream, stream=stream)
        worlds.append(asked)
        served = await contexts.enter_async_context(serving(asked.entry.handle))
        await (await served.connect()).send(request("GET", path, [*AUTHORIZATION.items()]))
        await until(lambda: asked.activity.requests)

    with contextlib.suppress(asyncio.CancelledError):
        contexts = contextlib.AsyncExitStack()
        run(main)
    assert worlds[0].activity.requests == 0
    assert len(worlds[0].watcher.told) == 1


def test_requests_in_progress_are_counted() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def wait(_request: Request) -> Response:
            await go.wait()
            return Response(204)

        asked = world(wait=wait)
        async with serving(asked.entry.handle) as served:
            connections = [await served.connect() for _ in range(5)]
            for connection in connections:
                await connection.send(request("GET", "/t/wait", [*AUTHORIZATION.items()]))
            await until(lambda: asked.activity.requests == 5)
            assert (await (await served.connect()).ask("GET", "/api/v1/x")).status == 401
            assert asked.activity.requests == 5
            go.set()
            assert {(await connection.answer()).status for connection in connections} == {204}
            asked.check(*["ok"] * 5, "unauthenticated")

    run(main)


@pytest.fixture
def file() -> Any:
    with tempfile.TemporaryFile() as file:
        yield file


def test_the_log_has_facts_and_never_the_key(file: BinaryIO) -> None:
    asked = world(known=say({}))
    log = RequestLog("all", descriptor=file.fileno())
    asked.entry._log = log
    for path in (f"/api/v1/models/{KEY}", f"/t/{KEY}", f"/t/known?key={KEY}", f"/{KEY}/" + "x" * 5000):
        for headers in (AUTHORIZATION, {"authorization": f"Basic {KEY}"}, {"x-key": KEY}):
            ask(asked, "GET", path, headers=headers)
    log.close(20)
    file.seek(0)
    text = file.read().decode()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == 12
    assert {line["status"] for line in lines} == {200, 401, 404}
    assert KEY not in text
    assert KEY[12:] not in text
    for line in lines:
        assert {"time", "level", "logger", "request_id", "method", "path", "status", "ms"} <= line.keys()
        assert ("key_id" in line) == (line["status"] != 401)
        assert line["ms"] >= 0
        assert len(line["path"]) <= 200
