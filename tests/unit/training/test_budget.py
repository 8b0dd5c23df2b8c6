from yunmo.core.recipe import Recipe, recipe_from
from yunmo.training.budget import fix_epochs


def _recipe(**train: object) -> Recipe:
    inputs = [{"name": "photo", "type": "image", "size": 32, "encoder": {"type": "resnet"}}]
    return recipe_from({"data": {"train": "x"}, "inputs": inputs, "train": train})


def test_epochs_fill_what_the_budget_leaves_for_training() -> None:
    recipe, decision = fix_epochs(_recipe(budget=100), 4.0)
    assert recipe.train.epochs == 16
    assert decision is not None
    assert "budget" in decision.reason


def test_small_data_does_not_use_the_whole_budget() -> None:
    recipe, decision = fix_epochs(_recipe(), 0.001)
    assert recipe.train.epochs is not None
    assert recipe.train.epochs <= 100
    assert decision is not None
    assert "rarely helps" in decision.reason


def test_there_is_always_one_epoch_and_given_ones_stay() -> None:
    assert fix_epochs(_recipe(budget=1), 1000.0)[0].train.epochs == 1
    given = _recipe(epochs=7)
    assert fix_epochs(given, 1000.0) == (given, None)
