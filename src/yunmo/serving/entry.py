"""The way in of every HTTP request: its id, the gate, the face that answers it, the log and the metrics.

What no face answers is passed on as an ASGI request, to control.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from yunmo.core.errors import InternalError, InvalidInput, TooManyRequests, Unauthenticated, YunmoError
from yunmo.serving.gate import OPEN_PATHS, Gate, challenge
from yunmo.serving.http import (
    PRINCIPAL,
    REQUEST_ID,
    App,
    ClientGone,
    Face,
    Message,
    Request,
    Response,
)
from yunmo.serving.http1.bridge import Bridge
from yunmo.serving.http1.request import Http1Request
from yunmo.serving.log import RequestLog
from yunmo.serving.observer import CLIENT_GONE, OK, OTHER, Activity, Observer, Tracer

REFUSAL_SECONDS = 0.5
"""How long a refusal for want of room is held back: a client that asks again at once, on each of many connections,
would else have the service do nothing but refuse."""

_ERROR = 400

_logger = logging.getLogger("yunmo.entry")


class Entry:
    """Answers requests of the HTTP server.

    Args:
        gate: in front of everything.
        faces: the first that owns a path answers it, and gives errors their shape; the last owns every path.
        otherwise: gets what no face answers.
        observer: is told of every request.
        log: gets a line for every request but probes.
        activity: counts the requests in progress.
        tracer: makes the spans of requests; None: nothing is traced.
    """

    def __init__(
        self,
        gate: Gate,
        faces: Sequence[Face],
        otherwise: App,
        observer: Observer,
        log: RequestLog,
        activity: Activity,
        tracer: Tracer | None = None,
    ) -> None:
        self._gate = gate
        self._faces = faces
        self._otherwise = otherwise
        self._observer = observer
        self._log = log
        self._activity = activity
        self._tracer = tracer

    async def handle(self, request: Http1Request) -> None:
        """Answer one request."""
        began = time.perf_counter()
        face = self._face(request.path)
        response = await self._respond(face, request, began)
        if response is None:
            await self._pass_on(face, request, began)
            return
        try:
            request.send(response)
        finally:
            self._note(face, request, response.status, began)

    def _face(self, path: str) -> Face:
        """Return the face that owns a path."""
        for face in self._faces:
            if face.owns(path):
                return face
        raise LookupError("no face owns the path")

    async def _respond(self, face: Face, request: Request, began: float) -> Response | None:
        """Return the answer to a request; None if it is for no face. If it returns, `_note` has to follow.

        Args:
            face: its face.
            request: what is asked.
            began: as for `_note`.
        """
        self._activity.requests += 1
        if self._tracer is not None:
            request.span = self._tracer.begin(request.header("traceparent"), request.header("tracestate"))
        try:
            self._gate.enter(request)
            handler = face.find(request)
            if handler is None:
                return None
            response = await handler(request)
        except ClientGone:
            response = self._gone(face, request)
        except YunmoError as error:
            response = self._refused(face, request, error)
            if isinstance(error, TooManyRequests):
                await asyncio.sleep(REFUSAL_SECONDS)
        except Exception:
            response = self._failed(face, request)
        except BaseException:  # cancelled: the server ends
            request.facts["client_gone"] = True
            self._note(face, request, 0, began)
            raise
        return response

    def _note(self, face: Face, request: Request, status: int, began: float) -> None:
        """Tell log and metrics how a request ended.

        Args:
            face: its face.
            request: what was asked.
            status: that it was answered with; 0: with nothing.
            began: `time.perf_counter` when its head had arrived.
        """
        seconds = time.perf_counter() - began
        facts = request.facts
        facts["status"] = status
        facts["ms"] = round(seconds * 1000, 2)
        self._activity.requests -= 1
        if request.path not in OPEN_PATHS:  # probes come every few seconds and say nothing
            self._log.write(facts)
        # Of an error of control's only the status is known here.
        code = CLIENT_GONE if "client_gone" in facts else facts.get("error", OK if status < _ERROR else OTHER)
        call = request.call
        if call is not None and call.meter is not None:
            call.meter.request(face.name, code, seconds)
        elif request.path not in OPEN_PATHS:
            project = request.principal.project_id if hasattr(request, "principal") else ""
            endpoint = facts.get("endpoint", "")
            self._observer.request(project, endpoint, face.name if endpoint else "management", code, seconds)
        if request.span is not None:
            request.span.end(facts, face.name, code)

    def refused(self, error: YunmoError, request_id: str) -> None:
        """Tell log and metrics of what the server refused because it was no request.

        Args:
            error: that it was answered with.
            request_id: likewise.
        """
        self._log.write({"request_id": request_id, "status": error.status, "error": error.code})
        self._observer.request("", "", "management", error.code, 0.0)

    def _gone(self, face: Face, request: Request) -> Response:
        request.facts["client_gone"] = True
        # Nearly always to nobody; a client that closed only its sending side is told.
        return face.refuse(InvalidInput("the connection was closed before the answer"), request)

    def _refused(self, face: Face, request: Request, error: YunmoError) -> Response:
        request.facts["error"] = error.code
        response = face.refuse(error, request)
        if isinstance(error, Unauthenticated):
            return _with_headers(response, challenge(request))
        return response

    def _failed(self, face: Face, request: Request) -> Response:
        _logger.exception("request failed", extra={"facts": {"request_id": request.id}})
        request.facts["error"] = InternalError.code
        return face.refuse(InternalError("the service failed; its log has the details"), request)

    async def _pass_on(self, face: Face, request: Http1Request, began: float) -> None:
        """Have control answer, streaming both ways; errors get the shape of the request's face."""
        status = 0
        bridge = Bridge(request)

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await bridge.send(message)

        scope = bridge.scope
        scope[REQUEST_ID] = request.id
        if hasattr(request, "principal"):
            scope[PRINCIPAL] = request.principal
        scope["headers"] = [pair for pair in scope["headers"] if not _private(pair[0])]
        response: Response | None = None
        try:
            await self._otherwise(scope, bridge.receive, send)
        except ClientGone:
            response = self._gone(face, request)
        except YunmoError as error:
            response = self._refused(face, request, error)
            if status:
                raise  # the server then cuts the connection, so that half an answer cannot pass for a whole one
        except Exception as error:
            if not (status and isinstance(error, ConnectionError)):  # a stream that was cut is no defect
                response = self._failed(face, request)
            if status:
                raise
        finally:
            try:
                if response is not None and not status:
                    status = response.status
                    request.send(response)
            finally:
                self._note(face, request, status, began)


def _private(name: bytes) -> bool:
    """Say whether a header must go no further: our own names are ours to set, and nothing behind needs the key."""
    return name.startswith(b"x-yunmo-") or name == b"authorization"


def _with_headers(response: Response, headers: Any) -> Response:
    return Response(response.status, response.body, response.content_type, (*response.headers, *headers))
