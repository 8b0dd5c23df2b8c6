"""Rows that come as columns, what is measured of a model, and the end of runs that do not end by themselves."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tests.fixtures.bundles import CITIES, Kind, png

from yunmo.bundle.manifest import Tensor, Tensors
from yunmo.core.errors import InvalidInput, ModelFailed
from yunmo.inference.predictor import Predictor
from yunmo.inference.session import Session

Open = Callable[[Kind], Predictor]

ages = st.one_of(st.floats(-1e6, 1e6), st.integers(-1000, 1000), st.none(), st.sampled_from(["3", " 4.5 ", "NA", ""]))
cities = st.one_of(st.sampled_from([*CITIES, "Atlantis", ""]), st.none(), st.text(max_size=5))
rows_of = st.lists(st.fixed_dictionaries({"age": ages, "city": cities}), min_size=1, max_size=6)


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert tensor.shape == other[name].shape
        assert tensor.tobytes() == other[name].tobytes()


def test_columns_are_encoded_as_rows_are(opened: Open) -> None:
    predictor = opened("table")

    @given(rows_of)
    def check(rows: list[dict[str, Any]]) -> None:
        columns = {name: [row[name] for row in rows] for name in ("city", "age")}  # their order does not matter
        same(predictor.encode_columns(columns, len(rows)), predictor.encode(rows))

    check()


def test_columns_may_be_arrays(opened: Open) -> None:
    predictor = opened("table")
    ages = [1.5, -2.0, float("nan")]
    rows = [{"age": age, "city": "Berlin"} for age in (1.5, -2.0, None)]
    for dtype in (np.float64, np.float32):
        arrays = {"age": np.array(ages, dtype), "city": ["Berlin"] * 3}
        same(predictor.encode_columns(arrays, 3), predictor.encode(rows))
    whole = {"age": np.array([1, 2, 3], np.int32), "city": np.array(["Berlin"] * 3, object)}
    same(predictor.encode_columns(whole, 3), predictor.encode([{"age": n, "city": "Berlin"} for n in (1, 2, 3)]))


def test_columns_of_pictures(opened: Open) -> None:
    predictor = opened("image")
    pictures = [png(10), base64.b64encode(png(20)).decode()]
    same(
        predictor.encode_columns({"image": pictures}, 2), predictor.encode([{"image": picture} for picture in pictures])
    )


@pytest.mark.parametrize(
    ("columns", "says", "where"),
    [
        ({"age": [1, 2]}, "missing field 'city'", None),
        ({"age": [1, 2], "city": ["x", "y"], "more": [1, 2]}, "unknown field 'more'", None),
        ({"age": [1], "city": ["x", "y"]}, "1 rows", "field age"),
        ({"age": [1, 2], "city": ["x", "y", "z"]}, "3 rows", "field city"),
        ({"age": [1, "old"], "city": ["x", "y"]}, "'old'", "row 1, field age"),
        ({"age": [1, True], "city": ["x", "y"]}, "True", "row 1, field age"),
        ({"age": np.array([1, np.inf]), "city": ["x", "y"]}, "inf", "row 1, field age"),
    ],
)
def test_columns_that_do_not_fit_are_refused(
    opened: Open, columns: dict[str, Any], says: str, where: str | None
) -> None:
    with pytest.raises(InvalidInput) as caught:
        opened("table").encode_columns(columns, 2)
    assert says in caught.value.message
    assert caught.value.where == where


@pytest.mark.parametrize("kind", ["table", "image"])
def test_what_is_measured_is_something_to_count_on(opened: Open, kind: Kind) -> None:
    predictor = opened(kind)
    assert 0 < predictor.run_seconds < 1
    assert predictor.batch_rows in (1, 2, 4, 8, 16)


def endless() -> Session:
    """Return a graph that counts to a number that nobody waits for."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Add", ["value", "one"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, ["batch"]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["batch"]),
        ],
        [numpy_helper.from_array(np.float32(1).reshape(1), "one")],
    )
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Cast", ["most"], ["turns"], to=TensorProto.INT64),
            helper.make_node("Loop", ["turns", "true", "x"], ["y"], body=body),
        ],
        "endless",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])],
        [numpy_helper.from_array(np.array(True), "true")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    tensors = Tensors((Tensor("x", "float32", ()),), (Tensor("y", "float32", ()),))
    return Session(model.SerializeToString(), tensors, threads=1)


def test_a_run_that_does_not_end_by_itself_ends_when_it_is_told_to(opened: Open) -> None:
    session, stop = endless(), opened("table").new_stop()
    assert session.run({"x": np.array([5], np.float32)}, stop)["y"].tolist() == [10]
    outcome: list[BaseException] = []
    began = threading.Event()

    def run() -> None:
        began.set()
        try:
            session.run({"x": np.array([1e15], np.float32)}, stop)  # some months
        except ModelFailed as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert began.wait(60)
    stop.set()
    thread.join(60)
    assert outcome
    with pytest.raises(ModelFailed):  # and so do those that begin after it
        session.run({"x": np.array([1e15], np.float32)}, stop)
    assert session.run({"x": np.array([5], np.float32)})["y"].tolist() == [10]  # others do not
