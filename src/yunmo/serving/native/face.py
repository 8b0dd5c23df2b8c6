"""The native API's hot paths: HTTP in, the data plane, HTTP out. Everything else goes to ``otherwise``."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

from yunmo.core.access import Principal
from yunmo.core.errors import MethodNotAllowed
from yunmo.serving.dataplane import Answer, DataPlane
from yunmo.serving.http import (
    FACTS,
    PRINCIPAL,
    REQUEST_ID,
    App,
    ClientGone,
    Receive,
    Scope,
    Send,
    header,
    read_body,
    send_empty,
    send_json,
    send_problem,
    wait_disconnect,
)
from yunmo.serving.native.bodies import accepted, check_type, read_rows

_ENDPOINT = re.compile(r"/api/v1/endpoints/(?P<endpoint>[^/]{1,64})/(?P<verb>predict|schema)", re.ASCII)

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


class NativeFace:
    """Health, ``predict`` and ``schema`` of the native API.

    Args:
        dataplane: answers predictions.
        otherwise: gets every request that is not for a path of this face.
        max_body: bytes that a prediction request may have.
    """

    def __init__(self, dataplane: DataPlane, otherwise: App, *, max_body: int) -> None:
        self._dataplane = dataplane
        self._otherwise = otherwise
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request or pass it on."""
        path: str = scope["path"]
        match = _ENDPOINT.fullmatch(path)
        if match and match["verb"] == "predict":
            await self._allow(scope, receive, send, ("POST",), self._predict)
        elif match:
            await self._allow(scope, receive, send, ("GET", "HEAD"), self._schema)
        elif path == "/healthz":
            await self._allow(scope, receive, send, ("GET", "HEAD"), self._health)
        elif path == "/readyz":
            await self._allow(scope, receive, send, ("GET", "HEAD"), self._ready)
        else:
            await self._otherwise(scope, receive, send)

    @staticmethod
    async def _allow(scope: Scope, receive: Receive, send: Send, methods: tuple[str, ...], handler: Handler) -> None:
        method = scope["method"]
        if method in methods:
            await handler(scope, receive, send)
            return
        allow = [(b"allow", ", ".join((*methods, "OPTIONS")).encode())]
        if method == "OPTIONS":
            await send_empty(send, 204, allow)
        else:
            await send_problem(scope, send, MethodNotAllowed(f"{method} is not possible here"), allow)

    @staticmethod
    async def _health(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG004 (all handlers are alike)
        await send_json(scope, send, {"status": "ok"})

    async def _ready(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (all handlers are alike)
        deployments = self._dataplane.deployments
        ready = deployments.applied >= 0
        loaded, refused = deployments.counts
        answer = {"status": "ready" if ready else "starting", "endpoints": loaded, "refused": refused}
        await send_json(scope, send, answer, status=200 if ready else 503)

    async def _predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint, principal, facts = _request(scope)
        model = self._dataplane.route(endpoint, principal).predictor
        content_type = header(scope, b"content-type")
        check_type(content_type, header(scope, b"content-encoding"), model)
        body = await read_body(scope, receive, limit=self._max_body)
        rows = read_rows(body, content_type, model)
        facts["rows"] = len(rows)
        work = asyncio.ensure_future(self._dataplane.predict(endpoint, rows, principal, size=len(body)))
        answer = await _unless_gone(work, receive)
        document = {
            "endpoint": answer.endpoint,
            "model": answer.model,
            "version": answer.version,
            "request_id": scope[REQUEST_ID],
            "predictions": answer.predictions,
        }
        facts["model"] = f"{answer.model}:{answer.version}"
        await send_json(scope, send, document)

    async def _schema(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (all handlers are alike)
        endpoint, principal, _ = _request(scope)
        route = self._dataplane.route(endpoint, principal, read=True)
        document = {
            "endpoint": endpoint,
            "model": route.deployment.model,
            "version": route.deployment.version,
            "accepts": accepted(route.predictor),
            "input": route.predictor.input_schema,
            "output": route.predictor.output_schema,
        }
        await send_json(scope, send, document)


def _request(scope: Scope) -> tuple[str, Principal, dict[str, Any]]:
    """Return the endpoint, the principal and the log's facts of a request to an endpoint."""
    endpoint = scope["path"].split("/")[4]
    facts: dict[str, Any] = scope[FACTS]
    facts["endpoint"] = endpoint
    principal: Principal = scope[PRINCIPAL]
    return endpoint, principal, facts


async def _unless_gone(work: asyncio.Future[Answer], receive: Receive) -> Answer:
    """Return what ``work`` comes to; if the client leaves first, cancel it, so that its place is free at once.

    Raises:
        ClientGone: the client left.
    """
    gone = asyncio.ensure_future(wait_disconnect(receive))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientGone
        return work.result()
    finally:
        gone.cancel()
        work.cancel()
