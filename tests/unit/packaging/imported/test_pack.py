"""What becomes of good files: fields joined to the graph give the answers that the graph gives by itself."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from PIL import Image
from tests.fixtures.onnx_files import CLASSES, WIDTH, array, linear, model, save, unary, value

from yunmo.bundle.files import BOM, GRAPH, IMPORTED_CONTENT, MANIFEST, REPORT
from yunmo.bundle.sign import new_key_pair, sign
from yunmo.core.errors import BundleError, InvalidInput
from yunmo.core.fields import JOINED_NUMBERS
from yunmo.inference.predictor import Predictor
from yunmo.packaging.imported.description import description_from
from yunmo.packaging.imported.pack import pack_imported

X = [0.5, -1.0, 2.0, 0.25]


class Importer:
    """Imports models and opens them as serving does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.private, self.public = folder / "signing.key", ""
        pem, self.public = new_key_pair()
        self.private.write_text(pem)
        self.count = 0

    def pack(self, made: onnx.ModelProto, fields: dict[str, Any] | None = None) -> Path:
        self.count += 1
        bundle = self.folder / f"bundle{self.count}"
        file = save(made, self.folder / "model.onnx")
        pack_imported(file, bundle, name="made", description=description_from(fields or {}))
        return bundle

    def open(self, made: onnx.ModelProto, fields: dict[str, Any] | None = None) -> Predictor:
        bundle = self.pack(made, fields)
        sign(bundle, self.private)
        return Predictor.open(bundle, public_key_pem=self.public)


@pytest.fixture
def importer(tmp_path: Path) -> Importer:
    return Importer(tmp_path)


def alone(made: onnx.ModelProto, **inputs: Any) -> list[Any]:
    """Return what ONNX Runtime alone answers."""
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def softmax(scores: Any) -> Any:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def probabilities(row: dict[str, Any], name: str) -> list[float]:
    return list(row[name]["probabilities"].values())


def test_without_a_description_tensors_go_in_and_out(importer: Importer) -> None:
    made = linear()
    predictor = importer.open(made)
    expected = alone(made, x=np.array([X, X[::-1]], np.float32))[0]
    found = predictor.predict([{"x": X}, {"x": X[::-1]}])
    assert np.allclose([row["scores"]["value"] for row in found], expected, atol=1e-6)
    assert predictor.manifest.origin == "imported"
    assert predictor.output_schema["properties"]["scores"]["properties"]["value"]["minItems"] == CLASSES


def test_its_bundle_says_where_it_comes_from(importer: Importer) -> None:
    bundle = importer.pack(linear())
    assert {file.name for file in bundle.iterdir()} == {*IMPORTED_CONTENT, BOM, MANIFEST}
    report = msgspec.json.decode((bundle / REPORT).read_bytes())
    assert report["origin"] == "imported"
    assert report["file"]["filename"] == "model.onnx"
    assert report["file"]["producer"] == "tests"
    assert len(report["file"]["sha256"]) == 64
    assert report["checks"]
    assert "SHA-256" in (bundle / "README.md").read_text()


def test_the_same_file_makes_the_same_bundle(importer: Importer) -> None:
    first, second = importer.pack(linear()), importer.pack(linear())
    assert (first / MANIFEST).read_bytes() == (second / MANIFEST).read_bytes()


