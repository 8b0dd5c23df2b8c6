"""The native API's hot paths: health, ``predict`` and ``schema``."""

from __future__ import annotations

import re

from yunmo.core.errors import InvalidInput, YunmoError
from yunmo.serving.dataplane import Call, DataPlane
from yunmo.serving.http import Attended, Handler, Request, Response, allow, json_response, problem_response
from yunmo.serving.native.bodies import accepted, check_type, read_rows
from yunmo.serving.observer import Face

_ENDPOINT = re.compile(r"/api/v1/endpoints/(?P<endpoint>[^/]{1,64})/(?P<verb>predict|schema)", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?", re.ASCII)


class NativeFace:
    """Health, ``predict`` and ``schema``; errors of all paths that are no other face's.

    Args:
        dataplane: answers predictions.
        max_body: bytes that a prediction request may have.
    """

    def __init__(self, dataplane: DataPlane, *, max_body: int) -> None:
        self.name: Face = "native"
        self._dataplane = dataplane
        self._max_body = max_body

    def owns(self, path: str) -> bool:  # noqa: ARG002 (the protocol's)
        """Every path: this is the last face to be asked."""
        return True

    def find(self, request: Request) -> Handler | None:
        """Return what answers a request, None if it is for control."""
        match = _ENDPOINT.fullmatch(request.path)
        if match is not None:
            request.facts["endpoint"] = match["endpoint"]
            if match["verb"] == "predict":
                return allow(self, request, ("POST",), self._predict)
            return allow(self, request, ("GET", "HEAD"), self._schema)
        if request.path == "/healthz":
            return allow(self, request, ("GET", "HEAD"), self._health)
        if request.path == "/readyz":
            return allow(self, request, ("GET", "HEAD"), self._ready)
        return None

    def refuse(self, error: YunmoError, request: Request) -> Response:
        """Return an error as an RFC 9457 problem document."""
        return problem_response(error, request.id)

    async def _health(self, request: Request) -> Response:  # noqa: ARG002 (all handlers are alike)
        return json_response({"status": "ok"})

    async def _ready(self, request: Request) -> Response:  # noqa: ARG002 (all handlers are alike)
        deployments = self._dataplane.deployments
        ready = deployments.applied >= 0
        loaded, refused = deployments.counts
        answer = {"status": "ready" if ready else "starting", "endpoints": loaded, "refused": refused}
        return json_response(answer, status=200 if ready else 503)

    async def _predict(self, request: Request) -> Response:
        endpoint = request.facts["endpoint"]
        model = self._dataplane.route(endpoint, request.principal).live.predictor
        content_type = request.header("content-type")
        check_type(content_type, request.header("content-encoding"), model)
        timeout = read_timeout(request.header("yunmo-timeout"))
        body = await request.body(limit=self._max_body)
        rows = read_rows(body, content_type, model)
        request.facts["rows"] = len(rows)
        call = request.call = Call(
            endpoint,
            request.principal,
            timeout=timeout,
            sticky=request.header("yunmo-sticky"),
            size=len(body),
            span=request.span,
        )
        with Attended(request):
            answer = await self._dataplane.predict(call, rows)
        request.facts["model"] = f"{answer.model}:{answer.version}"
        return json_response(
            {
                "endpoint": answer.endpoint,
                "model": answer.model,
                "version": answer.version,
                "request_id": request.id,
                "predictions": answer.predictions,
            }
        )

    async def _schema(self, request: Request) -> Response:
        endpoint = request.facts["endpoint"]
        live = self._dataplane.route(endpoint, request.principal, read=True).live
        return json_response(
            {
                "endpoint": endpoint,
                "model": live.variant.model,
                "version": live.variant.version,
                "accepts": accepted(live.predictor),
                "input": live.predictor.input_schema,
                "output": live.predictor.output_schema,
            }
        )


def read_timeout(text: str | None) -> float | None:
    """Return the seconds that a caller gives its request.

    Raises:
        InvalidInput: it is no positive number of seconds.
    """
    if text is None:
        return None
    if not _SECONDS.fullmatch(text) or not float(text):
        raise InvalidInput(
            "not a number of seconds", where="header yunmo-timeout", remedy="Give seconds, such as 0.5 or 30"
        )
    return float(text)
