"""Every error as an RFC 9457 problem document; what nobody expected is logged, and its text stays here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from msgspec import json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from yunmo.core.errors import (
    BodyTooLarge,
    InternalError,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    UnsupportedMediaType,
    YunmoError,
    problem,
)
from yunmo.core.ids import new_request_id

_logger = logging.getLogger("yunmo.control")
_REQUEST_ID = "yunmo.request_id"
_REQUEST_ID_HEADER = b"x-yunmo-request-id"
_STREAMED = frozenset({"/api/v1/uploads", "/api/v1/models"})
"""Paths whose bodies are streamed to the artefact store, which has its own limit."""


def add_problems(app: FastAPI, *, max_body: int) -> None:
    """Make an application answer every error with a problem document.

    Args:
        app: the application.
        max_body: most bytes of a body that is no upload.
    """
    app.add_exception_handler(YunmoError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_middleware(_Outermost, max_body=max_body)


def problem_response(error: YunmoError, scope: Scope, headers: dict[str, str] | None = None) -> Response:
    """Return the answer for an error."""
    request_id = scope.get(_REQUEST_ID)
    if error.status >= InternalError.status:
        _logger.error("request failed", exc_info=error, extra={"facts": {"request_id": request_id}})
    if isinstance(error, InternalError):
        error = InternalError("the service failed; its log has the details")
    return Response(
        json.encode(problem(error, instance=request_id)),
        status_code=error.status,
        media_type="application/problem+json",
        headers=headers,
    )


async def _on_error(request: Request, error: Exception) -> Response:
    return problem_response(cast(YunmoError, error), request.scope)


async def _on_invalid(request: Request, error: Exception) -> Response:
    first = cast(RequestValidationError, error).errors()[0]
    return problem_response(InvalidInput(_message(first), where=_place(first["loc"])), request.scope)


async def _on_http(request: Request, error: Exception) -> Response:
    error = cast(HTTPException, error)
    cause = error.__cause__ or error.__context__
    if isinstance(cause, YunmoError):  # raised while the body was read
        return problem_response(cause, request.scope)
    method, path = request.method, request.url.path
    known: dict[int, YunmoError] = {
        404: NotFound(f"there is nothing at {path}", remedy="See /docs for what there is"),
        405: MethodNotAllowed(f"{path} does not take {method}"),
        415: UnsupportedMediaType("the content type is not one that this reads"),
    }
    other = InvalidInput(str(error.detail)) if error.status_code < InternalError.status else InternalError("")
    headers = dict(error.headers) if error.headers else None
    return problem_response(known.get(error.status_code, other), request.scope, headers)


def _message(first: dict[str, Any]) -> str:
    kind, text = first["type"], str(first["msg"])
    plain = {"missing": "missing", "json_invalid": "not valid JSON", "unexpected_keyword_argument": "unknown key"}
    return plain.get(kind, text[:1].lower() + text[1:])


def _place(location: Sequence[str | int]) -> str:
    return ", ".join(filter(None, [str(location[0]), ".".join(map(str, location[1:]))]))


class _Outermost:
    """Gives a request its id, bounds its body, and answers what nobody expected."""

    def __init__(self, app: ASGIApp, max_body: int) -> None:
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _REQUEST_ID not in scope:
            given = dict(scope["headers"]).get(_REQUEST_ID_HEADER)
            scope[_REQUEST_ID] = given.decode("latin-1") if given else new_request_id()
        started = False
        received = 0
        limit = None if scope["path"] in _STREAMED else self._max_body

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if limit is not None and received > limit:
                raise BodyTooLarge(f"the body has more than {limit} bytes")
            return message

        try:
            await self._app(scope, receive_bounded, send_and_note)
        except ClientDisconnect:
            return  # nobody is left to answer
        except Exception as error:
            known = error if isinstance(error, YunmoError) else InternalError(type(error).__name__)
            known.__cause__ = error if known is not error else error.__cause__
            response = problem_response(known, scope)
            if started:
                raise  # the server then cuts the connection: half an answer must not pass for a whole one
            await response(scope, receive, send)
