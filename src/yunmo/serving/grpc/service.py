"""The methods of the Open Inference Protocol over gRPC: messages in, the data plane, messages out.

Source: github.com/kserve/open-inference-protocol, open_inference_grpc.proto; as a specification of our own in
`yunmo.protocol`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import msgspec
from google.protobuf.message import DecodeError

from yunmo.core.access import Principal
from yunmo.core.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    MethodNotAllowed,
    TooManyRequests,
    YunmoError,
)
from yunmo.core.ids import new_request_id
from yunmo.protocol import oip_pb2 as pb
from yunmo.serving.dataplane import Call, DataPlane
from yunmo.serving.entry import REFUSAL_SECONDS
from yunmo.serving.gate import Keyring, bearer
from yunmo.serving.grpc.messages import convert, read_outputs, read_tensors, read_timeout, write_answer
from yunmo.serving.grpc.status import status_of
from yunmo.serving.http import RETRY_AFTER
from yunmo.serving.log import RequestLog
from yunmo.serving.observer import CLIENT_GONE, OK, Observer, Span, Tracer
from yunmo.serving.oip.metadata import (
    model_metadata,
    model_ready,
    read_version,
    repository_index,
    server_metadata,
    server_ready,
)
from yunmo.serving.oip.signature import named_columns, row_count

SERVICE = "inference.GRPCInferenceService"
_PREFIX = f"/{SERVICE}/"
LONGEST_NAME = 64
"""Characters of an endpoint's name that the log keeps; none has more."""

_logger = logging.getLogger("yunmo.grpc")

Metadata = tuple[tuple[str, str | bytes], ...]
if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[bytes, bytes]


class Rpc:
    """One call, from its first byte to its end."""

    __slots__ = ("began", "call", "context", "facts", "metadata", "method", "principal", "span")

    def __init__(self, method: str, metadata: Metadata) -> None:
        self.began = time.perf_counter()
        self.method = method
        self.metadata = metadata
        self.facts: dict[str, Any] = {"request_id": new_request_id(), "method": "GRPC", "path": method[:200]}
        self.principal: Principal
        self.context: Context
        self.call: Call | None = None
        self.span: Span | None = None

    def values(self, name: str) -> list[str]:
        """Return what the metadata has under a name; binary values are none."""
        return [value for key, value in self.metadata if key == name and isinstance(value, str)]


Method = Callable[[Rpc, bytes], Awaitable[bytes]]


