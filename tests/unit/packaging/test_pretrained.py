"""A fine-tuned encoder in a bundle: the graph at other batches and lengths, and what serving makes of a text.

Each export takes seconds, so there is one, of the architecture that differs most from BERT (which the end-to-end test
exports).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.fixtures.encoders import save_encoder
from tests.unit.packaging.conftest import Trained, columns
from tests.unit.packaging.test_bom import checked
from tests.unit.packaging.test_pack import opened, packed

from yunmo.bundle.files import GRAPH
from yunmo.core.encoders import FlatEncoder, PretrainedEncoder
from yunmo.core.fields import CategoryOutput, NumberField, NumberOutput, TextField
from yunmo.core.recipe import DataSpec, Recipe
from yunmo.data.fields.registry import open_field, open_output
from yunmo.data.pretrained.folder import PretrainedFolder, pack_pretrained
from yunmo.models.answers import answer
from yunmo.models.network import Network
from yunmo.training.evaluate import evaluate
from yunmo.training.report import make_report

pytest.importorskip("transformers")
DIGEST = f"sha256:{'ab' * 32}"
OUTPUTS = (CategoryOutput(name="label", categories=("cat", "dog", "fish")), NumberOutput(name="price"))


def trained(tmp_path: Path, kind: str, *others: Any, **keys: Any) -> Trained:
    """Return a network whose encoder is that of a folder."""
    folder = save_encoder(tmp_path / "tiny", kind)
    with PretrainedFolder(pack_pretrained(folder, tmp_path / "tiny.zip"), name="tiny") as archive:
        content = archive.content
    values = columns()
    words = TextField(name="words", encoder=PretrainedEncoder(folder="tiny", digest=DIGEST, **keys))
    field, _ = open_field(words, pretrained=content).resolve(values["words"], str)
    statistics = {"words": field.fit(values["words"])}
    for spec in others:
        statistics[spec.name] = open_field(spec).fit(values[spec.name])
    for output in OUTPUTS:
        statistics[output.name] = open_output(output).fit(values[output.name])
    inputs = (field.spec, *others)
    recipe = Recipe(name="pets", data=DataSpec(train="pets.csv"), inputs=inputs, outputs=OUTPUTS)  # type: ignore[arg-type]
    torch.manual_seed(0)
    network = Network(recipe, statistics).eval()
    network.begin({"words": folder / "model.safetensors"})
    network.finish()
    weights = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), weights)
    rows = [{spec.name: values[spec.name][row] for spec in inputs} for row in range(6)]
    truth = {
        output.name: open_output(output, statistics[output.name]).encode(values[output.name]) for output in OUTPUTS
    }
    encoded: dict[str, Any] = {}
    for spec in inputs:
        encoded |= open_field(spec, statistics[spec.name]).encode(values[spec.name])
    test = evaluate(OUTPUTS, statistics, {name: truth[name][name] for name in truth}, answer(network, encoded))
    report = make_report(
        name="pets",
        recipe=recipe,
        statistics=statistics,
        rows={"train": 40, "validation": 5, "test": 6},
        cleaning={},
        decisions=[],
        history=[],
        test=test,
        validation=test,
        baselines={},
        timing={},
        created=0.0,
    )
    return Trained(recipe, statistics, rows, weights, report)


def test_the_graph_answers_as_the_network_at_any_batch_and_length(tmp_path: Path) -> None:
    made = trained(tmp_path, "mpnet", NumberField(name="age (years)", encoder=FlatEncoder()), pool="cls")
    predictor = opened(packed(made, tmp_path / "bundle"))
    network = Network(made.recipe, made.statistics).eval()
    network.load_state_dict(load_file(made.weights))
    texts = ["", "a cat", "the film is so lovely, so lovely and unlikely", "x " * 500, "一只狗"]
    for size in (1, 4, 19):
        rows = [{"words": texts[index % len(texts)], "age (years)": 3 * index} for index in range(size)]
        encoded = {name: torch.from_numpy(value) for name, value in predictor.encode(rows).items()}
        with torch.no_grad():
            expected = network.predict(encoded)["label"].numpy()
        found = [list(row["label"]["probabilities"].values()) for row in predictor.predict(rows)]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    seen: list[tuple[int, ...]] = []
    run = predictor._session.run

    def watched(tensors: Any, stop: Any = None) -> Any:
        seen.append(tensors["words"].shape)
        return run(tensors, stop)

    predictor._session.run = watched  # type: ignore[method-assign]
    predictor.predict([{"words": "the film", "age (years)": 1}])
    predictor.run(predictor.encode([{"words": text, "age (years)": 1} for text in ("the film", "the film is so fun")]))
    assert seen == [(1, 4), (2, 7)], "a text is as long as the longest beside it"
    (encoder,) = [one for one in checked(tmp_path / "bundle")["components"] if one["name"] == "tiny"]
    assert encoder["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    graph = onnx.load(tmp_path / "bundle" / GRAPH, load_external_data=False).graph
    assert all(dim.dim_param for dim in graph.input[1].type.tensor_type.shape.dim)
