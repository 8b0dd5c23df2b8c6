from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.unit.packaging.conftest import BOTH, NETWORKS, TOPICS, Trained, image, steps, table

from yunmo.bundle.files import BOM, CONTENT, GRAPH, MANIFEST, WEIGHTS
from yunmo.bundle.manifest import FORMAT_VERSION, decode_manifest
from yunmo.bundle.sign import new_key_pair, sign
from yunmo.core.encoders import FlatEncoder, RnnEncoder, TextCnnEncoder
from yunmo.core.errors import BundleError, InvalidInput, ParityError
from yunmo.core.fields import JOINED_NUMBERS, Embeddings, NumberField, TextField
from yunmo.core.recipe import CombineSpec
from yunmo.core.tokenizers import WordTokenizer
from yunmo.data.fields.registry import open_field
from yunmo.inference.predictor import Predictor
from yunmo.models.network import Network
from yunmo.packaging.pack import pack
from yunmo.serving.oip.signature import answer as answer_of
from yunmo.serving.oip.signature import signature
from yunmo.serving.shadow import agree

Make = Callable[..., Trained]


def packed(trained: Trained, out: Path) -> Path:
    return pack(trained, trained.recipe, trained.weights, trained.report, "<!doctype html>", out, name="pets")


def opened(folder: Path) -> Predictor:
    private, public = new_key_pair()
    key = folder.parent / "signing.key"
    key.write_text(private)
    sign(folder, key)
    return Predictor.open(folder, public_key_pem=public)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_packed_network_answers_as_the_trained_one(make: Make, tmp_path: Path, kind: str) -> None:
    inputs, outputs = NETWORKS[kind]
    trained = make(*inputs, outputs=outputs)
    folder = packed(trained, tmp_path / "out" / "bundle")
    assert {path.name for path in folder.iterdir()} == {*CONTENT, BOM, MANIFEST}
    assert (folder / WEIGHTS).read_bytes() == trained.weights.read_bytes()
    assert list(folder.parent.iterdir()) == [folder]
    predictor = opened(folder)
    rows = [trained.examples[index % len(trained.examples)] for index in range(19)]
    predictions = predictor.predict(rows)
    network = Network(trained.recipe, trained.statistics).eval()
    network.load_state_dict(load_file(trained.weights))
    encoded = {name: torch.from_numpy(value) for name, value in predictor.encode(rows).items()}
    with torch.no_grad():
        answers = network.predict(encoded)
    for output in outputs:
        expected = answers[output.name].numpy()
        if "probabilities" in predictions[0][output.name]:
            found = [list(row[output.name]["probabilities"].values()) for row in predictions]
            np.testing.assert_allclose(found, expected, atol=1e-5)
        else:
            found = [row[output.name]["value"] for row in predictions]
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=0.01)  # prices deviate by 800


def test_labels_are_answered_from_their_threshold_on(make: Make, tmp_path: Path) -> None:
    trained = make(*table(), outputs=TOPICS)
    predictor = opened(packed(trained, tmp_path / "bundle"))
    answers = [row["topics"] for row in predictor.predict(trained.examples)]
    for answer in answers:
        assert answer["value"] == [name for name, share in answer["probabilities"].items() if share >= 0.4]
    assert len({len(answer["value"]) for answer in answers}) > 1
    form = signature(predictor)
    probabilities = predictor.run(predictor.encode(trained.examples))
    assert list(form.outputs) == ["topics", "topics.probabilities"]
    joined, shares = (answer_of(each, probabilities) for each in form.outputs.values())
    assert (joined.datatype, shares.datatype) == ("BYTES", "FP32")
    assert joined.array.tolist() == [";".join(answer["value"]) for answer in answers]
    assert shares.array.shape == (len(answers), 3)
    schema = predictor.output_schema["properties"]["topics"]
    assert schema["properties"]["value"]["items"]["enum"] == ["a", "b", "c"]
    assert "at least 0.4" in schema["properties"]["value"]["description"]
    assert agree(predictor, probabilities, predictor, probabilities) is True
    other = {"topics": 1 - probabilities["topics"]}
    assert agree(predictor, probabilities, predictor, other) is False


