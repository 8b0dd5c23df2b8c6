"""The Open Inference Protocol over HTTP: JSON and binary tensors in, the data plane, the same out.

Source: github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md, and Triton's extensions for
binary tensors and the repository index; as a specification of our own in `yunmo.protocol`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from yunmo.core.errors import InvalidInput, NotFound, UnsupportedMediaType, YunmoError
from yunmo.protocol import oip_types
from yunmo.protocol.tensors import to_json, to_raw
from yunmo.serving.dataplane import Call, DataPlane, Inferred
from yunmo.serving.http import (
    Attended,
    Handler,
    Request,
    Response,
    allow,
    check_encoding,
    error_headers,
    json_response,
)
from yunmo.serving.observer import Face
from yunmo.serving.oip.body import InferRequest, header_length, read_request
from yunmo.serving.oip.metadata import (
    model_metadata,
    model_ready,
    read_version,
    repository_index,
    server_metadata,
    server_ready,
)
from yunmo.serving.oip.signature import Columns, answer, named_columns, row_count, signature, single_column

if TYPE_CHECKING:
    from yunmo.inference.predictor import Predictor

_MODEL = re.compile(
    r"/v2/models/(?P<model>[^/]{1,64})(/versions/(?P<version>[^/]{1,64}))?(/(?P<verb>ready|infer))?", re.ASCII
)
_HEADER_LENGTH = "inference-header-content-length"
_BINARY = "application/octet-stream"
_READING = ("GET", "HEAD")

_encoder = msgspec.json.Encoder()


class OipFace:
    """Everything below ``/v2``.

    Args:
        dataplane: answers inference.
        max_body: bytes that a request may have.
    """

    def __init__(self, dataplane: DataPlane, *, max_body: int) -> None:
        self.name: Face = "oip"
        self._dataplane = dataplane
        self._max_body = max_body
        self._plain: dict[str, tuple[tuple[str, ...], Handler]] = {
            "/v2": (_READING, self._server),
            "/v2/": (_READING, self._server),
            "/v2/health/live": (_READING, self._live),
            "/v2/health/ready": (_READING, self._ready),
            "/v2/repository/index": (("POST",), self._index),
        }

    def owns(self, path: str) -> bool:
        """Everything below ``/v2``."""
        return path.startswith("/v2/") or path == "/v2"

    def find(self, request: Request) -> Handler | None:
        """Return what answers a request.

        Raises:
            NotFound: the protocol has no such path.
        """
        match = _MODEL.fullmatch(request.path)
        if match is not None:
            request.facts["endpoint"] = match["model"]
            if match["version"] is not None:
                request.facts["version"] = match["version"]
            if match["verb"] == "infer":
                return allow(self, request, ("POST",), self._infer)
            return allow(self, request, _READING, self._model_ready if match["verb"] else self._metadata)
        known = self._plain.get(request.path)
        if known is None:
            raise NotFound("the Open Inference Protocol has no such path", remedy="See docs/open-inference-protocol.md")
        return allow(self, request, *known)

    def refuse(self, error: YunmoError, request: Request) -> Response:  # noqa: ARG002 (all faces are alike)
        """Return an error in the protocol's shape; what does not fit is 400, as the specification has it."""
        status = 400 if error.status == InvalidInput.status else error.status
        return json_response(oip_types.ErrorResponse(str(error)), status=status, headers=error_headers(error))

    async def _server(self, request: Request) -> Response:  # noqa: ARG002 (all handlers are alike)
        return json_response(server_metadata())

    async def _live(self, request: Request) -> Response:  # noqa: ARG002 (all handlers are alike)
        return json_response(oip_types.ServerLive(live=True))

    async def _ready(self, request: Request) -> Response:
        ready = server_ready(self._dataplane, request.principal)
        return json_response(oip_types.ServerReady(ready), status=200 if ready else 503)

    async def _metadata(self, request: Request) -> Response:
        route = self._dataplane.route(request.facts["endpoint"], request.principal, read=True)
        return json_response(model_metadata(route, read_version(request.facts.get("version"))))

    async def _model_ready(self, request: Request) -> Response:
        name, version = request.facts["endpoint"], read_version(request.facts.get("version"))
        ready = model_ready(self._dataplane, name, version, request.principal)
        return json_response(oip_types.ModelReady(name, ready), status=200 if ready else 503)

    async def _index(self, request: Request) -> Response:
        body = await request.body(limit=self._max_body)
        try:
            asked = msgspec.json.decode(body or b"{}", type=oip_types.RepositoryIndexRequest)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise InvalidInput('not a request for the index, such as {"ready": true}', where="request body") from None
        return json_response(repository_index(self._dataplane, request.principal, ready=asked.ready is True))

    async def _infer(self, request: Request) -> Response:
        name, version = request.facts["endpoint"], read_version(request.facts.get("version"))
        self._dataplane.route(name, request.principal)  # who may not know the endpoint learns nothing of its body
        _check_type(request)
        body = await request.body(limit=self._max_body)
        length = header_length(request.header(_HEADER_LENGTH), len(body))
        call = request.call = Call(
            name,
            request.principal,
            version=version,
            sticky=request.header("yunmo-sticky"),
            size=len(body),
            span=request.span,
        )
        columns: Callable[[Predictor], Columns]
        if body and not length:
            asked, rows = InferRequest([], {}), 1
            columns = functools.partial(single_column, memoryview(body))
        else:
            asked = read_request(body, length)
            rows = row_count(asked.tensors)
            call.timeout = asked.timeout
            columns = functools.partial(named_columns, asked.tensors, list(asked.outputs))
        request.facts["rows"] = rows
        with Attended(request):
            inferred = await self._dataplane.infer(call, columns, rows)
        request.facts["model"] = f"{inferred.model}:{inferred.version}"
        return _answer(name, asked, inferred)


def _check_type(request: Request) -> None:
    """Refuse a body by its headers, before it is read; one without a type is taken for what it should be."""
    check_encoding(request.header("content-encoding"))
    kind = (request.header("content-type") or _BINARY).partition(";")[0].strip().lower()
    if kind not in ("application/json", _BINARY):
        raise UnsupportedMediaType(
            f"{kind[:80]!r} is not read here",
            where="header content-type",
            remedy=f"Send application/json, or {_BINARY} where binary tensors follow the JSON document",
        )


def _answer(name: str, asked: InferRequest, inferred: Inferred) -> Response:
    outputs: list[oip_types.ResponseOutput] = []
    parts: list[bytes] = [b""]
    for output in signature(inferred.predictor).choose(list(asked.outputs)):
        tensor = answer(output, inferred.tensors)
        described = oip_types.ResponseOutput(tensor.name, list(tensor.array.shape), tensor.datatype)
        wanted = asked.outputs.get(tensor.name)
        if asked.binary if wanted is None else wanted:
            data = to_raw(tensor.datatype, tensor.array)
            described.parameters = oip_types.ResponseParameters(len(data))
            parts.append(data)
        else:
            described.data = to_json(tensor.datatype, tensor.array)
        outputs.append(described)
    document = oip_types.InferenceResponse(name, str(inferred.version), outputs)
    if asked.id is not None:
        document.id = asked.id
    text = _encoder.encode(document)
    if len(parts) == 1:
        return Response(200, text)
    parts[0] = text
    return Response(200, b"".join(parts), _BINARY, ((_HEADER_LENGTH, str(len(text))),))
