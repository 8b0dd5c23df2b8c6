"""The little HTTP that the gate and the faces share: ASGI types, bounded bodies, answers, problem documents."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import msgspec

from yunmo.core.errors import BodyTooLarge, InvalidInput, SlowBody, YunmoError, problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

PRINCIPAL = "yunmo.principal"
"""Key of the ASGI scope under which the gate leaves the `Principal`."""
REQUEST_ID = "yunmo.request_id"
"""Key of the ASGI scope under which the gate leaves the request's id."""
FACTS = "yunmo.facts"
"""Key of the ASGI scope: a dict in which a face leaves what the request log should say, such as ``endpoint``."""

BODY_TIMEOUT = 30.0
"""Seconds a client may take to send a whole body of a prediction request."""
RETRY_AFTER = {429: b"1", 503: b"2"}
"""Seconds after which a refused client may try again, by status."""


class ClientGone(Exception):
    """The client closed its connection before its request was complete or answered: there is nobody to answer."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the first header called ``name`` (lower case), None if there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


async def read_body(scope: Scope, receive: Receive, *, limit: int, timeout: float = BODY_TIMEOUT) -> bytes:
    """Return the whole request body.

    Args:
        scope: of the request.
        receive: of the request.
        limit: most bytes allowed; held against Content-Length before a byte is read, then against what arrives.
        timeout: seconds for the whole of it.

    Raises:
        BodyTooLarge: more than ``limit`` bytes.
        InvalidInput: a Content-Length that is no number.
        SlowBody: not complete in time.
        ClientGone: the client left.
    """
    declared = header(scope, b"content-length")
    if declared is not None:
        if not declared.isdigit():
            raise InvalidInput("Content-Length is not a number", where="header content-length")
        if int(declared) > limit:
            raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                chunks.append(chunk)
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise SlowBody(f"the body was not complete within {timeout:g} seconds") from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than {limit} bytes", remedy="Send less, or raise the setting max_body")


async def wait_disconnect(receive: Receive) -> None:
    """Return when the client has closed its connection; to be called after the body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_bytes(
    scope: Scope, send: Send, status: int, body: bytes, content_type: bytes, headers: Headers = ()
) -> None:
    """Answer with one body; a HEAD request gets its headers only."""
    start = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})


async def send_json(scope: Scope, send: Send, value: object, *, status: int = 200, headers: Headers = ()) -> None:
    """Answer with a value as JSON."""
    await send_bytes(scope, send, status, msgspec.json.encode(value), b"application/json", headers)


async def send_problem(scope: Scope, send: Send, error: YunmoError, headers: Headers = ()) -> None:
    """Answer with an error as an RFC 9457 problem document; 429 and 503 say when to try again."""
    extra = list(headers)
    if error.status in RETRY_AFTER:
        extra.append((b"retry-after", RETRY_AFTER[error.status]))
    if error.status == BodyTooLarge.status or isinstance(error, SlowBody):
        # The rest of the body is not read, so the connection cannot be used again.
        extra.append((b"connection", b"close"))
    body = msgspec.json.encode(problem(error, instance=scope.get(REQUEST_ID)))
    await send_bytes(scope, send, error.status, body, b"application/problem+json", extra)


async def send_empty(send: Send, status: int, headers: Headers = ()) -> None:
    """Answer without a body."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": b""})
