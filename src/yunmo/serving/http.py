"""HTTP as the gate and the faces see it: a request and a response of no server in particular.

`yunmo.serving.http1` is the server.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from yunmo.core.access import Principal
from yunmo.core.errors import (
    BodyTooLarge,
    InvalidInput,
    MethodNotAllowed,
    SlowBody,
    UnsupportedMediaType,
    YunmoError,
    problem,
)
from yunmo.serving import observer

if TYPE_CHECKING:
    from yunmo.serving.dataplane import Call

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PRINCIPAL = "yunmo.principal"
"""Key of the ASGI scope under which the entry leaves the `Principal` for control."""
REQUEST_ID = "yunmo.request_id"
"""Key of the ASGI scope under which the entry leaves the request's id."""

BODY_TIMEOUT = 30.0
"""Seconds a client may take to send a whole body of a prediction request."""
WATCH_AFTER = 0.05
"""Seconds that a request goes on for a client that has gone, from when it began to be answered."""
RETRY_AFTER = {429: "1", 503: "2"}
"""Seconds after which a refused client may try again, by status."""
_MAX_DIGITS = 20
JSON = "application/json"
PROBLEM = "application/problem+json"

Headers = tuple[tuple[str, str], ...]


class ClientGone(Exception):
    """The client closed its connection before its request was complete or answered: there is nobody to answer."""


class Response(msgspec.Struct, frozen=True):
    """A whole answer. Content-Length is the server's."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Headers = ()


class Request(ABC):
    """A request whose head has arrived.

    Args:
        method: in upper case.
        path: decoded, without the query.
        query: the text after ``?``.
        request_id: made by this process.
    """

    __slots__ = ("call", "facts", "id", "method", "path", "principal", "query", "span")

    principal: Principal
    """Who asks; the gate sets it, except for the open paths."""

    def __init__(self, method: str, path: str, query: str, request_id: str) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.id = request_id
        self.facts: dict[str, Any] = {"request_id": request_id, "method": method, "path": path[:200]}
        """What the request log should say: handlers add to it."""
        self.call: Call | None = None
        """The request to an endpoint that it is, once that is known."""
        self.span: observer.Span | None = None
        """Its span, if it is traced."""

    @abstractmethod
    def header(self, name: str) -> str | None:
        """Return the first header of a name (lower case), None if there is none."""

    @abstractmethod
    def header_values(self, name: str) -> list[str]:
        """Return every value that a header (lower case) was sent with."""

    @abstractmethod
    async def receive(self) -> tuple[bytes, bool]:
        """Return the next part of the body and whether more follows.

        Raises:
            ClientGone: the client left.
        """

    @abstractmethod
    def on_left(self, call: Callable[[], None] | None) -> None:
        """Have something called when the client closes its connection, at once if it has; None: nothing any more."""

    @abstractmethod
    async def body(self, *, limit: int, timeout: float = BODY_TIMEOUT) -> bytes:
        """Return the whole body.

        Args:
            limit: most bytes allowed; held against Content-Length before a byte is read, then against what arrives.
            timeout: seconds for the whole of it.

        Raises:
            BodyTooLarge: more than ``limit`` bytes.
            InvalidInput: a Content-Length that is no number.
            SlowBody: not complete in time.
            ClientGone: the client left.
        """


Handler = Callable[[Request], Awaitable[Response]]


class Face(Protocol):
    """One protocol over HTTP."""

    name: observer.Face
    """For logs and metrics."""

    def owns(self, path: str) -> bool:
        """Say whether errors of this path, known or not, have this protocol's shape."""

    def find(self, request: Request) -> Handler | None:
        """Return what answers a request, None if it is none of this face's.

        Raises:
            YunmoError: it is, but not with this method or not at this path.
        """

    def refuse(self, error: YunmoError, request: Request) -> Response:
        """Return an error in this protocol's shape."""


def allow(face: Face, request: Request, methods: tuple[str, ...], handler: Handler) -> Handler:
    """Return the handler if the request's method is one of its own, else one that says which they are."""
    if request.method in methods:
        return handler
    allowed = (("allow", ", ".join((*methods, "OPTIONS"))),)

    async def refuse(request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(204, headers=allowed)
        request.facts["error"] = MethodNotAllowed.code
        response = face.refuse(MethodNotAllowed(f"{request.method} is not possible here"), request)
        return msgspec.structs.replace(response, headers=(*response.headers, *allowed))

    return refuse


class Attended:
    """A block that is cancelled when the client leaves before its end; the block then raises `ClientGone`.

    Who leaves at once is noticed `WATCH_AFTER` seconds late: most answers are there by then, and a client that closed
    only its sending side gets them.
    """

    __slots__ = ("_began", "_gone", "_loop", "_request", "_task", "_timer")

    def __init__(self, request: Request) -> None:
        self._request = request
        self._timer: asyncio.TimerHandle | None = None
        self._gone = False

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._request.on_left(self._leave)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._request.on_left(None)
        if self._timer is not None:
            self._timer.cancel()
        if self._gone and self._task is not None:
            self._task.uncancel()
            if kind is None or issubclass(kind, asyncio.CancelledError):
                raise ClientGone

    def _leave(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_at(self._began + WATCH_AFTER, self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._gone = True
            self._task.cancel()


def declared_length(request: Request) -> int | None:
    """Return what a request says that its body has, in bytes; None if it says nothing.

    Raises:
        InvalidInput: it is no number.
    """
    declared = request.header("content-length")
    if declared is None:
        return None
    if not (declared.isascii() and declared.isdigit() and len(declared) < _MAX_DIGITS):
        raise InvalidInput("Content-Length is not a number", where="header content-length")
    return int(declared)


def check_encoding(encoding: str | None) -> None:
    """Refuse a compressed body, before it is read.

    Args:
        encoding: the request's Content-Encoding.

    Raises:
        UnsupportedMediaType: it is compressed.
    """
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType("compressed bodies are not read", where="header content-encoding")


def too_large(limit: int) -> BodyTooLarge:
    """Make the error for a body over its limit."""
    return BodyTooLarge(f"the body has more than {limit} bytes", remedy="Send less, or raise the setting max_body")


def json_response(value: object, *, status: int = 200, headers: Headers = ()) -> Response:
    """Return a value as JSON."""
    return Response(status, msgspec.json.encode(value), JSON, headers)


def error_headers(error: YunmoError) -> Headers:
    """Return what HTTP says of an error besides its status: when to try again, and whether the connection is over."""
    headers: Headers = ()
    if error.status in RETRY_AFTER:
        headers = (("retry-after", RETRY_AFTER[error.status]),)
    if isinstance(error, (BodyTooLarge, SlowBody)):
        # The rest of the body is not read, so the connection cannot be used again.
        headers = (*headers, ("connection", "close"))
    return headers


def problem_response(error: YunmoError, request_id: str | None) -> Response:
    """Return an error as an RFC 9457 problem document."""
    body = msgspec.json.encode(problem(error, instance=request_id))
    return Response(error.status, body, PROBLEM, error_headers(error))