def test_a_network_of_several_members_is_packed(make: Make, tmp_path: Path) -> None:
    combine = CombineSpec(hidden=(4, 4), members=3, linear=True, batch_norm=True)
    trained = make(*table(), outputs=(*BOTH, *TOPICS), combine=combine)
    assert len(opened(packed(trained, tmp_path / "bundle")).predict(trained.examples)) == len(trained.examples)


def test_the_graph_has_the_fields_names_and_says_nothing_of_the_machine(make: Make, tmp_path: Path) -> None:
    folder = packed(make(*table(), outputs=BOTH), tmp_path / "bundle")
    model = onnx.load(folder / GRAPH)
    assert [node.name for node in model.graph.input] == ["age (years)", "city", "born", "vector"]
    assert [node.name for node in model.graph.output] == ["label", "price"]
    assert b".py" not in (folder / GRAPH).read_bytes()
    onnx.checker.check_model(model, full_check=True)


def test_numbers_share_a_tensor_and_count_as_each_by_itself(make: Make, tmp_path: Path) -> None:
    # "price" and "age (years)" differ in scale and in what stands for a missing one; "city" comes between them.
    price = NumberField(name="price", missing="constant", constant=7.0, encoder=FlatEncoder(clip=2.0))
    trained = make(price, *table()[:2])
    folder = packed(trained, tmp_path / "bundle")
    manifest = decode_manifest((folder / MANIFEST).read_bytes())
    assert manifest.tensors.joined == ("price", "age (years)")
    assert manifest.format_version == FORMAT_VERSION
    assert [node.name for node in onnx.load(folder / GRAPH).graph.input] == [JOINED_NUMBERS, "city"]
    predictor = opened(folder)
    network = Network(trained.recipe, trained.statistics).eval()
    network.load_state_dict(load_file(trained.weights))
    # The last two are texts, which each field has to read by itself.
    for row in (*trained.examples, {"price": None, "age (years)": 1e6, "city": None}, text_row("1"), text_row("")):
        tensors = {}
        for spec in trained.recipe.inputs or ():
            tensors |= open_field(spec, trained.statistics[spec.name]).encode([row[spec.name]])
        with torch.no_grad():
            expected = network.predict({name: torch.from_numpy(value) for name, value in tensors.items()})["label"]
        found = list(predictor.predict([row])[0]["label"]["probabilities"].values())
        np.testing.assert_allclose(found, expected.numpy()[0], atol=1e-6)
        columns = {name: [value] for name, value in row.items()}
        np.testing.assert_array_equal(
            predictor.encode_columns(columns, 1)[JOINED_NUMBERS], predictor.encode([row])[JOINED_NUMBERS]
        )
    with pytest.raises(InvalidInput, match="row 1, field age"):
        predictor.predict([trained.examples[0], {**trained.examples[0], "age (years)": "old"}])


def text_row(number: str) -> dict[str, str]:
    return {"price": number, "age (years)": number, "city": "Rome"}


def test_packing_again_gives_the_same_bundle(make: Make, tmp_path: Path) -> None:
    trained = make(*table(), outputs=BOTH)
    out = tmp_path / "bundle"
    first = (packed(trained, out) / MANIFEST).read_bytes()
    assert (packed(trained, out) / MANIFEST).read_bytes() == first


def test_a_sequence_of_any_length_runs(make: Make, tmp_path: Path) -> None:
    folder = packed(make(steps(RnnEncoder(cell="rnn", hidden=4))), tmp_path / "bundle")
    session = ort.InferenceSession(folder / GRAPH)
    for length in (1, 4, 50):
        tensors = {"steps": np.ones((2, length, 2), np.float32), "steps_length": np.array([length, 1])}
        assert session.run(["label"], tensors)[0].shape == (2, 3)


def test_weights_of_another_network_are_refused_and_nothing_is_left(make: Make, tmp_path: Path) -> None:
    trained = make(*table())
    save_file({"other": torch.zeros(1)}, trained.weights)
    with pytest.raises(BundleError) as caught:
        packed(trained, tmp_path / "out" / "bundle")
    assert caught.value.where == str(trained.weights)
    assert not (tmp_path / "out").exists()


