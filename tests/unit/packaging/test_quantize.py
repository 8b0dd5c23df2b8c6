"""Int8: smaller graphs whose answers are near the network's, and the same whoever is asked beside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from tests.unit.packaging.conftest import BOTH, TOPICS, Trained, columns, table
from tests.unit.packaging.test_pack import opened

from yunmo.bundle.files import CARD, GOLDEN, GRAPH, REPORT
from yunmo.core.encoders import TransformerEncoder
from yunmo.core.errors import ParityError
from yunmo.core.fields import TextField
from yunmo.core.recipe import CombineSpec, PackSpec
from yunmo.core.tokenizers import SubwordTokenizer
from yunmo.data.fields.registry import open_field, open_output
from yunmo.packaging.pack import pack
from yunmo.packaging.quantize import quantize_graph

Make = Callable[..., Trained]
TEXT = TextField(
    name="words",
    tokenizer=SubwordTokenizer(vocabulary=40),
    embedding=32,
    encoder=TransformerEncoder(heads=2, layers=1, feed_forward=64),
)


def packed(trained: Trained, out: Path) -> Path:
    recipe = msgspec.structs.replace(trained.recipe, pack=PackSpec(precision="int8"))
    values = columns()
    inputs: dict[str, Any] = {}
    for field in recipe.inputs or ():
        inputs |= open_field(field, trained.statistics[field.name]).encode(values[field.name])
    truth: dict[str, Any] = {}
    for output in recipe.outputs or ():
        truth |= open_output(output, trained.statistics[output.name]).encode(values[output.name])
    report = dict(trained.report)
    return pack(
        trained, recipe, trained.weights, report, "<!doctype html>", out, name="pets", validation=(inputs, truth)
    )


def test_a_transformer_in_int8_answers_nearly_as_before_and_says_what_it_costs(make: Make, tmp_path: Path) -> None:
    trained = make(TEXT, outputs=(*BOTH, *TOPICS))
    folder = packed(trained, tmp_path / "bundle")
    kinds = {node.op_type for node in onnx.load(folder / GRAPH).graph.node}
    assert kinds & {"MatMulInteger", "DynamicQuantizeMatMul"}
    report = msgspec.json.decode((folder / REPORT).read_bytes())
    found = report["quantized"]
    assert found["rows"] == 6
    assert found["bytes"][1] < found["bytes"][0]
    assert 0 <= found["outputs"]["label"]["changed"] <= 1
    assert found["outputs"]["topics"]["metric"] == "f1_micro"
    assert 0 <= found["outputs"]["topics"]["changed"] <= 1
    assert {"metric", "fp32", "int8"} <= found["outputs"]["price"].keys()
    assert report["decisions"][-1]["key"] == "pack.precision"
    assert "on 6 validation rows" in (folder / CARD).read_text()
    predictor = opened(folder)
    texts = ["a cat", "", "the dog and the cat, of course", "一只狗"] * 5
    together = predictor.predict([{"words": text} for text in texts])
    alone = [predictor.predict([{"words": text}])[0] for text in texts]
    assert together == alone
    golden = msgspec.json.decode((folder / GOLDEN).read_bytes())
    answers = [list(row["label"]["probabilities"].values()) for row in predictor.predict(golden["rows"])]
    assert np.abs(np.array(answers) - np.array(golden["answers"]["label"])).max() == 0
    plain = opened(pack(trained, trained.recipe, trained.weights, trained.report, "", tmp_path / "plain", name="pets"))
    near = [list(row["label"]["probabilities"].values()) for row in plain.predict(golden["rows"])]
    assert 0 < np.abs(np.array(answers) - np.array(near)).max() < 0.05


def test_a_table_with_numbers_side_by_side(make: Make, tmp_path: Path) -> None:
    trained = make(*table(), outputs=BOTH, combine=CombineSpec(hidden=(16,)))
    predictor = opened(packed(trained, tmp_path / "bundle"))
    assert predictor.predict(trained.examples) == [predictor.predict([row])[0] for row in trained.examples]


def test_a_graph_without_a_product_is_refused() -> None:
    with pytest.raises(ParityError, match="cannot be quantised"):
        quantize_graph(b"no graph")
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 2]) for name in ("x", "y")]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", value[:1], value[1:]))
    with pytest.raises(ParityError, match="no product with weights"):
        quantize_graph(model.SerializeToString())
