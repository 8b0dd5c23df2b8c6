from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.serving.asgi import Reply, call, http_scope

from yunmo.app.proxy import ControlProxy
from yunmo.core.access import Principal
from yunmo.core.errors import BodyTooLarge, InvalidInput, Unavailable
from yunmo.serving.http import PRINCIPAL, REQUEST_ID, ClientGone

WHO = Principal("key_1", "p", frozenset({"admin"}))
SCOPE = {PRINCIPAL: WHO, REQUEST_ID: "req_1"}
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def with_control(folder: Path, handler: Handler, work: Callable[[ControlProxy], Awaitable[None]]) -> None:
    """Run ``work`` with a proxy to a control that ``handler`` plays, byte by byte."""

    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    async def main() -> None:
        server = await asyncio.start_unix_server(closing, str(folder / "s"))
        async with server:
            async with asyncio.timeout(20):
                await work(ControlProxy(folder / "s", max_upload=10_000_000))

    asyncio.run(main())


async def head_of(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\r\n\r\n")).decode()


async def ask(proxy: ControlProxy, method: str = "GET", path: str = "/api/v1/x", **more: Any) -> Reply:
    return await call(proxy, method, path, more.pop("headers", None), scope=SCOPE, **more)


def test_a_request_arrives_with_its_principal_and_the_answer_comes_back(tmp_path: Path) -> None:
    heads: list[str] = []

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await head_of(reader))
        body = await reader.readexactly(3)
        writer.write(
            b"HTTP/1.1 201 Created\r\nx-a: 1\r\nx-request-id: no\r\nserver: s\r\ncontent-length: 4\r\n\r\n<" + body
        )

    async def work(proxy: ControlProxy) -> None:
        headers = {"content-length": "3", "connection": "close", "host": "h", "expect": "100-continue", "accept": "a"}
        reply = await ask(proxy, "POST", "/api/v1/x?q=1&r=%20", headers=headers, body=[b"a", b"bc"])
        assert (reply.status, reply.body) == (201, b"<abc")
        assert reply.headers == [(b"x-a", b"1"), (b"content-length", b"4")]

    with_control(tmp_path, control, work)
    lines = heads[0].split("\r\n")
    assert lines[0] == "POST /api/v1/x?q=1&r=%20 HTTP/1.1"
    sent = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines[1:] if line}
    assert sent.keys() == {"content-length", "host", "accept", "x-yunmo-principal", "x-yunmo-request-id"}
    assert msgspec.json.decode(base64.b64decode(sent["x-yunmo-principal"]), type=Principal) == WHO


def test_without_control_it_is_503_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(Unavailable, match="predictions go on"):
            await ask(ControlProxy(tmp_path / "none", max_upload=10))

    asyncio.run(main())


def test_control_that_dies_before_its_answer_is_503(tmp_path: Path) -> None:
    async def control(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await head_of(reader)

    async def work(proxy: ControlProxy) -> None:
        with pytest.raises(Unavailable, match="ended before"):
            await ask(proxy)

    with_control(tmp_path, control, work)


def test_half_an_answer_never_passes_for_a_whole_one(tmp_path: Path) -> None:
    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")

    async def work(proxy: ControlProxy) -> None:
        with pytest.raises(Exception, match=r"closed connection|received"):
            await ask(proxy)

    with_control(tmp_path, control, work)


def test_an_answer_before_the_end_of_the_body_is_passed_on(tmp_path: Path) -> None:
    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")

    async def work(proxy: ControlProxy) -> None:
        body = [b"x" * 100_000] * 80
        reply = await ask(proxy, "POST", headers={"transfer-encoding": "chunked"}, body=body)
        assert (reply.status, reply.body) == (413, b"no")

    with_control(tmp_path, control, work)


def test_uploads_over_the_limit_are_refused(tmp_path: Path) -> None:
    async def control(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass

    async def work(proxy: ControlProxy) -> None:
        with pytest.raises(BodyTooLarge):
            await ask(proxy, "POST", headers={"content-length": "10000001"})
        with pytest.raises(BodyTooLarge):
            await ask(proxy, "POST", headers={"transfer-encoding": "chunked"}, body=[b"x" * 1_000_000] * 11)

    with_control(tmp_path, control, work)


def test_a_slow_control_slows_the_upload_instead_of_filling_memory(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await go.wait()
        await reader.readexactly(9_000_000)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def work(proxy: ControlProxy) -> None:
        taken = 0

        async def receive() -> dict[str, Any]:
            nonlocal taken
            if taken == 90:
                await asyncio.sleep(60)
            taken += 1
            return {"type": "http.request", "body": b"x" * 100_000, "more_body": taken < 90}

        statuses: list[int] = []

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {**http_scope("POST", "/u", {"content-length": "9000000"}), **SCOPE}
        task = asyncio.ensure_future(proxy(scope, receive, send))
        await asyncio.sleep(0.3)
        assert 0 < taken < 60
        go.set()
        await task
        assert statuses == [200]

    with_control(tmp_path, control, work)


def test_events_come_as_they_happen_and_end_at_shutdown(tmp_path: Path) -> None:
    step = asyncio.Event()

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(2):
            writer.write(b"7\r\ndata:%d\n\r\n" % number)
            await writer.drain()
            await step.wait()
        await reader.read()

    async def work(proxy: ControlProxy) -> None:
        seen: asyncio.Queue[bytes] = asyncio.Queue()

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)
            if not received:
                received.append(1)
                return {"type": "http.request", "body": b"", "more_body": False}
            await asyncio.sleep(60)
            return {}

        async def send(message: Any) -> None:
            if body := message.get("body"):
                seen.put_nowait(body)

        received: list[int] = []
        task = asyncio.ensure_future(proxy({**http_scope("GET", "/e"), **SCOPE}, receive, send))
        assert await seen.get() == b"data:0\n"
        step.set()
        assert await seen.get() == b"data:1\n"
        proxy.close_streams()
        with pytest.raises(ConnectionResetError):
            await task

    with_control(tmp_path, control, work)


def test_a_client_that_leaves_ends_controls_work(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def control(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        try:
            await reader.read()
        finally:
            ended.set()

    async def work(proxy: ControlProxy) -> None:
        with pytest.raises(ClientGone):
            await ask(proxy, leave=True)
        await asyncio.wait_for(ended.wait(), 5)

    with_control(tmp_path, control, work)


def test_what_http_does_not_allow_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    async def control(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def work(proxy: ControlProxy) -> None:
        for scope in ({"raw_path": b"/a b"}, {"raw_path": b"/x", "query_string": b"a\nb"}):
            with pytest.raises(InvalidInput):
                await call(proxy, "GET", "/x", scope={**SCOPE, **scope})

    with_control(tmp_path, control, work)
