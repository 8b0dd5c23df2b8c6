from pathlib import Path

import pytest
import yaml

from yunmo.core.encoders import CnnEncoder, ConvLayer, PoolLayer, RnnEncoder
from yunmo.core.fields import ImageField
from yunmo.core.recipe import Recipe, parse_recipe

FOLDER = Path(__file__).parents[3] / "recipes"
NAMES = (
    "digits",
    "gru",
    "seed-cnn",
    "seed-rnn",
    "several-inputs",
    "table",
    "text-bag",
    "text-gru",
    "text-pretrained",
    "text-transformer",
    "textcnn",
)


def recipe(name: str) -> Recipe:
    return parse_recipe((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), where=name)


def test_these_are_the_recipes() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(NAMES)
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}.yaml`" in page for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_parses_and_its_paths_are_relative(name: str) -> None:
    data = recipe(name).data
    assert data.train
    assert not Path(data.train).is_absolute()


def test_the_seed_is_the_seed() -> None:
    data = yaml.safe_load((FOLDER / "seed-cnn.yaml").read_text(encoding="utf-8"))
    assert data["train"] == {
        "optimizer": "sgd",
        "lr": 0.01,
        "epochs": 100,
        "batch_size": 32,
        "validation": 0.1,
        "seed": 0,
    }
    (image,) = recipe("seed-cnn").inputs or ()
    assert isinstance(image, ImageField)
    assert image.size == 32
    assert image.encoder == CnnEncoder(
        layers=(
            ConvLayer(conv=32, kernel=3, activation="relu"),
            ConvLayer(conv=64, kernel=5, activation="relu"),
            PoolLayer(pool="max", size=2),
        )
    )


def test_the_twin_differs_in_its_encoder_only() -> None:
    seed, twin = recipe("seed-cnn"), recipe("seed-rnn")
    (image,) = twin.inputs or ()
    assert isinstance(image, ImageField)
    assert image.encoder == RnnEncoder(cell="rnn", activation="relu", hidden=128)
    assert (seed.data, seed.train, seed.outputs, seed.evaluate) == (twin.data, twin.train, twin.outputs, twin.evaluate)
