"""The recipe of several inputs, run short on its own data: every input is used, and each may be missing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from yunmo.cli.samples import write_stock
from yunmo.core.recipe import parse_recipe
from yunmo.data.fields.registry import open_field
from yunmo.data.prepare import prepare
from yunmo.models.answers import answer, load_network
from yunmo.training.loop import train

RECIPE = Path(__file__).parents[3] / "recipes" / "several-inputs.yaml"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Return the error of `left` on the test rows, as they are and with one input taken away, by the input's name."""
    folder = tmp_path_factory.mktemp("stock")
    recipe = parse_recipe(RECIPE.read_text(encoding="utf-8"))
    recipe = msgspec.structs.replace(
        recipe, train=msgspec.structs.replace(recipe.train, epochs=6, threads=1, precision="fp32")
    )
    data = prepare(recipe, {"train": write_stock(folder)}, folder / "data")
    result = train(data, data.recipe, folder / "training", cores=1)
    network = load_network(result.recipe, data.statistics, result.weights)
    fields = {spec.name: open_field(spec, data.statistics[spec.name]) for spec in data.recipe.inputs or ()}
    truth = data.outputs("test")["left"]

    def error(without: set[str]) -> float:
        tensors = dict(data.inputs("test"))
        for name in without:
            tensors.update(fields[name].encode([None] * len(truth)))
        found = answer(network, tensors)
        assert np.allclose(found["order"].sum(1), 1, atol=1e-5)
        return float(np.sqrt(np.mean((found["left"] - truth) ** 2)))

    return {name: error({name} - {""}) for name in ("", *fields)} | {"all": error(set(fields))}


def test_the_network_learns(answers: dict[str, float]) -> None:
    assert answers[""] < 0.6 * answers["all"]


@pytest.mark.parametrize("name", ["count", "note", "reserve", "box"])
def test_each_input_helps_and_may_be_missing(answers: dict[str, float], name: str) -> None:
    assert 1.1 * answers[""] < answers[name] < 2 * answers["all"]


def test_without_any_input_the_answer_is_about_the_mean(answers: dict[str, float]) -> None:
    assert answers["all"] < 9