def test_a_network_that_answers_nan_is_refused(make: Make, tmp_path: Path) -> None:
    trained = make(*table())
    save_file({name: value * float("nan") for name, value in load_file(trained.weights).items()}, trained.weights)
    with pytest.raises(ParityError, match="NaN"):
        packed(trained, tmp_path / "out" / "bundle")
    assert not (tmp_path / "out").exists()


def test_without_an_example_there_is_no_bundle(make: Make, tmp_path: Path) -> None:
    trained = make(*table())
    trained.examples = []
    with pytest.raises(BundleError, match="golden example"):
        packed(trained, tmp_path / "bundle")


def test_one_example_is_enough(make: Make, tmp_path: Path) -> None:
    trained = make(image(FlatEncoder()))
    del trained.examples[1:]
    assert len(opened(packed(trained, tmp_path / "bundle")).predict(trained.examples * 3)) == 3


def test_two_tensors_of_one_name_are_refused(make: Make, tmp_path: Path) -> None:
    trained = make(steps(RnnEncoder(hidden=4)))
    inputs = (trained.recipe.inputs[0], NumberField(name="steps_length", encoder=FlatEncoder()))
    trained.statistics["steps_length"] = trained.statistics["steps"]
    trained.examples = [{"steps": [[1, 2]], "steps_length": 1}]
    recipe = type(trained.recipe)(data=trained.recipe.data, inputs=inputs, outputs=trained.recipe.outputs)
    with pytest.raises(BundleError, match="two tensors are called 'steps_length'"):
        pack(trained, recipe, trained.weights, trained.report, "", tmp_path / "bundle", name="pets")


def test_words_by_the_rules_of_a_language_are_packed_with_the_version_of_the_rules(make: Make, tmp_path: Path) -> None:
    rules = WordTokenizer(seen=1, stem="english", segment="chinese", tags="english")
    trained = make(TextField(name="words", tokenizer=rules, embedding=4, encoder=TextCnnEncoder(filters=3)))
    folder = packed(trained, tmp_path / "bundle")
    predictor = opened(folder)
    known = predictor.fields["words"].known()
    assert [rule.split()[0] for rule in known.rules] == ["PyStemmer", "rjieba", "textblob"]
    assert "course/NN" not in known.pieces
    assert "cours/NN" in known.pieces
    one, other = predictor.predict([{"words": "cats"}, {"words": "cat"}])
    assert one != other, "a plural has another part of speech"
    parts = {part["name"] for part in json.loads((folder / BOM).read_bytes())["components"]}
    assert {"PyStemmer", "rjieba", "textblob"} <= parts
    trained.statistics["words"] = msgspec.structs.replace(known, rules=("PyStemmer 2.2.0", *known.rules[1:]))
    with pytest.raises(BundleError, match=r"made with PyStemmer 2\.2\.0"):
        packed(trained, tmp_path / "other")


def test_a_text_that_began_with_embeddings_is_packed(make: Make, tmp_path: Path) -> None:
    vectors = Embeddings(file="v.txt", frozen=True, digest=f"sha256:{'0' * 64}", size=3)
    text = TextField(name="words", tokenizer=WordTokenizer(seen=1), embeddings=vectors, encoder=RnnEncoder(hidden=4))
    trained = make(text)
    folder = packed(trained, tmp_path / "bundle")
    assert opened(folder).predict(trained.examples)
    assert load_file(folder / WEIGHTS)["parts.0.embedding.vectors.weight"].shape[1] == 3
    (part,) = [each for each in json.loads((folder / BOM).read_bytes())["components"] if each["name"] == "v.txt"]
    assert part["hashes"] == [{"alg": "SHA-256", "content": "0" * 64}]


def test_a_picture_that_may_be_missing_is_packed(make: Make, tmp_path: Path) -> None:
    spec = msgspec.structs.replace(image(FlatEncoder()), missing="mean")
    trained = make(spec, *table())
    trained.examples[0]["image"] = None
    predictor = opened(packed(trained, tmp_path / "bundle"))
    missing, there = predictor.predict(
        [trained.examples[0], {**trained.examples[0], "image": trained.examples[1]["image"]}]
    )
    assert missing != there
