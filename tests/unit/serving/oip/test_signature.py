from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.fixtures.bundles import CATEGORIES

from yunmo.core.errors import InvalidInput, ModelFailed
from yunmo.core.snapshot import Deployment
from yunmo.inference.predictor import Predictor
from yunmo.protocol.tensors import from_raw
from yunmo.serving.oip.signature import Tensor, answer, dimensions, row_count, signature


@pytest.fixture(scope="module")
def table(bundles: dict[str, Deployment], signer: tuple[Path, str]) -> Iterator[Predictor]:
    return Predictor.open(Path(bundles["cat"].live.path), public_key_pem=signer[1])


@pytest.fixture(scope="module")
def picture(bundles: dict[str, Deployment], signer: tuple[Path, str]) -> Predictor:
    return Predictor.open(Path(bundles["image"].live.path), public_key_pem=signer[1])


def texts(*values: bytes) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def test_fields_and_answers_as_tensors(table: Predictor, picture: Predictor) -> None:
    form = signature(table)
    assert signature(table) is form
    assert {name: (wires[0].datatype, dimensions(wires[0])) for name, wires in form.inputs.items()} == {
        "age": ("FP64", [-1]),
        "city": ("BYTES", [-1]),
    }
    assert [(each.name, each.wire.datatype, dimensions(each.wire)) for each in form.outputs.values()] == [
        ("label", "BYTES", [-1]),
        ("label.probabilities", "FP32", [-1, 3]),
        ("price", "FP32", [-1]),
    ]
    assert [(each.datatype, each.shape) for each in signature(picture).inputs["image"]] == [
        ("UINT8", (8, 8, 3)),
        ("BYTES", ()),
    ]


def test_columns_encode_as_rows_do(table: Predictor) -> None:
    tensors = [
        Tensor("city", "BYTES", texts(b"Berlin", b"", b"Atlantis")),
        Tensor("age", "FP32", np.array([31.5, np.nan, 70], np.float32)),
    ]
    columns = table.encode_columns(signature(table).columns(tensors), 3)
    rows = table.encode([{"age": 31.5, "city": "Berlin"}, {"age": None, "city": None}, {"age": 70, "city": "Atlantis"}])
    assert {name: array.tolist() for name, array in columns.items()} == {
        name: array.tolist() for name, array in rows.items()
    }


def test_pixels_are_used_as_they_came(picture: Predictor) -> None:
    data = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).tobytes()
    array = from_raw("UINT8", [2, 8, 8, 3], data)
    encoded = picture.encode_columns(signature(picture).columns([Tensor("image", "UINT8", array)]), 2)["image"]
    assert np.shares_memory(encoded, array)


def test_labels_are_those_of_the_largest_probability(table: Predictor) -> None:
    form = signature(table)
    tensors = {"label": np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]], np.float32), "price": np.zeros(2, np.float32)}
    assert answer(form.outputs["label"], tensors).array.tolist() == [CATEGORIES[1], CATEGORIES[0]]
    assert answer(form.outputs["label.probabilities"], tensors).array is tensors["label"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_a_failure(table: Predictor, value: float) -> None:
    tensors = {"label": np.full((1, 3), value, np.float32), "price": np.full(1, value, np.float32)}
    for output in signature(table).outputs.values():
        with pytest.raises(ModelFailed):
            answer(output, tensors)


def test_outputs_are_chosen_by_name(table: Predictor) -> None:
    form = signature(table)
    assert [each.name for each in form.choose(["price", "label"])] == ["price", "label"]
    assert len(form.choose([])) == len(form.choose(None)) == 3
    with pytest.raises(InvalidInput, match="unknown output 'x'"):
        form.choose(["x"])
    with pytest.raises(InvalidInput, match="twice"):
        form.choose(["price", "price"])


def test_one_row_of_the_one_input(picture: Predictor, table: Predictor) -> None:
    assert signature(picture).single(memoryview(b"file")) == {"image": [b"file"]}
    with pytest.raises(InvalidInput, match="one input"):
        signature(table).single(memoryview(b""))


def test_rows_are_the_first_dimension() -> None:
    assert row_count([Tensor("a", "FP32", np.zeros((3, 2), np.float32)), Tensor("b", "FP32", np.zeros(3))]) == 3
    with pytest.raises(InvalidInput, match="input b: 2 rows where input 'a' has 3"):
        row_count([Tensor("a", "FP32", np.zeros(3)), Tensor("b", "FP32", np.zeros(2))])
    with pytest.raises(InvalidInput, match="without dimensions"):
        row_count([Tensor("a", "FP32", np.zeros(()))])
    with pytest.raises(InvalidInput, match="no inputs"):
        row_count([])


def test_a_signature_does_not_keep_its_model(bundles: dict[str, Deployment], signer: tuple[Path, str]) -> None:
    predictor = Predictor.open(Path(bundles["dog"].live.path), public_key_pem=signer[1])
    signature(predictor)
    gone = weakref.ref(predictor)
    del predictor
    gc.collect()
    assert gone() is None
