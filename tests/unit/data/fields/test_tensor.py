from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from yunmo.core import fields as specs
from yunmo.core.errors import InvalidInput, RecipeError
from yunmo.core.recipe import recipe_from
from yunmo.data.fields.registry import open_field, open_output
from yunmo.data.fields.tensor import WIRE, TensorField, plain_tensor


def tensor(datatype: Any = "float32", shape: tuple[int | None, ...] = (2,)) -> TensorField:
    field = open_field(specs.TensorField(name="x", datatype=datatype, shape=shape))
    assert isinstance(field, TensorField)
    return field


def encoded(field: TensorField, values: Any) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = field.encode(values)["x"]
    return array


NUMERIC = [name for name in WIRE if name not in ("bool", "string")]


@pytest.mark.parametrize("datatype", NUMERIC)
def test_lists_and_arrays_of_numbers_become_the_tensor(datatype: str) -> None:
    field = tensor(datatype)
    found = encoded(field, [[1, 2], [3, 100]])
    assert str(found.dtype) == datatype
    assert found.tolist() == [[1, 2], [3, 100]]
    assert encoded(field, [np.array([1, 2]), "[3, 100]"]).tolist() == found.tolist()
    whole = np.array([[1, 2], [3, 100]], datatype)
    assert encoded(field, whole) is whole


@pytest.mark.parametrize("datatype", WIRE)
def test_it_travels_as_itself(datatype: Any) -> None:
    (wire,) = tensor(datatype, (3, None)).wire()
    assert (wire.datatype, wire.shape) == (WIRE[datatype], (3, None))
    json.dumps(tensor(datatype, (3, None)).json_schema())


@pytest.mark.parametrize(
    ("datatype", "value", "message"),
    [
        ("float32", [1, 2, 3], r"shape \[3\]"),
        ("float32", 1, r"shape \[\]"),
        ("float32", [[1, 2]], r"shape \[1, 2\]"),
        ("float32", [], r"shape \[0\]"),
        ("float32", [[1], [2, 3]], "lists of different lengths"),
        ("float32", [1, [2]], "lists of different lengths"),
        ("float32", ["1", "2"], "'1' where numbers are needed"),
        ("float32", [True, False], "booleans where numbers"),
        ("float32", [{}, {}], "where numbers are needed"),
        ("float32", "no list", "not a list"),
        ("float32", [1e39, 0], "beyond float32"),
        ("float32", [10**400, 0], "beyond float32"),
        ("float16", [1e5, 0], "beyond float16"),
        ("int8", [128, 0], "beyond int8, which goes from -128 to 127"),
        ("int8", [1.5, 0], "a fraction"),
        ("int8", [None, 0], "null where whole numbers"),
        ("int8", [math.nan, 0], "NaN, infinity"),
        ("uint8", [-1, 0], "beyond uint8"),
        ("int64", [2**63, 0], "beyond int64"),
        ("int64", [2**70, 0], "beyond int64"),
        ("uint64", [2**64, 0], "beyond uint64"),
        ("uint64", [-1, 2**63], "beyond uint64"),
        ("bool", [0, 1], "whole numbers where booleans"),
        ("bool", [None, True], "where booleans"),
        ("string", [1, 2], "where a text is needed"),
        ("string", [None, "a"], "where a text is needed"),
        ("string", [b"\xff", "a"], "not UTF-8"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_row(datatype: str, value: Any, message: str) -> None:
    good = {"bool": [True, False], "string": ["a", "b"]}.get(datatype, [1, 2])
    with pytest.raises(InvalidInput, match=message) as refused:
        tensor(datatype).encode([good, value])
    assert refused.value.where == "row 1, field x"
    assert refused.value.remedy


def test_an_array_of_another_shape_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"shape \[3\]"):
        tensor().encode(np.zeros((5, 3), np.float32))


def test_floats_may_be_nan_and_infinite_and_null_is_nan() -> None:
    found = encoded(tensor(shape=(3,)), [[None, math.inf, -1]])
    assert np.isnan(found[0, 0])
    assert found[0, 1:].tolist() == [math.inf, -1]
    assert np.isnan(encoded(tensor(), np.array([[math.nan, 0]], np.float32))[0, 0])


def test_the_largest_integers_are_exact() -> None:
    assert encoded(tensor("int64"), [[2**63 - 1, -(2**63)]]).tolist() == [[2**63 - 1, -(2**63)]]
    assert encoded(tensor("uint64"), [[2**64 - 1, 0]]).tolist() == [[2**64 - 1, 0]]


def test_texts_come_as_str_or_utf8() -> None:
    assert encoded(tensor("string"), [["a", "云"], [b"b", "模".encode()]]).tolist() == [["a", "云"], ["b", "模"]]
    assert encoded(tensor("string", ()), ["a", "[1]"]).tolist() == ["a", "[1]"]
    rows = np.array([[b"a", b"b"]], object)
    assert encoded(tensor("string"), rows).tolist() == [["a", "b"]]


def test_free_axes_take_any_size_that_is_one_for_all_rows() -> None:
    field = tensor(shape=(None, 2))
    assert encoded(field, [[[1, 2]] * 3] * 2).shape == (2, 3, 2)
    assert encoded(field, np.zeros((4, 1, 2), np.float32)).shape == (4, 1, 2)
    with pytest.raises(InvalidInput, match="where the row before has") as refused:
        field.encode([[[1, 2]], [[1, 2], [3, 4]]])
    assert refused.value.where == "row 1, field x"
    with pytest.raises(InvalidInput, match="shape"):
        field.encode([np.zeros((0, 2), np.float32)])


def test_scalars_have_no_shape() -> None:
    assert encoded(tensor(shape=()), [1, 2.5]).tolist() == [1, 2.5]
    assert encoded(tensor("bool", ()), [True, False]).tolist() == [True, False]


def test_raw_values_are_json_and_encode_to_the_same() -> None:
    field = tensor()
    raw = field.raw(np.array([math.nan, 2], np.float32))
    assert raw == [None, 2]
    assert np.isnan(encoded(field, [raw])[0, 0])


def test_answers_have_null_for_what_json_has_not() -> None:
    assert plain_tensor(np.array([[math.nan, math.inf], [1, 2]], np.float32)) == [[None, None], [1, 2]]
    assert plain_tensor(np.array([True, False])) == [True, False]
    output = open_output(specs.TensorOutput(name="y", datatype="int8", shape=(2,)))
    assert output.json_schema()["items"] == {"type": "integer", "minimum": -128, "maximum": 127}


@pytest.mark.parametrize("part", ["inputs", "outputs"])
def test_a_recipe_cannot_train_on_it(part: str) -> None:
    data = {"data": {"train": "x.csv"}, part: [{"name": "x", "type": "tensor"}]}
    with pytest.raises(RecipeError, match="imported ONNX files") as refused:
        recipe_from(data)
    assert refused.value.where == f"recipe, {part}[0]"