class Service(grpc.GenericRpcHandler):
    """Finds the method of each call, after its key was checked.

    Args:
        dataplane: answers inference.
        keyring: knows the keys.
        observer: is told of every call.
        log: gets a line for every call.
        tracer: makes the spans of calls; None: nothing is traced.
    """

    def __init__(
        self,
        dataplane: DataPlane,
        keyring: Keyring,
        observer: Observer,
        log: RequestLog,
        tracer: Tracer | None = None,
    ) -> None:
        self._dataplane = dataplane
        self._keyring = keyring
        self._observer = observer
        self._log = log
        self._tracer = tracer
        self._methods: dict[str, Method] = {
            _PREFIX + "ModelInfer": self._infer,
            _PREFIX + "ServerLive": self._live,
            _PREFIX + "ServerReady": self._ready,
            _PREFIX + "ModelReady": self._model_ready,
            _PREFIX + "ServerMetadata": self._server,
            _PREFIX + "ModelMetadata": self._metadata,
            _PREFIX + "RepositoryIndex": self._index,
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Return what answers a call; who has no valid key is refused before a message is read, on any method."""
        rpc = Rpc(handler_call_details.method, handler_call_details.invocation_metadata)
        try:
            rpc.principal = self._keyring.admit(bearer(rpc.values("authorization")))
            rpc.facts["key_id"] = rpc.principal.key_id
            method = self._methods.get(rpc.method)
            if method is None:
                raise MethodNotAllowed(
                    "there is no such method", remedy=f"Yunmo has those of {SERVICE} that the protocol describes"
                )
        except YunmoError as error:
            # A method that takes a stream: the server hands it over before it has read a message.
            return grpc.stream_unary_rpc_method_handler(functools.partial(self._refuse, rpc, error))
        return grpc.unary_unary_rpc_method_handler(functools.partial(self._answer, rpc, method))

    async def _refuse(self, rpc: Rpc, error: YunmoError, _messages: Any, context: Context) -> bytes:
        rpc.context = context
        self._dataplane.activity.requests += 1
        self._note(rpc, error.code)
        return await _abort(rpc, error)

    async def _answer(self, rpc: Rpc, method: Method, message: bytes, context: Context) -> bytes:
        rpc.context = context
        self._dataplane.activity.requests += 1
        if self._tracer is not None:
            parent, state = (rpc.values(name) for name in ("traceparent", "tracestate"))
            rpc.span = self._tracer.begin(*(values[0] if values else None for values in (parent, state)))
        code = OK
        try:
            return await method(rpc, message)
        except asyncio.CancelledError:
            left = context.time_remaining()
            code = CLIENT_GONE if left is None or left > 0 else DeadlineExceeded.code
            raise
        except YunmoError as error:
            failure = error
            code = error.code
            if isinstance(error, TooManyRequests):
                await asyncio.sleep(REFUSAL_SECONDS)
        except DecodeError:
            failure = InvalidInput("not a message of this method")
            code = failure.code
        except Exception:
            _logger.exception("a call failed", extra={"facts": {"request_id": rpc.facts["request_id"]}})
            failure = InternalError("the service failed; its log has the details")
            code = failure.code
        finally:
            self._note(rpc, code)
        return await _abort(rpc, failure)

    def _note(self, rpc: Rpc, code: str) -> None:
        """Tell log, metrics and trace how a call ended."""
        seconds = time.perf_counter() - rpc.began
        self._dataplane.activity.requests -= 1
        facts, call = rpc.facts, rpc.call
        facts["ms"] = round(seconds * 1000, 2)
        if code == CLIENT_GONE:
            facts["client_gone"] = True
        elif code != OK:
            facts["error"] = code
        self._log.write(facts)
        if call is not None and call.meter is not None:
            call.meter.request("grpc", code, seconds)
        else:
            project = rpc.principal.project_id if hasattr(rpc, "principal") else ""
            self._observer.request(project, facts.get("endpoint", ""), "grpc", code, seconds)
        if rpc.span is not None:
            rpc.span.end(facts, "grpc", code)

    async def _infer(self, rpc: Rpc, message: bytes) -> bytes:
        request = pb.ModelInferRequest.FromString(message)
        rpc.facts["endpoint"] = request.model_name[:LONGEST_NAME]
        self._dataplane.route(request.model_name, rpc.principal)
        tensors, outputs = read_tensors(request), read_outputs(request)
        rpc.facts["rows"] = rows = row_count(tensors)
        limits = [each for each in (rpc.context.time_remaining(), read_timeout(request)) if each is not None]
        sticky = rpc.values("yunmo-sticky")
        call = rpc.call = Call(
            request.model_name,
            rpc.principal,
            version=read_version(request.model_version),
            timeout=min(limits, default=None),
            sticky=sticky[0] if sticky else None,
            size=len(message),
            span=rpc.span,
        )
        columns = functools.partial(named_columns, tensors, outputs)
        inferred = await self._dataplane.infer(call, columns, rows)
        rpc.facts["model"] = f"{inferred.model}:{inferred.version}"
        return write_answer(request, outputs, inferred)

    async def _live(self, rpc: Rpc, message: bytes) -> bytes:  # noqa: ARG002 (all methods are alike)
        pb.ServerLiveRequest.FromString(message)
        return pb.ServerLiveResponse(live=True).SerializeToString()

    async def _ready(self, rpc: Rpc, message: bytes) -> bytes:
        pb.ServerReadyRequest.FromString(message)
        return pb.ServerReadyResponse(ready=server_ready(self._dataplane, rpc.principal)).SerializeToString()

    async def _model_ready(self, rpc: Rpc, message: bytes) -> bytes:
        request = pb.ModelReadyRequest.FromString(message)
        rpc.facts["endpoint"] = request.name[:LONGEST_NAME]
        version = read_version(request.version)
        ready = model_ready(self._dataplane, request.name, version, rpc.principal)
        return pb.ModelReadyResponse(ready=ready).SerializeToString()

    async def _server(self, rpc: Rpc, message: bytes) -> bytes:  # noqa: ARG002 (all methods are alike)
        pb.ServerMetadataRequest.FromString(message)
        return convert(server_metadata(), pb.ServerMetadataResponse)

    async def _metadata(self, rpc: Rpc, message: bytes) -> bytes:
        request = pb.ModelMetadataRequest.FromString(message)
        rpc.facts["endpoint"] = request.name[:LONGEST_NAME]
        route = self._dataplane.route(request.name, rpc.principal, read=True)
        return convert(model_metadata(route, read_version(request.version)), pb.ModelMetadataResponse)

    async def _index(self, rpc: Rpc, message: bytes) -> bytes:
        request = pb.RepositoryIndexRequest.FromString(message)
        models = repository_index(self._dataplane, rpc.principal, ready=request.ready)
        return pb.RepositoryIndexResponse(models=msgspec.to_builtins(models)).SerializeToString()


async def _abort(rpc: Rpc, error: YunmoError) -> bytes:
    trailing = [("x-request-id", rpc.facts["request_id"])]
    if error.status in RETRY_AFTER:
        trailing.append(("retry-after", RETRY_AFTER[error.status]))
    await rpc.context.abort(status_of(error), str(error), tuple(trailing))
    raise AssertionError("abort raises")
