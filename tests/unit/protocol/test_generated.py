from __future__ import annotations

from pathlib import Path

import pytest

from yunmo.protocol import oip_pb2 as pb
from yunmo.protocol.generate import GENERATED, HERE, generate


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    generate(folder)
    return folder


@pytest.mark.parametrize("name", GENERATED)
def test_generated_files_are_those_of_the_specification(fresh: Path, name: str) -> None:
    assert (HERE / name).read_text() == (fresh / name).read_text(), "run 'make protocol'"


NUMBERS = {
    "ServerLiveResponse": {"live": 1},
    "ServerReadyResponse": {"ready": 1},
    "ModelReadyRequest": {"name": 1, "version": 2},
    "ModelReadyResponse": {"ready": 1},
    "ServerMetadataResponse": {"name": 1, "version": 2, "extensions": 3},
    "ModelMetadataRequest": {"name": 1, "version": 2},
    "ModelMetadataResponse": {"name": 1, "versions": 2, "platform": 3, "inputs": 4, "outputs": 5},
    "ModelInferRequest": {
        "model_name": 1,
        "model_version": 2,
        "id": 3,
        "parameters": 4,
        "inputs": 5,
        "outputs": 6,
        "raw_input_contents": 7,
    },
    "ModelInferResponse": {
        "model_name": 1,
        "model_version": 2,
        "id": 3,
        "parameters": 4,
        "outputs": 5,
        "raw_output_contents": 6,
    },
    "InferParameter": {
        "bool_param": 1,
        "int64_param": 2,
        "string_param": 3,
        "double_param": 4,
        "uint64_param": 5,
    },
    "InferTensorContents": {
        "bool_contents": 1,
        "int_contents": 2,
        "int64_contents": 3,
        "uint_contents": 4,
        "uint64_contents": 5,
        "fp32_contents": 6,
        "fp64_contents": 7,
        "bytes_contents": 8,
    },
    "RepositoryIndexRequest": {"repository_name": 1, "ready": 2},
    "RepositoryIndexResponse": {"models": 1},
}
TENSOR = {"name": 1, "datatype": 2, "shape": 3, "parameters": 4, "contents": 5}


def test_field_numbers_are_the_specifications() -> None:
    for name, numbers in NUMBERS.items():
        fields = getattr(pb, name).DESCRIPTOR.fields
        assert {field.name: field.number for field in fields} == numbers, name
    for message in (pb.ModelInferRequest.InferInputTensor, pb.ModelInferResponse.InferOutputTensor):
        assert {field.name: field.number for field in message.DESCRIPTOR.fields} == TENSOR
    requested = pb.ModelInferRequest.InferRequestedOutputTensor.DESCRIPTOR
    assert {field.name: field.number for field in requested.fields} == {"name": 1, "parameters": 2}
    metadata = pb.ModelMetadataResponse.TensorMetadata.DESCRIPTOR
    assert {field.name: field.number for field in metadata.fields} == {"name": 1, "datatype": 2, "shape": 3}
    index = pb.RepositoryIndexResponse.ModelIndex.DESCRIPTOR
    assert {field.name: field.number for field in index.fields} == {"name": 1, "version": 2, "state": 3, "reason": 4}


def test_the_service_has_its_name() -> None:
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert service.full_name == "inference.GRPCInferenceService"
    assert [method.name for method in service.methods] == [
        "ServerLive",
        "ServerReady",
        "ModelReady",
        "ServerMetadata",
        "ModelMetadata",
        "ModelInfer",
        "RepositoryIndex",
    ]
