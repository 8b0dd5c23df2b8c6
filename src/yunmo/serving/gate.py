"""The gate in front of everything: no request passes without a valid key, whatever its path.

It runs before routing, so an unknown path tells a stranger nothing. What a valid key may do is decided further in,
where the route is known: here a request only gets its `Principal`.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
import time
from collections.abc import Iterable
from typing import Any

from yunmo.core.access import KeyRecord, Principal, authenticate
from yunmo.core.errors import InternalError, InvalidInput, Unauthenticated, Unavailable, YunmoError
from yunmo.core.ids import new_id
from yunmo.serving.http import (
    FACTS,
    PRINCIPAL,
    REQUEST_ID,
    App,
    ClientGone,
    Message,
    Receive,
    Scope,
    Send,
    send_problem,
)
from yunmo.serving.log import request_log

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_BROWSER_PAGE = re.compile(
    r"/docs(/.*)?|/openapi\.json|/api/v1/runs/[^/]+/report|/api/v1/models/[^/]+/[^/]+/report", re.ASCII
)
_MAX_CREDENTIALS = 512

_logger = logging.getLogger("yunmo.gate")


class Keyring:
    """The keys that are valid now. None are known (`ready` is False) until the first snapshot was read."""

    def __init__(self) -> None:
        self._records: dict[str, KeyRecord] = {}
        self.ready = False

    def replace(self, records: Iterable[KeyRecord]) -> None:
        """Take the keys of a new snapshot; keys that are not among them are worth nothing from now on."""
        self._records = {record.prefix: record for record in records}
        self.ready = True

    def principal(self, key: str) -> Principal | None:
        """Return whom a key belongs to, None if it is not valid."""
        return authenticate(key, self._records, now=time.time())


class Gate:
    """ASGI middleware: request id, authentication, request log, and a problem document for whatever escapes."""

    def __init__(self, app: App, keyring: Keyring) -> None:
        self._app = app
        self._keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; see the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = new_id("req")
        scope[REQUEST_ID] = request_id
        facts: dict[str, Any] = {"request_id": request_id, "method": scope["method"], "path": scope["path"][:200]}
        scope[FACTS] = facts
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._enter(scope, receive, send_with_id, facts)
        except ClientGone:
            facts["client_gone"] = True
            if not status:
                # Nearly always to nobody; a client that closed only its sending side is told.
                await send_problem(scope, send_with_id, InvalidInput("the connection was closed before the answer"))
        except YunmoError as error:
            if status:
                raise
            facts["error"] = error.code
            await send_problem(scope, send_with_id, error)
        except Exception as error:
            if not (status and isinstance(error, ConnectionError)):  # a stream that was cut is no defect
                _logger.exception("request failed", extra={"facts": {"request_id": request_id}})
            if status:
                raise  # the server then cuts the connection, so that half an answer cannot pass for a whole one
            facts["error"] = InternalError.code
            await send_problem(scope, send_with_id, InternalError("the service failed; its log has the details"))
        finally:
            facts["status"] = status
            facts["ms"] = round((time.perf_counter() - began) * 1000, 2)
            # Probes come every few seconds and say nothing.
            level = logging.DEBUG if scope["path"] in OPEN_PATHS else logging.INFO
            request_log.log(level, "request", extra={"facts": facts})

    async def _enter(self, scope: Scope, receive: Receive, send: Send, facts: dict[str, Any]) -> None:
        if scope["path"] not in OPEN_PATHS:
            if not self._keyring.ready:
                raise Unavailable("the service is starting and knows no keys yet", remedy="Try again in a moment")
            browser = scope["method"] in ("GET", "HEAD") and _BROWSER_PAGE.fullmatch(scope["path"]) is not None
            key = _credentials(scope, basic=browser)
            principal = self._keyring.principal(key) if key is not None else None
            if principal is None:
                facts["error"] = Unauthenticated.code
                await send_problem(scope, send, _refusal(key), headers=_challenge(browser))
                return
            facts["key_id"] = principal.key_id
            scope[PRINCIPAL] = principal
        scope["headers"] = [pair for pair in scope["headers"] if not _private(pair[0])]
        await self._app(scope, receive, send)


def _private(name: bytes) -> bool:
    """Say whether a header must go no further: our own names are ours to set, and nothing behind needs the key."""
    return name.startswith(b"x-yunmo-") or name == b"authorization"


def _credentials(scope: Scope, *, basic: bool) -> str | None:
    """Return the key of the Authorization header; None if there is none, or more than one."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1 or len(values[0]) > _MAX_CREDENTIALS:
        return None
    text: str = values[0].decode("latin-1")
    scheme, _, rest = text.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if basic and scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


def _refusal(key: str | None) -> Unauthenticated:
    if key is None:
        return Unauthenticated("this needs a key", remedy="Send the header 'Authorization: Bearer ym_...'")
    return Unauthenticated("the key is not valid", remedy="It may have expired or been revoked; ask for another")


def _challenge(browser: bool) -> list[tuple[bytes, bytes]]:
    challenge = [(b"www-authenticate", b'Bearer realm="yunmo"')]
    return [*challenge, (b"www-authenticate", b'Basic realm="yunmo", charset="UTF-8"')] if browser else challenge