@pytest.mark.parametrize(
    ("datatype", "content"),
    [
        ("bool", [True, False]),
        *((f"{kind}{bits}", [1, 2]) for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
        ("float16", [0.5, -1.0]),
        ("float64", [0.1, 1e300]),
        ("string", ["a", "云模"]),
    ],
)
def test_every_datatype_goes_in_and_out(datatype: str, content: list[Any], importer: Importer) -> None:
    element = next(
        number
        for name, number in {
            "float16": TensorProto.FLOAT16,
            "float64": TensorProto.DOUBLE,
            **{name.lower(): number for name, number in TensorProto.DataType.items()},
        }.items()
        if name == datatype
    )
    predictor = importer.open(unary("Identity", element=element, shape=["n", 2]))
    (row,) = predictor.predict([{"x": content}])
    assert row["y"]["value"] == content


def test_answers_that_are_not_finite_are_null(importer: Importer) -> None:
    predictor = importer.open(unary("Log", shape=["n", 3]))
    (row,) = predictor.predict([{"x": [-1.0, 0.0, 1.0]}])
    assert row["y"]["value"] == [None, None, 0.0]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_a_picture_is_scaled_and_turned_into_the_graphs_tensor(layout: str, color: str, importer: Importer) -> None:
    channels = 1 if color == "gray" else 3
    sizes = [channels, 5, 7] if layout == "NCHW" else [5, 7, channels]
    made = unary("Identity", shape=["n", *sizes])
    mean, deviation = [0.4, 0.5, 0.6][:channels], [0.2, 0.25, 0.3][:channels]
    field = {"name": "photo", "type": "image", "color": color, "layout": layout}
    field["scale"] = {"divide": 255, "mean": mean, "deviation": deviation}
    predictor = importer.open(made, {"inputs": [field]})
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(buffer, "PNG")
    (row,) = predictor.predict([{"photo": base64.b64encode(buffer.getvalue()).decode()}])
    ordered = pixels[..., ::-1] if color == "bgr" else pixels
    expected = (ordered / 255 - mean) / deviation
    assert np.allclose(row["y"]["value"], expected.transpose(2, 0, 1) if layout == "NCHW" else expected, atol=1e-5)


def test_numbers_vectors_and_categories_fill_columns_in_the_order_said(importer: Importer) -> None:
    made = unary("Identity", shape=["n", 7])
    predictor = importer.open(
        made,
        {
            "inputs": [
                {"name": "age", "type": "number", "columns": 6, "missing": 40},
                {"name": "city", "type": "category", "categories": ["A", "B"], "as": "one_hot", "columns": [0, 2]},
                {"name": "kind", "type": "category", "categories": [7, 8], "as": "index", "unknown": -1, "columns": 1},
                {"name": "rest", "type": "vector", "length": 3, "columns": [3, 4, 5]},
            ]
        },
    )
    rows = [
        {"age": 31.5, "city": "B", "kind": 8, "rest": [1, 2, 3]},
        {"age": None, "city": "C", "kind": "9", "rest": [4, 5, 6]},
    ]
    first, second = (row["y"]["value"] for row in predictor.predict(rows))
    assert first == [0, 1, 1, 1, 2, 3, 31.5]
    assert second == [0, -1, 0, 4, 5, 6, 40]


def test_numbers_of_several_tensors_share_one(importer: Importer) -> None:
    made = model(
        [
            helper.make_node("Cast", ["right"], ["same"], to=TensorProto.FLOAT),
            helper.make_node("Concat", ["left", "same"], ["y"], axis=1),
        ],
        inputs=[value("left", ["n", 4]), value("right", ["n", 2], TensorProto.DOUBLE)],
        outputs=[value("y", ["n", 6])],
    )
    numbers = [{"name": name, "type": "number", "tensor": "left"} for name in ("a", "b", "c")]
    city = {
        "name": "city",
        "type": "category",
        "categories": ["A", "B"],
        "as": "index",
        "unknown": -1,
        "tensor": "left",
    }
    right = [{"name": name, "type": "number", "missing": 9, "tensor": "right"} for name in ("d", "e")]
    predictor = importer.open(made, {"inputs": [right[0], *numbers[:2], city, numbers[2], right[1]]})
    assert predictor.manifest.tensors.joined == ("d", "a", "b", "c", "e")
    assert [tensor.name for tensor in predictor.manifest.tensors.inputs] == [JOINED_NUMBERS, "city"]
    row = {"a": 1, "b": 2, "c": 3, "d": None, "e": 5, "city": "B"}
    assert [one["y"]["value"] for one in predictor.predict([row, {**row, "a": "-1"}])] == [
        [1, 2, 1, 3, 9, 5],
        [-1, 2, 1, 3, 9, 5],
    ]


def test_texts_reach_the_graph_as_they_are(importer: Importer) -> None:
    made = unary("Identity", element=TensorProto.STRING, shape=["n", 1])
    field = {"name": "city", "type": "category", "categories": ["Berlin", "北京"], "unknown": "?", "tensor": "x"}
    predictor = importer.open(made, {"inputs": [field]})
    found = predictor.predict([{"city": "北京"}, {"city": "Rome"}, {"city": None}])
    assert [row["y"]["value"] for row in found] == [["北京"], ["?"], ["?"]]


@pytest.mark.parametrize("form", ["logits", "probabilities"])
def test_scores_become_a_category(form: str, importer: Importer) -> None:
    made = linear(softmax=form == "probabilities")
    answer = {"name": "label", "type": "category", "categories": ["a", "b", "c"], "from": form}
    predictor = importer.open(made, {"outputs": [answer]})
    (row,) = predictor.predict([{"x": X}])
    expected = alone(made, x=np.array([X], np.float32))[0][0]
    expected = softmax(expected) if form == "logits" else expected
    assert np.allclose(probabilities(row, "label"), expected, atol=1e-6)
    assert row["label"]["value"] == "abc"[int(expected.argmax())]


def test_one_score_is_the_second_of_two_classes(importer: Importer) -> None:
    answer = {"name": "y2", "type": "category", "categories": ["no", "yes"], "from": "logits"}
    predictor = importer.open(unary("Identity", shape=["n", 1]), {"outputs": [answer]})
    (row,) = predictor.predict([{"x": [2.0]}])
    assert np.isclose(row["y2"]["probability"], 1 / (1 + np.exp(-2)))
    assert row["y2"]["value"] == "yes"


@pytest.mark.parametrize(
    ("form", "element", "categories", "answer"),
    [
        ("index", TensorProto.INT64, ["a", "b"], 1),
        ("label", TensorProto.INT32, [7, 1], 1),
        ("label", TensorProto.STRING, ["x", "y"], "y"),
    ],
)
def test_the_best_class_becomes_a_category(
    form: str, element: int, categories: list[Any], answer: Any, importer: Importer
) -> None:
    fields = {
        "outputs": [{"name": "label", "type": "category", "categories": categories, "from": form}],
        "examples": [{"x": answer}],
    }
    predictor = importer.open(unary("Identity", element=element, shape=["n"]), fields)
    (row,) = predictor.predict([{"x": answer}])
    assert row["label"]["value"] == str(categories[1])
    assert probabilities(row, "label") == [0, 1]


def test_a_number_comes_of_a_column(importer: Importer) -> None:
    made = linear()
    fields = {"outputs": [{"name": "price", "type": "number", "tensor": "scores", "column": 2}]}
    (row,) = importer.open(made, fields).predict([{"x": X}])
    assert np.isclose(row["price"]["value"], alone(made, x=np.array([X], np.float32))[0][0, 2])


def test_fields_may_have_names_of_values_within_the_graph(importer: Importer) -> None:
    made = linear(softmax=True)
    fields = {
        "inputs": [{"name": "weight", "type": "vector", "length": WIDTH, "tensor": "x"}],
        "outputs": [{"name": "raw", "type": "category", "tensor": "scores", "categories": ["a", "b", "x"]}],
    }
    (row,) = importer.open(made, fields).predict([{"weight": X}])
    assert np.allclose(probabilities(row, "raw"), alone(made, x=np.array([X], np.float32))[0][0], atol=1e-6)


def test_tensors_may_be_renamed_even_to_each_others_names(importer: Importer) -> None:
    made = model(
        [helper.make_node("Sub", ["a", "b"], ["c"])],
        inputs=[value("a", ["n", 1]), value("b", ["n", 1])],
        outputs=[value("c", ["n", 1])],
    )
    fields = {
        "inputs": [{"name": "b", "type": "tensor", "tensor": "a"}, {"name": "a", "type": "tensor", "tensor": "b"}],
        "outputs": [{"name": "d", "type": "tensor", "tensor": "c"}],
    }
    (row,) = importer.open(made, fields).predict([{"a": [1], "b": [10]}])
    assert row["d"]["value"] == [9]


@pytest.mark.parametrize("reshaped", [False, True], ids=["inputs", "reshapes"])
def test_a_fixed_batch_of_one_becomes_free(reshaped: bool, importer: Importer) -> None:
    made = linear(batch=1)
    if reshaped:
        made.graph.input[0].CopyFrom(value("x", [1, 2, 2]))
        made.graph.node[0].input[0] = "flat"
        made.graph.node.insert(0, helper.make_node("Reshape", ["x", "sizes"], ["flat"]))
        made.graph.initializer.append(array("sizes", np.array([1, WIDTH], np.int64)))
    predictor = importer.open(made)
    x = np.array(X, np.float32).reshape(2, 2) if reshaped else np.array(X, np.float32)
    found = predictor.predict([{"x": (x * factor).tolist()} for factor in (1, 2, 3)])
    for factor, row in zip((1, 2, 3), found, strict=True):
        expected = alone(made, x=(x * factor)[None].astype(np.float32))[0][0]
        assert np.allclose(row["scores"]["value"], expected, atol=1e-5)


def test_axes_left_open_take_any_size(importer: Importer) -> None:
    made = unary("Relu", shape=["n", "steps", 3])
    predictor = importer.open(made)
    for steps in (1, 5):
        (row,) = predictor.predict([{"x": [[1.0, -1.0, 0.0]] * steps}])
        assert row["y"]["value"] == [[1, 0, 0]] * steps
    assert predictor.manifest.tensors.outputs[0].shape == (None, 3)


def test_a_shape_that_the_graph_does_not_tell_is_asked_for(importer: Importer) -> None:
    made = unary("Relu", shape=["n", 3])
    made.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(BundleError, match="does not tell the shape") as refused:
        importer.pack(made)
    assert "shape: [3, null]" in str(refused.value)
    predictor = importer.open(made, {"inputs": [{"name": "x", "type": "tensor", "shape": [2]}]})
    assert predictor.predict([{"x": [-1, 1]}])[0]["y"]["value"] == [0, 1]


def test_examples_are_used_where_made_up_rows_fail(importer: Importer) -> None:
    made = model(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        inputs=[value("x", ["n"], TensorProto.INT64)],
        outputs=[value("y", ["n"])],
        initializers=[array("table", np.array([5.0], np.float32))],
    )
    with pytest.raises(BundleError, match="it fails on made-up values") as refused:
        importer.pack(made)
    assert "examples" in str(refused.value)
    predictor = importer.open(made, {"examples": [{"x": 0}]})
    assert predictor.predict([{"x": 0}])[0]["y"]["value"] == 5


def category(**keys: Any) -> dict[str, Any]:
    return {"outputs": [{"name": "l", "type": "category", "categories": ["a", "b", "c"], **keys}]}


def inputs(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"inputs": list(fields)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inptus": []}, "unknown key 'inptus'.*Did you mean 'inputs'"),
        (inputs({"name": "x", "type": "tensr"}), "unknown type 'tensr'"),
        (inputs({"name": "x", "type": "tensor", "siez": 3}), "unknown key 'siez'"),
        (inputs(), "names no field"),
        (inputs({"name": "q", "type": "number", "tensor": "z"}), "the graph has no input 'z'"),
        (inputs({"name": "q", "type": "number"}), "fill 1 columns of the tensor 'x', which has 4"),
        (inputs({"name": "x", "type": "tensor"}, {"name": "q", "type": "number", "tensor": "x"}), "2 fields for"),
        (inputs({"name": "x", "type": "tensor", "shape": [5]}), r"shape \[5\] where the tensor 'x' has \[4\]"),
        (inputs({"name": "p", "type": "image", "size": 8}), "has the shape"),
        (inputs({"name": "v", "type": "vector", "length": 4, "columns": [0, 1, 2, 2]}), "left out or taken twice"),
        (inputs({"name": "v", "type": "vector", "length": 4, "columns": [0, 1]}), "2 columns for a field that fills 4"),
        (inputs({"name": "c", "type": "category", "categories": ["a"]}), "does not say what the graph takes"),
        (
            inputs({"name": "c", "type": "category", "categories": ["a"], "as": "index"}),
            "what stands for a category that is not listed",
        ),
        (inputs({"name": "c", "type": "category", "categories": ["a"], "as": "text"}), "as: text, and the tensor"),
        ({**inputs({"name": "l", "type": "tensor", "tensor": "x"}), **category()}, "two fields are called 'l'"),
        (category(categories=["a", "b"]), "2 categories for the tensor 'scores', which has 3 columns"),
        (category(categories=["a", "a", "b"]), "one twice"),
        (category(categories=[True, False, "x"]), "read as true or false"),
        (category(), "are no probabilities"),
        (category(**{"from": "index"}), "is of float32, and no index"),
        ({"outputs": [{"name": "n", "type": "number"}]}, r"has the shape \[3\] for each row, and is no number"),
        ({"examples": [{"y": 1}]}, "the fields are x"),
        ({"examples": [{"x": [1, 2]}]}, r"shape \[2\]"),
    ],
)
def test_a_description_that_does_not_fit_says_why(fields: dict[str, Any], message: str, importer: Importer) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        importer.pack(linear(), fields)
    assert "\n" not in str(refused.value)
    assert not (importer.folder / "bundle1").exists()


def test_a_dropped_output_is_not_computed(importer: Importer) -> None:
    made = linear()
    made.graph.node.append(helper.make_node("Relu", ["scores"], ["more"]))
    made.graph.output.append(value("more", None))
    bundle = importer.pack(made, {"outputs": [{"name": "scores", "type": "tensor"}]})
    assert [one.name for one in onnx.load(bundle / GRAPH).graph.output] == ["scores"]
