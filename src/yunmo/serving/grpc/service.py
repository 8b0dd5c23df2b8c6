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
from typing import Any

import msgspec
from google.protobuf.message import DecodeError

from yunmo.core.access import Principal
from yunmo.core.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    Malformed,
    MethodNotAllowed,
    SlowBody,
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
from yunmo.serving.grpc.wire import ANSWER, GOOD, NO_GRPC, PREFIX, failure, message_of, message_too_large, timeout_of
from yunmo.serving.http import RETRY_AFTER
from yunmo.serving.http2.stream import Exchange, Stream
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
CALLS = 8192
"""Calls that this process has open at a time."""
DEADLINE_SLACK = 0.05
"""Seconds: a client gives up at its deadline, and its clock began to run before the call came here."""
LONGEST_NAME = 64
"""Characters of an endpoint's name that the log keeps; none has more."""

_logger = logging.getLogger("yunmo.grpc")


class Rpc(Exchange):
    """One call, from its first byte to its end.

    Args:
        service: answers it.
        stream: that it came on.
    """

    __slots__ = ("began", "call", "deadline", "facts", "method", "principal", "service", "span", "stream", "task")

    principal: Principal

    def __init__(self, service: Service, stream: Stream) -> None:
        self.began = time.perf_counter()
        self.service = service
        self.stream = stream
        self.facts: dict[str, Any] = {
            "request_id": new_request_id(),
            "method": "GRPC",
            "path": stream.head.path[:200],
        }
        self.method: Method | None = None
        self.deadline: float | None = None
        """On the clock of `time.perf_counter`."""
        self.call: Call | None = None
        self.span: Span | None = None
        self.task: asyncio.Task[None] | None = None

    def time_remaining(self) -> float | None:
        """Return the seconds until the client's deadline; None: it has none."""
        return None if self.deadline is None else self.deadline - time.perf_counter()

    def received(self, body: bytes) -> None:
        """See `Exchange.received`."""
        self.service.answer(self, body)

    def too_large(self) -> None:
        """See `Exchange.too_large`."""
        self.service.refuse(self, message_too_large(self.service.max_message))

    def slow(self) -> None:
        """See `Exchange.slow`."""
        self.service.refuse(self, SlowBody("the message was not complete in time"))

    def gone(self) -> None:
        """See `Exchange.gone`."""
        if self.task is not None:
            self.task.cancel()
        else:
            self.service.left(self)


Method = Callable[[Rpc, bytes], Awaitable[bytes]]


