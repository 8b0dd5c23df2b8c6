from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from yunmo.core.errors import InvalidInput
from yunmo.protocol.oip_pb2 import InferTensorContents
from yunmo.protocol.tensors import (
    DATATYPES,
    RAW,
    elements,
    from_contents,
    from_json,
    from_numbers,
    from_raw,
    held,
    to_contents,
    to_json,
    to_raw,
)

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
texts = st.binary(max_size=30)


@st.composite
def tensors(draw: st.DrawFn, datatypes: tuple[str, ...] = DATATYPES) -> tuple[str, np.ndarray[Any, Any]]:
    datatype, shape = draw(st.sampled_from(datatypes)), draw(shapes)
    if datatype == "BYTES":
        return datatype, draw(hnp.arrays(object, shape, elements=texts))
    if datatype == "BF16":
        # Values that 8 bits of significand hold.
        bits = draw(hnp.arrays(np.uint16, shape)).astype(np.uint32) << 16
        return datatype, bits.view(np.float32)
    return datatype, draw(hnp.arrays(RAW[datatype], shape))


def same(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> bool:
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return np.array_equal(first, second, equal_nan=first.dtype.kind == "f")


@given(tensors())
def test_raw_round_trip(tensor: tuple[str, np.ndarray[Any, Any]]) -> None:
    datatype, array = tensor
    assert same(from_raw(datatype, array.shape, to_raw(datatype, array)), array)


@given(tensors())
def test_json_round_trip_flat_and_nested(tensor: tuple[str, np.ndarray[Any, Any]]) -> None:
    datatype, array = tensor
    if datatype == "BYTES":
        array = np.array([each.hex() for each in array.ravel()], object).reshape(array.shape)
    elif array.dtype.kind == "f":
        array = np.where(np.isinf(array), array.dtype.type(0), array)  # JSON has no infinity
    flat = json.loads(json.dumps(to_json(datatype, array)).replace("NaN", "null"))
    assert same(from_json(datatype, array.shape, flat), array)
    if array.ndim and array.size:
        nested = json.loads(json.dumps(array.tolist()).replace("NaN", "null"))
        assert same(from_json(datatype, array.shape, nested), array)


@given(tensors(tuple(each for each in DATATYPES if each not in ("FP16", "BF16"))))
def test_contents_round_trip(tensor: tuple[str, np.ndarray[Any, Any]]) -> None:
    datatype, array = tensor
    contents = InferTensorContents()
    to_contents(datatype, array, contents)
    again = InferTensorContents.FromString(contents.SerializeToString())
    assert same(from_contents(datatype, array.shape, again), array)


@given(st.sampled_from(DATATYPES), shapes, st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(datatype: str, shape: tuple[int, ...], data: bytes) -> None:
    try:
        array = from_raw(datatype, shape, data)
    except InvalidInput:
        return
    assert array.shape == shape
    assert array.dtype == held(datatype)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(max_size=3), each, max_size=2),
    max_leaves=20,
)


@given(st.sampled_from(DATATYPES), shapes, st.lists(json_values, max_size=8))
def test_any_json_is_read_or_refused(datatype: str, shape: tuple[int, ...], values: list[Any]) -> None:
    try:
        array = from_json(datatype, shape, values)
    except InvalidInput:
        return
    assert array.shape == shape
    assert array.dtype == held(datatype)


def test_raw_numbers_are_not_copied() -> None:
    data = bytearray(struct.pack("<4f", 1, 2, 3, 4))
    array = from_raw("FP32", [2, 2], memoryview(data))
    assert array.tolist() == [[1, 2], [3, 4]]
    data[0:4] = struct.pack("<f", 9)
    assert array[0, 0] == 9


def test_raw_numbers_off_their_place_are_copied_into_it() -> None:
    body = b"x" + struct.pack("<2d", 1, 2)
    array = from_raw("FP64", [2], memoryview(body)[1:])
    assert array.flags.aligned
    assert array.tolist() == [1, 2]


def test_nan_and_infinity_pass_in_raw_floats() -> None:
    array = from_raw("FP32", [3], np.array([np.nan, np.inf, -np.inf], np.float32).tobytes())
    assert math.isnan(array[0])
    assert array[1:].tolist() == [math.inf, -math.inf]


def test_null_is_nan_in_json() -> None:
    assert math.isnan(from_json("FP16", [1], [None])[0])


@pytest.mark.parametrize(
    ("value", "bits"),
    [(1.0, 0x3F80), (1.00390625, 0x3F80), (1.01171875, 0x3F82), (math.inf, 0x7F80), (3.3961776e38, 0x7F80)],
)
def test_bf16_rounds_to_the_nearest_and_ties_to_even(value: float, bits: int) -> None:
    assert to_raw("BF16", np.array([value], np.float32)) == struct.pack("<H", bits)


