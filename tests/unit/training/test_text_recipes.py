"""The recipes of texts, each run tiny: prepared, trained, and so learned that it tells praise from blame."""

from __future__ import annotations

import csv
from pathlib import Path

import msgspec
import numpy as np
import pytest

from yunmo.core.fields import TextField
from yunmo.core.recipe import DataSpec, Recipe, parse_recipe
from yunmo.core.tokenizers import SubwordTokenizer
from yunmo.data.prepare import prepare
from yunmo.models.answers import answer, load_network
from yunmo.training.loop import train

FOLDER = Path(__file__).parents[3] / "recipes"
PRAISE, BLAME = ("lovely", "brilliant", "moving"), ("dull", "awful", "tedious")


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    dice = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for index in range(360):
            word = dice.choice(PRAISE if index % 2 else BLAME)
            others = " ".join(dice.choice(["the", "film", "is", "so", "this", "story", "of", "and", "a"], 6))
            writer.writerow([f"{others} {word} {others[::-1][: index % 9]} {index}", "good" if index % 2 else "bad"])
    return path


def tiny(name: str) -> Recipe:
    """Return a recipe of the folder with a small network and as many steps as that needs."""
    recipe = parse_recipe((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), where=name)
    (field,) = recipe.inputs or ()
    assert isinstance(field, TextField)
    if isinstance(field.tokenizer, SubwordTokenizer):
        field = msgspec.structs.replace(field, tokenizer=SubwordTokenizer(vocabulary=120))
    return msgspec.structs.replace(
        recipe,
        data=DataSpec(train="reviews.csv"),
        inputs=(msgspec.structs.replace(field, embedding=32),),
        train=msgspec.structs.replace(recipe.train, batch_size=16, epochs=6, lr=5e-3, threads=1, precision="fp32"),
    )


@pytest.mark.parametrize("name", ["text-bag", "text-gru", "text-transformer", "textcnn"])
def test_a_recipe_of_texts_learns(name: str, reviews: Path, tmp_path: Path) -> None:
    data = prepare(tiny(name), {"train": reviews}, tmp_path / "data")
    result = train(data, data.recipe, tmp_path / "training", cores=1)
    network = load_network(result.recipe, data.statistics, result.weights)
    found = answer(network, data.inputs("test"))["label"].argmax(1)
    assert np.mean(found == data.outputs("test")["label"]) > 0.9
