from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.serving.asgi import call, http_scope

from yunmo.core.errors import BodyTooLarge, InvalidInput, SlowBody, TooManyRequests
from yunmo.serving.http import ClientGone, read_body, send_json, send_problem


def receiver(*messages: dict[str, Any]) -> Any:
    queue = list(messages)

    async def receive() -> dict[str, Any]:
        if not queue:
            await asyncio.sleep(60)
        return queue.pop(0)

    return receive


def chunk(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def read(receive: Any, headers: dict[str, str] | None = None, **more: Any) -> bytes:
    return asyncio.run(read_body(http_scope("POST", "/", headers), receive, **{"limit": 10, **more}))


def test_chunks_are_joined() -> None:
    assert read(receiver(chunk(b"abc"), chunk(b""), chunk(b"de", False))) == b"abcde"


def test_a_declared_size_over_the_limit_is_refused_before_reading() -> None:
    with pytest.raises(BodyTooLarge, match="10 bytes"):
        read(receiver(), {"content-length": "11"})


def test_actual_bytes_over_the_limit_are_refused_whatever_was_declared() -> None:
    with pytest.raises(BodyTooLarge):
        read(receiver(chunk(b"a" * 8), chunk(b"b" * 8)), {"content-length": "5"})


def test_a_body_that_dribbles_is_given_up() -> None:
    with pytest.raises(SlowBody):
        read(receiver(chunk(b"a")), timeout=0.05)


def test_a_client_that_leaves_is_noticed() -> None:
    with pytest.raises(ClientGone):
        read(receiver(chunk(b"a"), {"type": "http.disconnect"}))


def test_a_length_that_is_no_number_is_refused() -> None:
    with pytest.raises(InvalidInput):
        read(receiver(), {"content-length": "-1"})


def test_head_has_the_length_but_no_body() -> None:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        await send_json(scope, send, {"a": 1})

    reply = asyncio.run(call(app, "HEAD", "/"))
    assert reply.body == b""
    assert reply.header("content-length") == "7"


@pytest.mark.parametrize(
    ("error", "name", "value"),
    [(TooManyRequests("full"), "retry-after", "1"), (BodyTooLarge("big"), "connection", "close")],
)
def test_problems_say_what_the_client_needs(error: Any, name: str, value: str) -> None:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        await send_problem(scope, send, error)

    reply = asyncio.run(call(app, "GET", "/"))
    assert reply.header(name) == value
    assert reply.json["status"] == reply.status == error.status