def test_nan_stays_nan_in_bf16() -> None:
    hard = np.array([0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(from_raw("BF16", [2], to_raw("BF16", hard))).all()


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "message"),
    [
        ("FLOAT", [1], b"1234", "no datatype 'FLOAT'"),
        ("fp32", [1], b"1234", "no datatype 'fp32'"),
        ("FP32", [-1], b"", "negative"),
        ("FP32", [2], b"1234", "4 bytes of data where FP32 of shape \\[2\\] has 8"),
        ("FP32", [1], b"12345", "5 bytes"),
        ("FP32", [2**40, 2**40], b"", "more elements than can be counted"),
        ("FP32", [0, 2**62, 4], b"", "more elements than can be counted"),
        ("FP32", [1] * 33, b"1234", "33 dimensions"),
        ("BOOL", [2], b"\x00\x02", "other than 0 and 1"),
        ("BYTES", [2**40], b"\0\0\0\0", "too few"),
        ("BYTES", [1], struct.pack("<I", 5) + b"abc", "says it has 5 bytes; 3 are left"),
        ("BYTES", [1], struct.pack("<I", 2**32 - 1), "says it has 4294967295 bytes"),
        ("BYTES", [1], struct.pack("<I", 1) + b"abc", "2 bytes of data are left over"),
        ("BYTES", [2], struct.pack("<I", 4) + b"abcd", "ends before BYTES element 1"),
    ],
)
def test_raw_data_that_lies_is_refused(datatype: str, shape: list[int], data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        from_raw(datatype, shape, data)


@pytest.mark.parametrize(
    ("datatype", "shape", "values", "message"),
    [
        ("INT8", [1], [128], "beyond INT8, which goes from -128 to 127"),
        ("UINT8", [1], [-1], "beyond UINT8"),
        ("UINT64", [1], [2**64], "beyond UINT64"),
        ("INT64", [1], [2**63], "beyond INT64"),
        ("INT32", [1], [1.5], "a fraction in data of INT32"),
        ("INT32", [1], [True], "a boolean in data of INT32"),
        ("INT32", [1], [None], "null in data of INT32"),
        ("BOOL", [1], [1], "a whole number in data of BOOL"),
        ("FP32", [1], ["1"], "a string in data of FP32"),
        ("FP32", [1], [1e39], "a number beyond FP32"),
        ("FP32", [1], [10**400], "a number beyond FP32"),
        ("FP16", [1], [70000], "a number beyond FP16"),
        ("BYTES", [1], [1], "a whole number in data of BYTES"),
        ("BYTES", [1], [{}], "an object in data of BYTES"),
        ("FP32", [2, 2], [1, 2, 3], "3 elements of data where shape \\[2, 2\\] has 4"),
        ("FP32", [2, 2], [[1, 2], [3]], "not nested as its shape"),
        ("FP32", [2, 2], [[1, 2, 3, 4]], "not nested as its shape"),
        ("FP32", [2, 2], [[1, 2], 3, 4], "not nested as its shape"),
        ("FP32", [1], [[[1]]], "a list in data of FP32"),
    ],
)
def test_json_that_does_not_fit_is_refused(datatype: str, shape: list[int], values: list[Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        from_json(datatype, shape, values)


def test_numbers_of_64_bits_are_narrowed_if_they_fit() -> None:
    assert from_numbers("INT8", [2], np.array([-128, 127], np.int64)).dtype == np.int8
    with pytest.raises(InvalidInput, match="beyond INT8"):
        from_numbers("INT8", [1], np.array([128], np.int64))
    with pytest.raises(InvalidInput, match="2 elements"):
        from_numbers("INT8", [1], np.array([1, 2], np.int64))


@pytest.mark.parametrize(
    ("datatype", "contents", "message"),
    [
        ("FP16", {"fp32_contents": [1]}, "FP16 has no contents of its own"),
        ("FP32", {"fp64_contents": [1]}, "contents of FP32 in fp64_contents"),
        ("FP32", {"fp32_contents": [1], "int_contents": [1]}, "in int_contents"),
        ("INT8", {"int_contents": [200]}, "beyond INT8"),
        ("UINT16", {"uint_contents": [65536]}, "beyond UINT16"),
        ("FP32", {"fp32_contents": [1, 2]}, "2 elements"),
        ("FP32", {}, "0 elements"),
        ("NONE", {}, "no datatype"),
    ],
)
def test_contents_that_do_not_fit_are_refused(datatype: str, contents: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        from_contents(datatype, [1], InferTensorContents(**contents))


def test_texts_become_bytes_and_strings() -> None:
    array = np.array(["é", b"x"], object)
    assert to_raw("BYTES", array) == struct.pack("<I", 2) + "é".encode() + struct.pack("<I", 1) + b"x"
    assert to_json("BYTES", array) == ["é", "x"]
    with pytest.raises(InvalidInput, match="no text"):
        to_json("BYTES", np.array([b"\xff"], object))


def test_scalars_have_one_element_and_empty_tensors_none() -> None:
    assert elements([]) == 1
    assert from_raw("FP32", [], struct.pack("<f", 2)).item() == 2
    assert from_raw("FP32", [0, 3], b"").shape == (0, 3)
