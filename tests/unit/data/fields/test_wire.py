"""Raw values as tensors of the Open Inference Protocol: each field reads every form that it says it takes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from yunmo.core import fields as specs
from yunmo.core.errors import InvalidInput
from yunmo.core.tokenizers import WordTokenizer
from yunmo.data.fields.base import NUMBERS, Field
from yunmo.data.fields.registry import OUTPUTS, open_field, open_output

DATES = ["2024-01-31", "2025-02-01", "2026-03-02"]


def fitted(spec: Any, values: Any) -> Field:
    return open_field(spec, open_field(spec).fit(values))


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PIXELS = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8)


@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_of_every_datatype(datatype: str) -> None:
    field = fitted(specs.NumberField(name="x"), [1.0, 2.0, 9.0])
    assert (datatype, ()) in [(wire.datatype, wire.shape) for wire in field.wire()]
    dtype = "float32" if datatype == "BF16" else datatype.lower().replace("fp", "float")
    found = field.encode(np.array([1, 9], dtype))["x"]
    assert found.dtype == np.float32
    assert found.tolist() == [1.0, 9.0]


def test_a_missing_number_is_nan() -> None:
    field = fitted(specs.NumberField(name="x"), [1.0, 2.0, 9.0])
    assert field.encode(np.array([np.nan, 1.0]))["x"].tolist() == [2.0, 1.0]
    strict = fitted(specs.NumberField(name="x", missing="drop"), [1.0, 2.0])
    for value in (np.nan, np.inf):
        with pytest.raises(InvalidInput):
            strict.encode(np.array([value]))


def test_categories_as_bytes_texts_and_numbers() -> None:
    field = fitted(specs.CategoryField(name="x"), ["1", "2", "é"])
    assert [wire.datatype for wire in field.wire()] == ["BYTES", "INT64", "INT32"]
    assert field.encode(["é".encode(), b"", b"\xff"])["x"].tolist() == field.encode(["é", None, "no"])["x"].tolist()
    assert field.encode(np.array([2, 1, 7]))["x"].tolist() == field.encode(["2", "1", "7"])["x"].tolist()


def test_dates_as_bytes() -> None:
    field = fitted(specs.DateField(name="x", format="%Y-%m-%d"), DATES)
    assert [(wire.datatype, wire.shape) for wire in field.wire()] == [("BYTES", ())]
    given = field.encode([DATES[0].encode(), b""])["x"]
    assert np.array_equal(given, field.encode([DATES[0], None])["x"])
    with pytest.raises(InvalidInput):
        field.encode([b"\xff"])


def test_texts_as_bytes() -> None:
    field = fitted(specs.TextField(name="x", tokenizer=WordTokenizer(seen=1)), ["good", "好"])
    assert [(wire.datatype, wire.shape) for wire in field.wire()] == [("BYTES", ())]
    given = field.encode(["好 good".encode(), b""])
    assert np.array_equal(given["x"], field.encode(["好 good", None])["x"])
    with pytest.raises(InvalidInput, match="byte 0"):
        field.encode([b"\xff"])


@pytest.mark.parametrize(
    "more", [{}, {"rotate": 90}, {"flip": "horizontal"}, {"rotate": 270, "flip": "vertical"}], ids=str
)
def test_pictures_as_pixels_and_as_files(more: dict[str, Any]) -> None:
    size = (6, 4) if more.get("rotate") else (4, 6)
    field = fitted(specs.ImageField(name="x", size=size, color="rgb", **more), PIXELS)
    pixels, file = field.wire()
    assert (pixels.datatype, pixels.shape) == ("UINT8", (4, 6, 3))
    assert (file.datatype, file.shape) == ("BYTES", ())
    assert np.array_equal(field.encode(PIXELS)["x"], field.encode([png(each) for each in PIXELS])["x"])
    assert np.shares_memory(field.encode(PIXELS)["x"], PIXELS) == (not more)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "uint8", "uint64"])
def test_vectors_and_sequences(dtype: str) -> None:
    rows = np.array([[1, 2, 3], [4, 5, 6]], dtype)
    vector = fitted(specs.VectorField(name="x"), rows)
    assert [wire.shape for wire in vector.wire()] == [(3,)] * len(NUMBERS)
    assert np.array_equal(vector.encode(rows)["x"], vector.encode(rows.tolist())["x"])
    steps = rows[:, :, None]
    sequence = fitted(specs.SequenceField(name="x", length=3), steps)
    assert sequence.wire()[0].datatype == "FP32"
    assert sequence.wire()[0].shape == (None, 1)
    assert np.array_equal(sequence.encode(steps)["x"], sequence.encode(steps.tolist())["x"])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_vectors_of_what_is_no_number_are_refused_by_row(value: float) -> None:
    field = fitted(specs.VectorField(name="x"), np.ones((2, 3)))
    rows = np.ones((2, 3))
    rows[1, 1] = value
    with pytest.raises(InvalidInput, match="row 1, field x"):
        field.encode(rows)


def test_outputs_have_their_tensor() -> None:
    assert set(OUTPUTS) == {specs.CategoryOutput, specs.NumberOutput, specs.LabelsOutput, specs.TensorOutput}
    assert open_output(specs.CategoryOutput(name="x", categories=("a", "b"))).wire()[0].datatype == "BYTES"
    assert open_output(specs.LabelsOutput(name="x", categories=("a",))).wire()[0].datatype == "BYTES"
    assert open_output(specs.NumberOutput(name="x")).wire()[0].datatype == "FP32"
    (tensor,) = open_output(specs.TensorOutput(name="x", datatype="int8", shape=(2, None))).wire()
    assert (tensor.datatype, tensor.shape) == ("INT8", (2, None))
