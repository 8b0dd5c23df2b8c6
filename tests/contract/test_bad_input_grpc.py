"""Bad input to the Open Inference Protocol's gRPC face, against a real data worker: its status codes, and no more."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from tests.contract.harness import Workers
from tests.contract.pictures import jpeg, lying_png
from tests.contract.watch import INSIDE, Watch

from yunmo.protocol import oip_pb2 as pb

Code = grpc.StatusCode
Input = pb.ModelInferRequest.InferInputTensor
Contents = pb.InferTensorContents
SERVICE = "/inference.GRPCInferenceService/"
BAD = Code.INVALID_ARGUMENT


pytestmark = pytest.mark.usefixtures("survived")


@pytest.fixture(scope="module")
def channel(attacked: Workers) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"{attacked.grpc.address}:{attacked.grpc.port}") as channel:
        yield channel


@pytest.fixture(scope="module")
def metadata(attacked: Workers) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {attacked.key}"),)


def refused(
    channel: grpc.Channel, metadata: Any, request: Any, code: Code, *words: str, method: str = "ModelInfer"
) -> None:
    """Hold an answer against a status, and against telling of our insides."""
    message = request if isinstance(request, bytes) else request.SerializeToString()
    call = channel.unary_unary(method if method.startswith("/") else SERVICE + method)
    with pytest.raises(grpc.RpcError) as caught:
        call(message, metadata=metadata, timeout=60, wait_for_ready=True)
    error: Any = caught.value
    assert error.code() == code, f"{error.code()}: {error.details()}"
    assert len(error.details()) < 2000
    for word in words:
        assert word in error.details(), f"{word!r} is not in {error.details()}"
    for inside in INSIDE:
        assert inside not in error.details()


def age(**more: Any) -> Input:
    return Input(**{"name": "age", "datatype": "FP64", "shape": [1], "contents": Contents(fp64_contents=[3])} | more)


def city(**more: Any) -> Input:
    said = {"name": "city", "datatype": "BYTES", "shape": [1], "contents": Contents(bytes_contents=[b"Berlin"])}
    return Input(**said | more)


def table(*inputs: Input, **more: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(**{"model_name": "table", "inputs": inputs or (age(), city())} | more)


def raw(data: bytes, shape: list[int], datatype: str = "FP64", texts: bytes = b"\6\0\0\0Berlin") -> Any:
    inputs = (
        Input(name="age", datatype=datatype, shape=shape),
        Input(name="city", datatype="BYTES", shape=shape[:1]),
    )
    return table(*inputs, raw_input_contents=[data, texts])


def picture(data: bytes, **more: Any) -> pb.ModelInferRequest:
    said = {"name": "image", "datatype": "BYTES", "shape": [1]} | more
    content = struct.pack("<I", len(data)) + data if said["datatype"] == "BYTES" else data
    return pb.ModelInferRequest(model_name="pictures", inputs=[Input(**said)], raw_input_contents=[content])


def parameter(name: str, **value: Any) -> dict[str, pb.InferParameter]:
    return {name: pb.InferParameter(**value)}


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (b"\xff" * 50, BAD, ("not a message",)),
        (b"\x2a\xff\xff\xff\xff\x7f", BAD, ("not a message",)),
        (b"", Code.NOT_FOUND, ("no endpoint",)),
        (table(model_name="none"), Code.NOT_FOUND, ("no endpoint 'none'",)),
        (table(model_name="x" * 100_000), Code.NOT_FOUND, ("no endpoint",)),
        (table(model_name="../../etc/passwd"), Code.NOT_FOUND, ()),
        (table(model_version="9"), Code.NOT_FOUND, ("version 9",)),
        (table(model_version="one"), Code.NOT_FOUND, ("no version 'one'",)),
        (table(model_version="9" * 10_000), Code.NOT_FOUND, ("no version",)),
        (pb.ModelInferRequest(model_name="table"), BAD, ("no inputs",)),
        (table(age()), BAD, ("missing input 'city'",)),
        (table(age(), city(), age(name="more")), BAD, ("unknown input 'more'", "age, city")),
        (table(age(), city(), age(name="x" * 100_000)), BAD, ("unknown input",)),
        (table(age(), city(), age()), BAD, ("input age", "twice")),
        (table(age(datatype="FP8"), city()), BAD, ("no datatype 'FP8'",)),
        (table(age(datatype=""), city()), BAD, ("no datatype",)),
        (table(age(datatype="FP16"), city()), BAD, ("raw_input_contents",)),
        (table(age(datatype="FP32"), city()), BAD, ("fp64_contents", "fp32_contents")),
        (table(age(datatype="BOOL", contents=Contents(bool_contents=[True])), city()), BAD, ("datatype BOOL",)),
        (table(age(datatype="INT8", contents=Contents(int_contents=[128])), city()), BAD, ("beyond INT8",)),
        (table(age(datatype="UINT8", contents=Contents(uint_contents=[256])), city()), BAD, ("beyond UINT8",)),
        (table(age(shape=[]), city()), BAD, ("input age",)),
        (table(age(shape=[2]), city()), BAD, ("1 elements of data where shape [2] has 2",)),
        (table(age(shape=[1, 1]), city()), BAD, ("[-1]",)),
        (table(age(shape=[-1]), city()), BAD, ("negative",)),
        (table(age(shape=[0, 2**60, 8]), city()), BAD, ("more elements",)),
        (table(age(shape=[2**62, 2**62]), city()), BAD, ("more elements",)),
        (table(age(shape=[0, 2**57]), city()), BAD, ("more elements",)),
        (table(age(shape=[1] * 40), city()), BAD, ("40 dimensions",)),
        (table(age(shape=[2], contents=Contents(fp64_contents=[1, 2])), city()), BAD, ("1 rows", "'age' has 2")),
        (table(age(contents=Contents()), city()), BAD, ("0 elements",)),
        (table(age(contents=Contents(fp64_contents=[np.inf])), city()), BAD, ("not a finite number",)),
        (table(age(contents=Contents(fp64_contents=[1], int_contents=[1])), city()), BAD, ("int_contents",)),
        (table(age(), city(contents=Contents(bytes_contents=[b"a", b"b"]))), BAD, ("2 elements",)),
        (table(raw_input_contents=[b"x"]), BAD, ("1 raw_input_contents for 2 inputs",)),
        (table(raw_input_contents=[bytes(8), b"x"]), BAD, ("contents beside raw_input_contents",)),
        (raw(bytes(7), [1]), BAD, ("7 bytes of data",)),
        (raw(bytes(8), [2**40]), BAD, ("8 bytes of data",)),
        (raw(b"", [0, 2**60]), BAD, ("input age",)),
        (raw(struct.pack("<d", np.inf), [1]), BAD, ("not a finite number",)),
        (raw(struct.pack("<e", np.inf), [1], "FP16"), BAD, ("not a finite number",)),
        (raw(b"\2", [1], "BOOL"), BAD, ("bytes other than 0 and 1",)),
        (raw(bytes(8), [1], texts=b"\xff\xff\xff\xffab"), BAD, ("says it has 4294967295 bytes",)),
        (raw(bytes(8), [1], texts=b"\1\0\0\0ab"), BAD, ("left over",)),
        (raw(bytes(8), [1], texts=b"ab"), BAD, ("too few",)),
        (table(outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="none")]), BAD, ("unknown output",)),
        (table(outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="label")] * 2), BAD, ("twice",)),
        (table(parameters=parameter("sequence_id", int64_param=7)), BAD, ("unknown parameter 'sequence_id'",)),
        (table(parameters=parameter("x" * 50_000, int64_param=7)), BAD, ("unknown parameter",)),
        (table(parameters=parameter("timeout", string_param="1")), BAD, ("'timeout' is a whole number",)),
        (table(parameters=parameter("timeout", int64_param=-1)), BAD, ("'timeout' is a whole number",)),
        (table(age(parameters=parameter("binary_data_size", int64_param=8)), city()), BAD, ("'binary_data_size'",)),
        (picture(jpeg(256)[:-1000]), BAD, ("damaged picture",)),
        (picture(b"no picture"), BAD, ("not a JPEG",)),
        (picture(b""), BAD, ("image",)),
        (picture(lying_png()), Code.RESOURCE_EXHAUSTED, ("too many pixels",)),
        (picture(bytes(192), datatype="UINT8", shape=[1, 8, 8, 4]), BAD, ("192 bytes",)),
        (picture(bytes(192), datatype="UINT8", shape=[1, 8, 3, 8]), BAD, ("[-1, 8, 8, 3]",)),
        (picture(bytes(768), datatype="FP32", shape=[1, 8, 8, 3]), BAD, ("UINT8 or BYTES",)),
        (table(id="x" * 250_000), Code.RESOURCE_EXHAUSTED, ()),
        (bytes(200_001), Code.RESOURCE_EXHAUSTED, ()),
    ],
)
def test_infer(channel: grpc.Channel, metadata: Any, request_: Any, code: Code, words: tuple[str, ...]) -> None:
    refused(channel, metadata, request_, code, *words)


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("ModelMetadata", pb.ModelMetadataRequest(name="none"), Code.NOT_FOUND),
        ("ModelMetadata", pb.ModelMetadataRequest(name="table", version="9"), Code.NOT_FOUND),
        ("ModelMetadata", b"\xff\xff", BAD),
        ("ModelReady", pb.ModelReadyRequest(name="x" * 100_000), Code.NOT_FOUND),
        ("ModelReady", b"\x0a\x05a", BAD),
        ("ServerReady", b"\xff", BAD),
        ("RepositoryIndex", b"\x10\xff", BAD),
        ("Nothing", b"", Code.UNIMPLEMENTED),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", b"", Code.UNIMPLEMENTED),
        ("/" + "x" * 5000, b"", Code.UNIMPLEMENTED),
        ("/../etc/passwd", b"", Code.UNIMPLEMENTED),
    ],
)
def test_other_methods(channel: grpc.Channel, metadata: Any, method: str, request_: Any, code: Code) -> None:
    refused(channel, metadata, request_, code, method=method)


def test_compressed_messages_are_bounded_too(attacked: Workers, metadata: Any) -> None:
    """A kilobyte that inflates to 64 MB is refused, and costs no such memory."""
    watch = Watch(attacked)
    target = f"{attacked.grpc.address}:{attacked.grpc.port}"
    bomb = table(id="x" * 64_000_000).SerializeToString()
    with grpc.insecure_channel(target, compression=grpc.Compression.Gzip) as channel:
        for _ in range(3):
            refused(channel, metadata, bomb, Code.RESOURCE_EXHAUSTED)
    watch.settled()


@pytest.mark.parametrize(
    "metadata_",
    [
        (("authorization", "Bearer " + "x" * 10_000),),
        (("authorization", "Bearer x"), ("authorization", "Bearer y")),
        (("authorization-bin", b"\xff\xfe"),),
        tuple((f"x{n}", "y") for n in range(100)),
    ],
)
def test_keys(channel: grpc.Channel, metadata_: Any) -> None:
    refused(channel, metadata_, table(), Code.UNAUTHENTICATED)


def test_metadata_bombs(channel: grpc.Channel, metadata: Any) -> None:
    call = channel.unary_unary(SERVICE + "ModelInfer")
    with pytest.raises(grpc.RpcError) as caught:
        call(table().SerializeToString(), metadata=(*metadata, ("x", "y" * 1_000_000)), timeout=60)
    error: Any = caught.value
    assert error.code() in (Code.RESOURCE_EXHAUSTED, Code.INTERNAL, Code.UNAVAILABLE)
    assert channel.unary_unary(SERVICE + "ModelInfer")(table().SerializeToString(), metadata=metadata, timeout=60)
