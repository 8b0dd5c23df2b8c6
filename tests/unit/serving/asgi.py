"""Calling an ASGI application as a server does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec

from yunmo.serving.http import App


@dataclass
class Reply:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value.decode() for key, value in self.headers if key == name.encode()), None)

    def all(self, name: str) -> list[str]:
        return [value.decode() for key, value in self.headers if key == name.encode()]

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


def http_scope(method: str, path: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    path, _, query = path.partition("?")
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
    }


async def call(
    app: App,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes | list[bytes] = b"",
    *,
    scope: dict[str, Any] | None = None,
    leave: bool = False,
) -> Reply:
    """Send one request; with ``leave`` the client is gone when its body was read (or, without a body, at once)."""
    chunks = list(body) if isinstance(body, list) else [body]
    left = asyncio.Event()
    if leave:
        left.set()

    async def receive() -> dict[str, Any]:
        if chunks:
            return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}
        await left.wait()
        return {"type": "http.disconnect"}

    reply = Reply(0, [], b"")

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert reply.status == 0, "a second answer"
            reply.status, reply.headers = message["status"], list(message.get("headers", ()))
        else:
            reply.body += message.get("body", b"")

    await app({**http_scope(method, path, headers), **(scope or {})}, receive, send)
    return reply
