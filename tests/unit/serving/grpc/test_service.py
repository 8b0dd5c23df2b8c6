from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from yunmo.core.access import KeyRecord, new_key
from yunmo.core.errors import DeadlineExceeded, ModelFailed, TooManyRequests, Unavailable, YunmoError
from yunmo.protocol import oip_pb2 as pb
from yunmo.serving.dataplane import Call
from yunmo.serving.gate import Keyring
from yunmo.serving.grpc.server import GrpcServer
from yunmo.serving.grpc.service import SERVICE, Service
from yunmo.serving.log import RequestLog
from yunmo.serving.observer import Activity, Silent

REQUEST = pb.ModelInferRequest(
    model_name="slow",
    inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype="UINT8", shape=[1])],
    raw_input_contents=[b"x"],
)


class Slow:
    """Stands for a data plane whose model takes for ever, so that what happens meanwhile can be seen."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.release = asyncio.Event()
        self.error: BaseException | None = None
        self.activity = Activity()

    def route(self, *_arguments: Any, **_more: Any) -> None:
        pass

    async def infer(self, call: Call, *_arguments: Any) -> Any:
        self.calls.append(call)
        self.begun.set()
        try:
            if self.error is None:
                await asyncio.wait_for(self.release.wait(), 60)
            assert self.error is not None
            raise self.error
        finally:
            self.ended.set()


class Observed(Silent):
    """Remembers how calls ended."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def request(self, project: str, endpoint: str, face: Any, code: str, seconds: float) -> None:  # noqa: ARG002 (all of it is the protocol's)
        assert face == "grpc"
        self.codes.append(code)


Work = Callable[[Slow, Callable[..., Any], Observed, GrpcServer], Awaitable[None]]


def run(work: Work) -> None:
    async def main() -> None:
        key, prefix, digest = new_key()
        keyring = Keyring()
        keyring.replace([KeyRecord("k", "p", "k", prefix, digest, ("predict",))])
        slow, observed = Slow(), Observed()
        service = Service(slow, keyring, observed, RequestLog("off"), max_message=1000)  # type: ignore[arg-type]  # see Slow
        server = GrpcServer(service, address="127.0.0.1", port=0)
        await server.listen()
        serving = asyncio.get_running_loop().create_task(server.serve())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            method = channel.unary_unary(f"/{SERVICE}/ModelInfer")

            def call(**more: Any) -> Any:
                metadata = (("authorization", f"Bearer {key}"), *more.pop("metadata", ()))
                return method(REQUEST.SerializeToString(), metadata=metadata, **more)

            async with asyncio.timeout(30):
                await work(slow, call, observed, server)
        server.stop()
        async with asyncio.timeout(30):
            await serving
        assert slow.activity.requests == 0

    asyncio.run(main())


def test_a_client_that_cancels_frees_its_place() -> None:
    async def work(slow: Slow, call: Callable[..., Any], observed: Observed, _server: GrpcServer) -> None:
        pending = call()
        await slow.begun.wait()
        pending.cancel()
        await slow.ended.wait()
        assert observed.codes == ["client_gone"]

    run(work)


def test_a_deadline_reaches_the_model_and_ends_its_work() -> None:
    async def work(slow: Slow, call: Callable[..., Any], observed: Observed, _server: GrpcServer) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(timeout=0.5)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await slow.ended.wait()
        (seen,) = slow.calls
        assert seen.timeout is not None
        assert 0 < seen.timeout <= 0.5
        assert observed.codes == ["deadline_exceeded"]

    run(work)


def test_the_parameter_timeout_and_sticky_metadata_are_handed_on() -> None:
    async def work(slow: Slow, call: Callable[..., Any], _observed: Observed, _server: GrpcServer) -> None:
        slow.error = DeadlineExceeded("no answer")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(timeout=20, metadata=(("yunmo-sticky", "me"),))
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert slow.calls[0].sticky == "me"
        assert slow.calls[0].size == len(REQUEST.SerializeToString())

    run(work)


@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [
        (TooManyRequests("full"), grpc.StatusCode.RESOURCE_EXHAUSTED, "1"),
        (Unavailable("away"), grpc.StatusCode.UNAVAILABLE, "2"),
        (ModelFailed("broken"), grpc.StatusCode.INTERNAL, None),
        (ZeroDivisionError("/secret/path"), grpc.StatusCode.INTERNAL, None),
    ],
)
def test_errors(error: Exception, code: grpc.StatusCode, retry: str | None) -> None:
    async def work(slow: Slow, call: Callable[..., Any], observed: Observed, _server: GrpcServer) -> None:
        slow.error = error
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call()
        assert caught.value.code() == code
        assert "secret" not in (caught.value.details() or "")
        trailing = dict(caught.value.trailing_metadata() or ())
        assert trailing.get("retry-after") == retry
        assert trailing["x-request-id"].startswith("req_")
        assert observed.codes == [error.code if isinstance(error, YunmoError) else "internal"]

    run(work)


def test_a_call_under_way_is_answered_after_the_stop() -> None:
    async def work(slow: Slow, call: Callable[..., Any], observed: Observed, server: GrpcServer) -> None:
        pending = call()
        await slow.begun.wait()
        server.stop()
        await asyncio.sleep(0.05)  # the client hears of it
        slow.error = ModelFailed("at last")
        slow.release.set()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pending
        assert caught.value.details() == "at last"
        assert observed.codes == ["model_failed"]

    run(work)
