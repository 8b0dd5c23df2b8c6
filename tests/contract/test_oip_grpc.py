"""The Open Inference Protocol over gRPC, as foreign clients see it on real data workers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.contract.harness import Workers
from tests.fixtures.bundles import png

from yunmo.core.settings import Settings
from yunmo.protocol import oip_pb2 as pb

SERVICE = "/inference.GRPCInferenceService/"
Input = pb.ModelInferRequest.InferInputTensor
Contents = pb.InferTensorContents


class Client:
    """Calls methods by name."""

    def __init__(self, workers: Workers) -> None:
        self._channel = grpc.insecure_channel(f"{workers.grpc.address}:{workers.grpc.port}")
        self.metadata: tuple[tuple[str, str], ...] = (("authorization", f"Bearer {workers.key}"),)

    def call(self, name: str, request: Any = b"", *, metadata: Any = None, timeout: float = 20) -> bytes:
        message = request if isinstance(request, bytes) else request.SerializeToString()
        method = self._channel.unary_unary(SERVICE + name if "/" not in name else name)
        given = self.metadata if metadata is None else metadata
        answer: bytes = method(message, metadata=given, timeout=timeout, wait_for_ready=True)
        return answer

    def infer(self, request: pb.ModelInferRequest, **more: Any) -> pb.ModelInferResponse:
        return pb.ModelInferResponse.FromString(self.call("ModelInfer", request, **more))

    def refused(self, *arguments: Any, **more: Any) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            self.call(*arguments, **more)
        error: Any = caught.value
        for inside in ("Traceback", "site-packages", "/tmp", "yunmo.", "numpy", "0x"):  # noqa: S108 (words)
            assert inside not in error.details()
        return error.code(), error.details()

    def close(self) -> None:
        self._channel.close()


@pytest.fixture(scope="module")
def client(workers: Workers) -> Iterator[Client]:
    client = Client(workers)
    yield client
    client.close()


def pictures(shade: int = 120, **more: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(
        model_name="pictures",
        inputs=[Input(name="image", datatype="UINT8", shape=[1, 8, 8, 3])],
        raw_input_contents=[bytes([shade]) * 192],
        **more,
    )


def table(age: float = 3.0, city: bytes = b"Berlin", **more: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(
        model_name="table",
        inputs=[
            Input(name="age", datatype="FP64", shape=[1], contents=Contents(fp64_contents=[age])),
            Input(name="city", datatype="BYTES", shape=[1], contents=Contents(bytes_contents=[city])),
        ],
        **more,
    )


@pytest.mark.parametrize("name", ["ModelInfer", "ServerLive", "Nothing", "/other.Service/Method", "/x"])
@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Bearer ym_abcdefgh_" + "A" * 43),),
        (("authorization", "Basic eDp5"),),
        (("authorization", "nonsense"),),
    ],
)
def test_no_valid_key_is_unauthenticated_on_any_method(client: Client, name: str, metadata: Any) -> None:
    code, _ = client.refused(name, b"", metadata=metadata)
    assert code == grpc.StatusCode.UNAUTHENTICATED


def test_two_keys_are_none(client: Client) -> None:
    assert client.refused("ServerLive", metadata=client.metadata * 2)[0] == grpc.StatusCode.UNAUTHENTICATED


def test_without_a_key_no_message_is_read(client: Client) -> None:
    # Over the limit, but nobody looks: the key comes first.
    code, _ = client.refused("ModelInfer", bytes(300_000), metadata=())
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert client.refused("ModelInfer", bytes(300_000))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_unknown_methods_are_unimplemented(client: Client) -> None:
    for name in ("Nothing", "ModelStreamInfer", "RepositoryModelLoad", "/other.Service/Method"):
        assert client.refused(name)[0] == grpc.StatusCode.UNIMPLEMENTED


def test_health_metadata_and_index(client: Client) -> None:
    assert pb.ServerLiveResponse.FromString(client.call("ServerLive")).live
    assert pb.ServerReadyResponse.FromString(client.call("ServerReady")).ready
    ready = client.call("ModelReady", pb.ModelReadyRequest(name="table", version="1"))
    assert pb.ModelReadyResponse.FromString(ready).ready
    metadata = pb.ModelMetadataResponse.FromString(
        client.call("ModelMetadata", pb.ModelMetadataRequest(name="pictures"))
    )
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs] == [
        ("image", "UINT8", [-1, 8, 8, 3])
    ]
    index = pb.RepositoryIndexResponse.FromString(client.call("RepositoryIndex"))
    assert {(each.name, each.version, each.state) for each in index.models} == {
        ("pictures", "1", "READY"),
        ("table", "1", "READY"),
    }
    for name, version in (("none", ""), ("table", "2"), ("table", "x")):
        code, _ = client.refused("ModelReady", pb.ModelReadyRequest(name=name, version=version))
        assert code == grpc.StatusCode.NOT_FOUND


def test_answers_have_the_form_of_the_request(client: Client) -> None:
    raw = client.infer(pictures(id="7"))
    assert raw.id == "7"
    assert raw.model_version == "1"
    assert len(raw.raw_output_contents) == len(raw.outputs) == 2
    typed = client.infer(table())
    assert not typed.raw_output_contents
    by_name = {each.name: each.contents for each in typed.outputs}
    assert by_name["label"].bytes_contents[0] in (b"cat", b"dog", b"fish")
    assert len(by_name["label.probabilities"].fp32_contents) == 3


def test_raw_typed_and_file_are_one(client: Client) -> None:
    pixels = pictures(outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="label.probabilities")])
    typed = pb.ModelInferRequest()
    typed.CopyFrom(pixels)
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.uint_contents.extend([120] * 192)
    file = pb.ModelInferRequest()
    file.CopyFrom(pixels)
    file.inputs[0].CopyFrom(Input(name="image", datatype="BYTES", shape=[1]))
    file.raw_input_contents[0] = struct.pack("<I", len(png(120))) + png(120)
    first = np.frombuffer(client.infer(pixels).raw_output_contents[0], "<f4")
    assert np.allclose(first, client.infer(typed).outputs[0].contents.fp32_contents[:], atol=1e-6)
    assert np.allclose(first, np.frombuffer(client.infer(file).raw_output_contents[0], "<f4"), atol=1e-6)


def changed(**changes: Any) -> pb.ModelInferRequest:
    request = pictures()
    for name, value in changes.items():
        if name == "raw":
            del request.raw_input_contents[:]
            request.raw_input_contents.extend(value)
        elif name == "shape":
            del request.inputs[0].shape[:]
            request.inputs[0].shape.extend(value)
        elif name in ("datatype", "name"):
            setattr(request.inputs[0], name, value)
        else:
            setattr(request, name, value)
    return request


TIMEOUT = {"timeout": pb.InferParameter(string_param="soon")}
UNKNOWN = {"colour": pb.InferParameter(string_param="red")}


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (b"\xff\xff", "INVALID_ARGUMENT", "not a message"),
        (pb.ModelInferRequest(), "NOT_FOUND", "no endpoint ''"),
        (pb.ModelInferRequest(model_name="pictures"), "INVALID_ARGUMENT", "no inputs"),
        (changed(model_name="none"), "NOT_FOUND", "no endpoint"),
        (changed(model_version="7"), "NOT_FOUND", "version 7"),
        (changed(model_version="new"), "NOT_FOUND", "no version 'new'"),
        (changed(name="other"), "INVALID_ARGUMENT", "unknown input 'other'"),
        (changed(datatype="FP99"), "INVALID_ARGUMENT", "no datatype"),
        (changed(datatype="INT8"), "INVALID_ARGUMENT", "UINT8 or BYTES"),
        (changed(shape=[1, 8, 3, 8]), "INVALID_ARGUMENT", "is needed"),
        (changed(shape=[-1, 8, 8, 3]), "INVALID_ARGUMENT", "negative"),
        (changed(shape=[2, 8, 8, 3]), "INVALID_ARGUMENT", "192 bytes of data"),
        (changed(shape=[2**62, 2**62, 2**62]), "INVALID_ARGUMENT", "more elements"),
        (changed(shape=[], datatype="UINT8", raw=[b"x"]), "INVALID_ARGUMENT", "without dimensions"),
        (changed(shape=[0, 8, 8, 3], raw=[b""]), "INVALID_ARGUMENT", "no row"),
        (changed(raw=[b"x"]), "INVALID_ARGUMENT", "1 bytes of data"),
        (changed(raw=[bytes(192), b""]), "INVALID_ARGUMENT", "2 raw_input_contents for 1"),
        (changed(raw=[]), "INVALID_ARGUMENT", "0 elements"),
        (changed(datatype="BYTES", shape=[1], raw=[struct.pack("<I", 99)]), "INVALID_ARGUMENT", "99 bytes"),
        (changed(datatype="BYTES", shape=[1], raw=[struct.pack("<I", 1) + b"x"]), "INVALID_ARGUMENT", "not a JPEG"),
        (pictures(parameters=TIMEOUT), "INVALID_ARGUMENT", "'timeout'"),
        (pictures(parameters=UNKNOWN), "INVALID_ARGUMENT", "unknown parameter 'colour'"),
        (table(float("inf")), "INVALID_ARGUMENT", "age"),
    ],
)
def test_bad_requests(client: Client, request_: Any, code: str, text: str) -> None:
    found, details = client.refused("ModelInfer", request_)
    assert found == grpc.StatusCode[code], details
    assert text in details
    assert client.infer(pictures()).outputs


def test_rights(workers: Workers, client: Client) -> None:
    only, reader = workers.add_key("predict", endpoints=("table",)), workers.add_key("read")
    workers.apply()
    mine, looks = [(("authorization", f"Bearer {key}"),) for key in (only, reader)]
    assert client.infer(table(), metadata=mine).outputs
    assert client.refused("ModelInfer", pictures(), metadata=mine)[0] == grpc.StatusCode.NOT_FOUND
    assert client.refused("ModelInfer", table(), metadata=looks)[0] == grpc.StatusCode.PERMISSION_DENIED
    described = client.call("ModelMetadata", pb.ModelMetadataRequest(name="pictures"), metadata=looks)
    assert pb.ModelMetadataResponse.FromString(described).name == "pictures"


def test_errors_carry_the_requests_id(client: Client, workers: Workers) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.infer(changed(model_name="none"))
    error: Any = caught.value
    identity = dict(error.trailing_metadata())["x-request-id"]
    workers.wait(lambda: identity in workers.log)


def test_many_callers_get_their_own_answers(client: Client) -> None:
    expected = {shade: client.infer(pictures(shade)).raw_output_contents[1] for shade in range(0, 250, 10)}
    wrong: list[int] = []

    def ask(shade: int) -> None:
        for _ in range(20):
            answer = client.infer(pictures(shade, id=str(shade)))
            near = np.allclose(
                np.frombuffer(answer.raw_output_contents[1], "<f4"), np.frombuffer(expected[shade], "<f4"), atol=1e-5
            )
            if answer.id != str(shade) or not near:
                wrong.append(shade)

    threads = [threading.Thread(target=ask, args=(shade,)) for shade in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def talk(workers: Workers, *pieces: bytes, seconds: float = 3.0) -> bytes:
    """Send bytes to the gRPC port and return what comes back until it is closed or silent."""
    with socket.create_connection((workers.grpc.address, workers.grpc.port), timeout=seconds) as connection:
        with contextlib.suppress(OSError):
            for piece in pieces:
                connection.sendall(piece)
        received = b""
        while True:
            try:
                data = connection.recv(65536)
            except (TimeoutError, ConnectionResetError):
                return received
            if not data:
                return received
            received += data


@pytest.mark.parametrize(
    "pieces",
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),),
        (os.urandom(3000),),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\xff" * 9000),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\4\0\0\0\0\0" * 500, b"\0\0\x08\6\0\0\0\0\0" + bytes(8)),
    ],
)
def test_what_is_no_grpc_hurts_nobody(workers: Workers, client: Client, pieces: tuple[bytes, ...]) -> None:
    talk(workers, *pieces)
    assert client.infer(pictures()).outputs


def test_idle_connections_hurt_nobody(workers: Workers, client: Client) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection((workers.grpc.address, workers.grpc.port), timeout=10))
        assert client.infer(pictures()).outputs


def test_two_workers_share_the_port_and_survive_each_other(tmp_path: Path) -> None:
    with Workers(tmp_path, count=2, settings=Settings()) as workers:
        workers.deploy("pictures", workers.bundle("pictures", kind="image"))
        workers.apply()
        workers.kill(0)
        for _ in range(20):
            client = Client(workers)
            try:
                assert client.infer(pictures()).outputs
            finally:
                client.close()


def test_sigterm_answers_what_it_has_and_ends(tmp_path: Path) -> None:
    with Workers(tmp_path, settings=Settings(drain_timeout=10)) as workers:
        workers.deploy("pictures", workers.bundle("pictures", kind="image"))
        workers.apply()
        client = Client(workers)
        lost: list[grpc.StatusCode] = []
        answered = 0
        stop = threading.Event()

        def ask() -> None:
            nonlocal answered
            while not stop.is_set():
                try:
                    client.infer(pictures(), timeout=5)
                    answered += 1
                except grpc.RpcError as error:
                    lost.append(error.code())  # type: ignore[attr-defined]  # it is a Call too
                    return

        thread = threading.Thread(target=ask)
        thread.start()
        workers.wait(lambda: answered > 20)
        began = time.monotonic()
        workers.processes[0].send_signal(signal.SIGTERM)
        assert workers.processes[0].wait(15) == 0
        assert time.monotonic() - began < 10
        stop.set()
        thread.join()
        client.close()
        # Whoever asks afterwards finds nobody; nothing that had been accepted was cut off.
        assert lost in ([], [grpc.StatusCode.UNAVAILABLE], [grpc.StatusCode.DEADLINE_EXCEEDED])
