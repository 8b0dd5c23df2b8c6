"""A network that begins with vectors learned elsewhere: tuned or frozen, and the same again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from yunmo.core.errors import Cancelled
from yunmo.core.events import EpochFinished
from yunmo.core.recipe import recipe_from
from yunmo.data.prepare import prepare
from yunmo.models.answers import answer, load_network
from yunmo.training.loop import Trainer, train

GOOD, BAD = ("lovely", "brilliant", "moving"), ("dull", "awful", "tedious")
NAME = "parts.0.embedding.vectors.weight"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    dice = np.random.default_rng(0)
    rows = [f"the film is {dice.choice(GOOD if i % 2 else BAD)} {i},{'good' if i % 2 else 'bad'}" for i in range(200)]
    (folder / "t.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    lines = [f"{word} {' '.join(map(str, dice.normal(1 if word in GOOD else -1, 0.1, 6)))}" for word in GOOD + BAD]
    (folder / "vectors.txt").write_text("\n".join(lines) + "\n")
    return folder


def prepared(data: Path, folder: Path, encoder: dict[str, Any], *, frozen: bool) -> Any:
    recipe = {
        "data": {"train": "t.csv"},
        "inputs": [
            {
                "name": "text",
                "type": "text",
                "encoder": encoder,
                "embeddings": {"file": "vectors.txt", "frozen": frozen},
            }
        ],
        "outputs": [{"name": "label", "type": "category"}],
        "train": {"epochs": 3, "optimizer": "adamw", "lr": 0.01, "weight_decay": 0.5, "batch_size": 16, "threads": 1},
    }
    return prepare(recipe_from(recipe), {"train": data / "t.csv"}, folder, embeddings={"text": data / "vectors.txt"})


ENCODERS: list[dict[str, Any]] = [
    {"type": "textcnn", "filters": 8, "widths": [1, 2]},
    {"type": "rnn", "hidden": 8, "pool": "mean"},
    {"type": "transformer", "heads": 1, "layers": 1, "feed_forward": 8},
]


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: encoder["type"])
@pytest.mark.parametrize("frozen", [False, True], ids=["tuned", "frozen"])
def test_it_begins_with_the_files_vectors(tmp_path: Path, data: Path, encoder: dict[str, Any], frozen: bool) -> None:
    given = prepared(data, tmp_path / "data", encoder, frozen=frozen)
    numbers, vectors = given.embeddings()["text"]
    assert len(numbers) == 6
    result = train(given, given.recipe, tmp_path / "training", cores=1)
    first = Trainer(given, result.recipe, None).network.state_dict()[NAME].numpy()
    last = load_file(result.weights)[NAME]
    assert first.shape == last.shape == (len(given.statistics["text"].pieces) + 2, 6)
    assert np.array_equal(first[numbers], vectors)
    assert np.array_equal(first, last) == frozen
    network = load_network(result.recipe, given.statistics, result.weights)
    found = answer(network, given.inputs("test"))["label"].argmax(1)
    assert np.mean(found == given.outputs("test")["label"]) > 0.7


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path, data: Path) -> None:
    given = prepared(data, tmp_path / "data", ENCODERS[0], frozen=True)
    whole = train(given, given.recipe, tmp_path / "whole", cores=1)
    told: list[object] = []

    def stop() -> bool:
        return any(isinstance(event, EpochFinished) for event in told)

    with pytest.raises(Cancelled):
        train(given, given.recipe, tmp_path / "stopped", cores=1, emit=told.append, cancelled=stop)
    resumed = train(given, given.recipe, tmp_path / "stopped", cores=1)
    one, other = load_file(whole.weights), load_file(resumed.weights)
    assert all(np.array_equal(one[name], other[name]) for name in one)
