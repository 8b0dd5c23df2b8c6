from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.fixtures.bundles import CATEGORIES, Kind, make_bundle, png, table_rows

from yunmo.bundle.files import GOLDEN, GRAPH, MANIFEST, STATISTICS
from yunmo.bundle.sign import sign
from yunmo.core.errors import BodyTooLarge, BundleError, IntegrityError, InvalidInput, ModelFailed
from yunmo.core.fields import ImageField, InputField, TextField
from yunmo.core.files import file_digest
from yunmo.data.fields.registry import open_field
from yunmo.inference.predictor import CHUNK, Predictor

Open = Callable[[Kind], Predictor]
Keys = tuple[Path, str]


def tampered(folder: Path, keys: Keys, name: str, content: bytes) -> Path:
    """Change a file of a bundle as someone with the key could: manifest and signature fit again."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["files"][name] = {"sha256": file_digest(folder / name), "size": len(content)}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    sign(folder, keys[0])
    return folder


def test_a_table_row_gets_its_predictions(opened: Open) -> None:
    predictions = opened("table").predict(table_rows())
    assert len(predictions) == 3
    for prediction in predictions:
        label, price = prediction["label"], prediction["price"]
        assert list(label["probabilities"]) == list(CATEGORIES)
        assert label["probability"] == max(label["probabilities"].values()) == label["probabilities"][label["value"]]
        assert sum(label["probabilities"].values()) == pytest.approx(1)
        assert isinstance(price["value"], float)
    assert predictions[0] != predictions[1]
    msgspec.json.encode(predictions)  # plain data


@pytest.mark.parametrize(
    ("fields", "media", "found"),
    [
        ((TextField(name="x"),), "text/plain", "x"),
        ((TextField(name="x"),), "text/plain; charset=utf-8", "x"),
        ((TextField(name="x"),), "image/png", None),
        ((ImageField(name="x"),), "image/png", "x"),
        ((ImageField(name="x"),), "text/plain", None),
        ((TextField(name="x"), TextField(name="y")), "text/plain", None),
    ],
)
def test_one_text_or_picture_may_come_as_the_whole_body(
    opened: Open,
    monkeypatch: pytest.MonkeyPatch,
    fields: tuple[InputField, ...],
    media: str,
    found: str | None,
) -> None:
    predictor = opened("table")
    monkeypatch.setattr(predictor, "fields", {spec.name: open_field(spec) for spec in fields})
    assert predictor.single_input(media) == found
    assert (media.partition(";")[0] in predictor.raw_types) is (found is not None)


def test_a_picture_is_the_same_as_bytes_base64_and_pixels(opened: Open) -> None:
    forms: list[Any] = [png(90), base64.b64encode(png(90)).decode(), np.full((8, 8, 3), 90).tolist()]
    answers = opened("image").predict([{"image": form} for form in forms])
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("count", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_any_number_of_rows_is_answered_in_order(opened: Open, count: int) -> None:
    predictor = opened("table")
    rows = [{"age": age, "city": "Berlin"} for age in range(count)]
    together = predictor.predict(rows)
    assert [answer["price"]["value"] for answer in together] == pytest.approx(
        [predictor.predict([row])[0]["price"]["value"] for row in rows], rel=1e-5
    )
    if count:
        whole = predictor.run(predictor.encode(rows))
        assert predictor.decode(whole) == together


def test_streaming_answers_before_the_next_rows_are_read(opened: Open) -> None:
    read = []

    def rows() -> Any:
        for age in range(2 * CHUNK):
            read.append(age)
            yield {"age": age, "city": "Berlin"}

    stream = opened("table").stream(rows())
    next(stream)
    assert len(read) == CHUNK
    assert len(list(stream)) == 2 * CHUNK - 1


@pytest.mark.parametrize(
    ("row", "message", "where"),
    [
        ({"age": 1, "city": "Berlin", "size": 3}, "unknown field 'size'", "row 20"),
        ({"age": 1}, "missing field 'city'", "row 20"),
        ({}, "missing field 'age'", "row 20"),
        ({"age": "old", "city": "Berlin"}, "", "row 20, field age"),
        ({"age": [1], "city": "Berlin"}, "", "row 20, field age"),
        ({"age": float("inf"), "city": "Berlin"}, "", "row 20, field age"),
        ({"age": 1, "city": {"a": 1}}, "", "row 20, field city"),
    ],
)
def test_bad_input_names_row_and_field(opened: Open, row: dict[str, Any], message: str, where: str) -> None:
    rows = [table_rows()[0]] * 20
    with pytest.raises(InvalidInput) as caught:
        opened("table").predict([*rows, row, *rows])
    assert message in caught.value.message
    assert caught.value.where == where


@pytest.mark.parametrize("value", [None, b"", b"no picture", "not base64!", 7, [[1, 2], [3]], [[300]], png(1)[:45]])
def test_a_picture_that_is_none_is_said(opened: Open, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        opened("image").predict([{"image": png(1)}, {"image": value}])
    assert caught.value.where == "row 1, field image"


def test_a_picture_over_the_limit_is_refused(keys: Keys, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", kind="image", private_key=keys[0])
    predictor = Predictor.open(tmp_path / "bundle", public_key_pem=keys[1], max_pixels=100)
    with pytest.raises(BodyTooLarge) as caught:
        predictor.predict([{"image": png(1)}] * CHUNK + [{"image": png(1, size=11)}])
    assert caught.value.where == f"row {CHUNK}, field image"


def test_unknown_and_missing_values_are_answered(opened: Open) -> None:
    rows = [{"age": None, "city": "Atlantis"}, {"age": None, "city": None}]
    first, second = opened("table").predict(rows)
    assert first == second


def test_threads_get_their_own_answers(opened: Open) -> None:
    predictor = opened("table")
    alone = {age: predictor.predict([{"age": age, "city": "Berlin"}]) for age in range(40)}
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda age: predictor.predict([{"age": age % 40, "city": "Berlin"}]), range(800)))
    assert together == [alone[age % 40] for age in range(800)]


def test_an_answer_that_is_no_number_fails_and_does_not_go_out(opened: Open) -> None:
    predictor = opened("table")
    answers = predictor.run(predictor.encode(table_rows()))
    for bad in (np.nan, np.inf):
        with pytest.raises(ModelFailed, match="price"):
            predictor.decode(answers | {"price": np.array([1, bad, 1], np.float32)})


def test_tensors_that_do_not_fit_fail(opened: Open) -> None:
    with pytest.raises(ModelFailed):
        opened("table").run({"age": np.zeros((1, 2), np.float32), "city": np.zeros(1, np.int64)})


def test_schemas_say_what_is_taken_and_answered(opened: Open) -> None:
    predictor = opened("table")
    assert predictor.input_schema["required"] == ["age", "city"]
    assert predictor.input_schema["additionalProperties"] is False
    output = predictor.output_schema["properties"]
    assert output["label"]["properties"]["value"]["enum"] == list(CATEGORIES)
    assert output["price"]["properties"] == {"value": {"type": "number"}}
    assert [field.name for field in predictor.inputs] == ["age", "city"]


def test_a_raw_body_is_for_a_model_of_one_picture(opened: Open) -> None:
    assert opened("image").single_input("image/jpeg") == "image"
    assert opened("image").single_input("Image/PNG; q=1") == "image"
    assert opened("image").single_input("application/octet-stream") == "image"
    assert opened("image").single_input("text/plain") is None
    assert opened("table").single_input("image/jpeg") is None


def test_a_changed_byte_is_refused_at_open(keys: Keys, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", private_key=keys[0])
    graph = tmp_path / "bundle" / GRAPH
    graph.write_bytes(graph.read_bytes() + b" ")
    with pytest.raises(IntegrityError) as caught:
        Predictor.open(tmp_path / "bundle", public_key_pem=keys[1])
    assert caught.value.where == GRAPH


def test_an_unsigned_bundle_is_refused(keys: Keys, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    with pytest.raises(IntegrityError, match="missing"):
        Predictor.open(tmp_path / "bundle", public_key_pem=keys[1])


@pytest.mark.parametrize("kind", ["image", "table"])
def test_a_graph_that_misses_its_golden_answers_is_refused(keys: Keys, tmp_path: Path, kind: Kind) -> None:
    make_bundle(tmp_path / "bundle", kind=kind, private_key=keys[0])
    model = onnx.load(tmp_path / "bundle" / GRAPH)
    for tensor in model.graph.initializer:
        if tensor.name == "label.bias":
            tensor.CopyFrom(numpy_helper.from_array(np.array([0, 0, 0.001], np.float32), tensor.name))
    folder = tampered(tmp_path / "bundle", keys, GRAPH, model.SerializeToString())
    with pytest.raises(BundleError, match=r"'label' of golden example \d is off by 0\.000") as caught:
        Predictor.open(folder, public_key_pem=keys[1])
    assert caught.value.where == GOLDEN


def test_a_golden_example_that_cannot_be_encoded_refuses_the_bundle(keys: Keys, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", private_key=keys[0])
    golden = json.loads((tmp_path / "bundle" / GOLDEN).read_bytes())
    golden["rows"][0]["age"] = "old"
    folder = tampered(tmp_path / "bundle", keys, GOLDEN, json.dumps(golden).encode())
    with pytest.raises(BundleError, match="golden example"):
        Predictor.open(folder, public_key_pem=keys[1])


def test_golden_answers_of_another_shape_refuse_the_bundle(keys: Keys, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", private_key=keys[0])
    golden = json.loads((tmp_path / "bundle" / GOLDEN).read_bytes())
    del golden["answers"]["price"][0]
    folder = tampered(tmp_path / "bundle", keys, GOLDEN, json.dumps(golden).encode())
    with pytest.raises(BundleError, match="another shape"):
        Predictor.open(folder, public_key_pem=keys[1])


@pytest.mark.parametrize(("version", "remedy"), [(99, "Upgrade Yunmo"), (0, "Train it again")])
def test_another_encode_version_is_refused(keys: Keys, tmp_path: Path, version: int, remedy: str) -> None:
    folder = tmp_path / "bundle"
    make_bundle(folder, private_key=keys[0])
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["encode_versions"]["city"] = version
    (folder / MANIFEST).write_text(json.dumps(manifest))
    sign(folder, keys[0])
    with pytest.raises(BundleError, match=remedy) as caught:
        Predictor.open(folder, public_key_pem=keys[1])
    assert caught.value.where == "field city"


@pytest.mark.parametrize("content", [b"", b"no graph"])
def test_a_graph_that_cannot_be_loaded_is_refused(keys: Keys, tmp_path: Path, content: bytes) -> None:
    make_bundle(tmp_path / "bundle", private_key=keys[0])
    folder = tampered(tmp_path / "bundle", keys, GRAPH, content)
    with pytest.raises(BundleError) as caught:
        Predictor.open(folder, public_key_pem=keys[1])
    assert caught.value.where == GRAPH


def test_a_graph_with_other_inputs_is_refused(keys: Keys, tmp_path: Path) -> None:
    make_bundle(tmp_path / "image", kind="image", private_key=keys[0])
    make_bundle(tmp_path / "table", private_key=keys[0])
    folder = tampered(tmp_path / "table", keys, GRAPH, (tmp_path / "image" / GRAPH).read_bytes())
    with pytest.raises(BundleError, match=r"inputs \['image'\]"):
        Predictor.open(folder, public_key_pem=keys[1])


def test_statistics_that_are_missing_refuse_the_bundle(keys: Keys, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", private_key=keys[0])
    folder = tampered(tmp_path / "bundle", keys, STATISTICS, b"{}")
    with pytest.raises(BundleError):
        Predictor.open(folder, public_key_pem=keys[1])


def test_versions_can_be_told_apart(keys: Keys, tmp_path: Path) -> None:
    """What rollout tests lean on."""
    for name in CATEGORIES:
        make_bundle(tmp_path / name, kind="image", private_key=keys[0], always=name)
        predictor = Predictor.open(tmp_path / name, public_key_pem=keys[1])
        assert predictor.predict([{"image": png(sys.maxsize % 200)}])[0]["label"]["value"] == name
