import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from yunmo.core.recipe import Recipe, recipe_from
from yunmo.data.prepare import prepare
from yunmo.data.prepared import Prepared
from yunmo.models.answers import answer, load_network
from yunmo.training.batches import Rows
from yunmo.training.calibrate import HIGHEST, LOWEST, calibrate, temperature
from yunmo.training.evaluate import evaluate
from yunmo.training.loop import train


def _with(recipe: Recipe, **changes: Any) -> Recipe:
    return msgspec.structs.replace(recipe, train=msgspec.structs.replace(recipe.train, **changes))


def _drawn(rows: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels drawn with the very probabilities that they mean."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, classes, generator=generator) * 2
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_the_temperature_undoes_logits_of_a_wrong_size(factor: float) -> None:
    logits, truth = _drawn(20_000, 5)
    assert math.isclose(temperature(logits * factor, truth), factor, rel_tol=0.05)


def test_it_has_bounds() -> None:
    logits, truth = _drawn(500, 3)
    assert math.isclose(temperature(logits * 100, truth), HIGHEST, rel_tol=1e-3)
    assert math.isclose(temperature(logits / 100, truth), LOWEST, rel_tol=1e-3)


def test_rows_that_are_all_right_do_not_ask_for_certainty() -> None:
    logits = torch.full((150, 10), -3.0)
    truth = torch.arange(150) % 10
    logits[torch.arange(150), truth] = 3.0
    confidence = (logits / temperature(logits, truth)).softmax(1).max(1).values.mean().item()
    assert math.isclose(confidence, 151 / 152, abs_tol=1e-3)


def test_one_class_needs_none() -> None:
    assert temperature(torch.zeros(5, 1), torch.zeros(5, dtype=torch.int64)) == 1.0


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Prepared pictures of ten digits, over 100 of them for validation."""
    folder = tmp_path_factory.mktemp("many")
    data = load_digits()
    np.savez(folder / "digits.npz", image=(data.images[:800] * 15).astype(np.uint8), label=data.target[:800])
    recipe = recipe_from({"data": {"train": "digits.npz"}, "train": {"validation": 0.2, "epochs": 6}})
    return prepare(recipe, {"train": folder / "digits.npz"}, folder / "prepared", target="label")


def test_probabilities_get_honest_and_answers_stay(many: Prepared, tmp_path: Path) -> None:
    weights, measured = {}, {}
    for calibrated in (False, True):
        result = train(many, _with(many.recipe, calibrate=calibrated), tmp_path / str(calibrated))
        assert [each.key for each in result.decisions] == ["label.temperature"] * calibrated
        network = load_network(result.recipe, many.statistics, result.weights)
        predicted = answer(network, many.inputs("test"))
        found = evaluate(result.recipe.outputs or (), many.statistics, many.outputs("test"), predicted)
        weights[calibrated], measured[calibrated] = load_file(result.weights), found["label"]
    assert measured[True]["accuracy"] == measured[False]["accuracy"]
    assert measured[True]["log_loss"] < measured[False]["log_loss"]
    assert measured[True]["calibration_error"] < measured[False]["calibration_error"] / 2
    changed = [name for name in weights[True] if not torch.equal(weights[True][name], weights[False][name])]
    assert changed == ["temperatures"]


def test_few_rows_leave_probabilities_as_they_are(digits: Prepared, tmp_path: Path) -> None:
    result = train(digits, _with(digits.recipe, epochs=1, calibrate=False), tmp_path)
    network = load_network(result.recipe, digits.statistics, result.weights)
    few = [
        Rows({name: array[:99] for name, array in arrays.items()})
        for arrays in (digits.inputs("train"), digits.outputs("train"))
    ]
    [decision] = calibrate(network, *few)
    assert decision.value == "1"
    assert "99 validation rows are too few" in decision.reason
    assert network.temperatures.tolist() == [1.0]
