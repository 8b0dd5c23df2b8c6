from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yunmo.core.errors import InvalidInput
from yunmo.serving.oip.body import InferRequest, header_length, read_request


def read(document: object, binary: bytes = b"") -> InferRequest:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_request(text + binary, len(text))


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4], **changes}


def test_numbers_flat_and_nested() -> None:
    for data in ([1, 2, 3, 4], [[1, 2], [3, 4]]):
        (found,) = read({"inputs": [tensor(data=data)]}).tensors
        assert (found.name, found.datatype) == ("x", "FP32")
        assert found.array.dtype == np.float32
        assert found.array.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "data",
    [
        [[1, 2], [3]],
        [[1, 2, 3, 4]],
        [[1, 2], 3, 4],
        [1, [2, 3, 4]],
        [[[1, 2]], [[3, 4]]],
        [[1, 2], [3, 4], []],
        [[], 1, 2, 3, 4],
    ],
)
@pytest.mark.parametrize("datatype", ["FP32", "INT64", "UINT8"])
def test_data_nested_in_another_way_is_refused(data: list[Any], datatype: str) -> None:
    with pytest.raises(InvalidInput):
        read({"inputs": [tensor(data=data, datatype=datatype)]})


@pytest.mark.parametrize(("shape", "data"), [([1], [[3]]), ([2], [[1], [2]]), ([2], [1, [2]]), ([3], [[1, 2, 3]])])
@pytest.mark.parametrize("datatype", ["FP32", "INT64"])
def test_lists_in_one_dimension_are_refused(shape: list[int], data: list[Any], datatype: str) -> None:
    with pytest.raises(InvalidInput, match="nested"):
        read({"inputs": [tensor(shape=shape, data=data, datatype=datatype)]})


def test_rows_of_one_are_nested() -> None:
    (found,) = read({"inputs": [tensor(shape=[2, 1], data=[[1], [2]])]}).tensors
    assert found.array.tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("datatype", "data", "expected"),
    [
        ("INT64", [-(2**63), 2**63 - 1], [-(2**63), 2**63 - 1]),
        ("UINT64", [0, 2**64 - 1], [0, 2**64 - 1]),
        ("BOOL", [True, False], [True, False]),
        ("BYTES", ["é", ""], ["é", ""]),
        ("FP64", [1e308, 5e-324], [1e308, 5e-324]),
        ("FP16", [1, 65504], [1.0, 65504.0]),
    ],
)
def test_every_kind_of_number(datatype: str, data: list[Any], expected: list[Any]) -> None:
    assert read({"inputs": [tensor(shape=[2], datatype=datatype, data=data)]}).tensors[0].array.tolist() == expected


def test_null_is_nan() -> None:
    array = read({"inputs": [tensor(shape=[2], data=[None, 1])]}).tensors[0].array
    assert np.isnan(array[0])
    assert array[1] == 1


def test_binary_data_is_taken_in_order_and_not_copied() -> None:
    inputs = [
        {"name": "a", "shape": [2], "datatype": "UINT8", "parameters": {"binary_data_size": 2}},
        tensor(name="b"),
        {"name": "c", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 7}},
    ]
    first, second, third = read({"inputs": inputs}, b"\1\2" + struct.pack("<I", 3) + b"xyz").tensors
    assert first.array.tolist() == [1, 2]
    assert not first.array.flags.owndata
    assert second.array.tolist() == [[1, 2], [3, 4]]
    assert third.array.tolist() == [b"xyz"]


def test_outputs_id_and_parameters() -> None:
    asked = read(
        {
            "id": "é",
            "parameters": {"timeout": 2_500_000, "priority": 3, "binary_data_output": True},
            "inputs": [tensor()],
            "outputs": [
                {"name": "p"},
                {"name": "q", "parameters": {"binary_data": False}},
                {"name": "r", "parameters": {}},
            ],
        }
    )
    assert asked.id == "é"
    assert asked.timeout == 2.5
    assert asked.binary
    assert asked.outputs == {"p": None, "q": False, "r": None}
    assert read({"inputs": [tensor()], "parameters": {"timeout": 0}}).timeout is None


def test_a_request_that_fails_does_not_spoil_the_next() -> None:
    held = []
    for _ in range(3):
        with pytest.raises(InvalidInput) as caught:
            read({"inputs": [tensor(data=["x"] * 4)]})
        held.append(caught)  # its traceback holds what was parsed
        assert read({"inputs": [tensor()]}).tensors[0].array.size == 4


def test_large_documents_are_read_too() -> None:
    size = 200_000
    (found,) = read({"inputs": [tensor(shape=[size], data=[0.5] * size)]}).tensors
    assert found.array.sum() == size / 2


@pytest.mark.parametrize(("text", "size", "length"), [(None, 9, 9), ("0", 9, 0), ("9", 9, 9)])
def test_header_length(text: str | None, size: int, length: int) -> None:
    assert header_length(text, size) == length


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", "0x1", "٣", "10", "9" * 40, " 1"])
def test_header_lengths_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        header_length(text, 9)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda each: (
        st.lists(each, max_size=5)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "data", "inputs", "outputs", "parameters", "id", "x"]),
            each,
            max_size=5,
        )
    ),
    max_leaves=30,
)


@given(values)
def test_any_json_is_read_or_refused(value: Any) -> None:
    for document in (value, {"inputs": value}, {"inputs": [value]}, {"inputs": [tensor(data=value)]}):
        with contextlib.suppress(InvalidInput):
            read(document)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_are_read_or_refused(data: bytes, length: int) -> None:
    with contextlib.suppress(InvalidInput):
        read_request(data, min(length, len(data)))