class Service:
    """Finds the method of each call, after its key was checked, and answers it.

    Args:
        dataplane: answers inference.
        keyring: knows the keys.
        observer: is told of every call.
        log: gets a line for every call.
        max_message: bytes that a message may have.
        tracer: makes the spans of calls; None: nothing is traced.
    """

    def __init__(
        self,
        dataplane: DataPlane,
        keyring: Keyring,
        observer: Observer,
        log: RequestLog,
        *,
        max_message: int,
        tracer: Tracer | None = None,
    ) -> None:
        self._dataplane = dataplane
        self._keyring = keyring
        self._observer = observer
        self._log = log
        self.max_message = max_message
        """Bytes that a message may have."""
        self._tracer = tracer
        self._open = 0
        self._methods: dict[str, Method] = {
            _PREFIX + "ModelInfer": self._infer,
            _PREFIX + "ServerLive": self._live,
            _PREFIX + "ServerReady": self._ready,
            _PREFIX + "ModelReady": self._model_ready,
            _PREFIX + "ServerMetadata": self._server,
            _PREFIX + "ModelMetadata": self._metadata,
            _PREFIX + "RepositoryIndex": self._index,
        }

    def begin(self, stream: Stream) -> None:
        """Take a new call; who has no valid key is refused before a message is read, on any method."""
        rpc = stream.exchange = Rpc(self, stream)
        stream.limit = self.max_message + PREFIX.size
        self._dataplane.activity.requests += 1
        self._open += 1
        head = stream.head
        try:
            rpc.principal = self._keyring.admit(bearer(head.values("authorization")))
            rpc.facts["key_id"] = rpc.principal.key_id
            if head.method != "POST" or not (head.value("content-type") or "").startswith("application/grpc"):
                self._note(rpc, Malformed.code)
                stream.answer(NO_GRPC)
                return
            rpc.method = self._methods.get(head.path)
            if rpc.method is None:
                raise MethodNotAllowed(
                    "there is no such method", remedy=f"Yunmo has those of {SERVICE} that the protocol describes"
                )
            timeout = timeout_of(head.value("grpc-timeout"))
            if timeout is not None:
                rpc.deadline = rpc.began + timeout
            if self._open > CALLS:
                raise TooManyRequests("too many calls at a time", remedy="Try again in a moment")
        except YunmoError as error:
            self.refuse(rpc, error)

    def answer(self, rpc: Rpc, body: bytes) -> None:
        """Answer a call whose message is complete."""
        self._dataplane.activity.arrived += 1
        rpc.task = asyncio.get_running_loop().create_task(self._answer(rpc, body))

    def refuse(self, rpc: Rpc, error: YunmoError) -> None:
        """Answer a call with an error."""
        self._note(rpc, error.code)
        rpc.stream.answer(_failure(rpc, error))

    def left(self, rpc: Rpc) -> None:
        """Take note of a call that its client gave up before its message was complete."""
        self._note(rpc, CLIENT_GONE)

    async def _answer(self, rpc: Rpc, body: bytes) -> None:
        self._dataplane.activity.arrived -= 1
        head = rpc.stream.head
        if self._tracer is not None:
            parent, state = (head.value(name) for name in ("traceparent", "tracestate"))
            rpc.span = self._tracer.begin(parent, state)
        assert rpc.method is not None  # noqa: S101 (for mypy: `begin` refused the call otherwise)
        code = OK
        try:
            message = message_of(body, head.value("grpc-encoding"), self.max_message)
            reply = await rpc.method(rpc, message)
        except asyncio.CancelledError:
            left = rpc.time_remaining()
            code = CLIENT_GONE if left is None or left > DEADLINE_SLACK else DeadlineExceeded.code
            raise
        except YunmoError as error:
            failed: YunmoError = error
            code = error.code
            if isinstance(error, TooManyRequests):
                await asyncio.sleep(REFUSAL_SECONDS)
        except DecodeError:
            failed = InvalidInput("not a message of this method")
            code = failed.code
        except Exception:
            _logger.exception("a call failed", extra={"facts": {"request_id": rpc.facts["request_id"]}})
            failed = InternalError("the service failed; its log has the details")
            code = failed.code
        finally:
            self._note(rpc, code)
        if code == OK:
            rpc.stream.answer(ANSWER, PREFIX.pack(0, len(reply)) + reply, GOOD)
        else:
            rpc.stream.answer(_failure(rpc, failed))

    def _note(self, rpc: Rpc, code: str) -> None:
        """Tell log, metrics and trace how a call ended."""
        seconds = time.perf_counter() - rpc.began
        self._dataplane.activity.requests -= 1
        self._open -= 1
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
        limits = [each for each in (rpc.time_remaining(), read_timeout(request)) if each is not None]
        sticky = rpc.stream.head.value("yunmo-sticky")
        call = rpc.call = Call(
            request.model_name,
            rpc.principal,
            version=read_version(request.model_version),
            timeout=min(limits, default=None),
            sticky=sticky,
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


def _failure(rpc: Rpc, error: YunmoError) -> bytes:
    """Return the answer to a call that failed."""
    metadata = [("x-request-id", rpc.facts["request_id"])]
    if error.status in RETRY_AFTER:
        metadata.append(("retry-after", RETRY_AFTER[error.status]))
    return failure(status_of(error), str(error), tuple(metadata))
