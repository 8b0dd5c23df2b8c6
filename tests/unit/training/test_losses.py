import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the field's usual name

from yunmo.core.errors import RecipeError
from yunmo.core.fields import CategoryOutput, FieldStatistics, NumberOutput
from yunmo.training.losses import Judgement, Loss, class_weights

STATISTICS = {
    "label": FieldStatistics(
        name="label",
        type="category",
        role="output",
        encode_version=1,
        count=10,
        categories=("a", "b"),
        category_counts=(8, 2),
    ),
    "price": FieldStatistics(name="price", type="number", role="output", encode_version=1, count=10),
}


def test_balanced_weights_make_classes_count_the_same() -> None:
    weights = class_weights(CategoryOutput(name="label", class_weights="balanced"), STATISTICS["label"])
    assert weights is not None
    assert torch.allclose(weights, torch.tensor([10 / 16, 10 / 4]))


def test_a_weight_for_an_unknown_class_is_refused() -> None:
    with pytest.raises(RecipeError, match="no class 'c'"):
        Loss((CategoryOutput(name="label", class_weights={"c": 2.0}),), STATISTICS)


def test_outputs_and_members_add_up() -> None:
    torch.manual_seed(0)
    loss = Loss((CategoryOutput(name="label", label_smoothing=0.1), NumberOutput(name="price", loss="mae")), STATISTICS)
    answers = {"label": torch.randn(2, 3, 2), "price": torch.randn(2, 3, 1)}
    targets = {"label": torch.tensor([0, 1, 1]), "price": torch.randn(3)}
    expected = sum(
        F.cross_entropy(answers["label"][member], targets["label"], label_smoothing=0.1)
        + F.l1_loss(answers["price"][member, :, 0], targets["price"])
        for member in range(2)
    )
    assert float(loss(answers, targets, separate=False)) == pytest.approx(float(expected), rel=1e-5)
    own = {name: torch.cat((value, value)) for name, value in targets.items()}
    assert float(loss(answers, own, separate=True)) == pytest.approx(float(expected), rel=1e-5)


def test_better_is_more_accurate_or_less_wrong_and_ties_go_to_the_lower_loss() -> None:
    good, bad = Judgement(0.5, "accuracy", 0.9), Judgement(0.1, "accuracy", 0.8)
    assert good.better_than(bad)
    assert not bad.better_than(good)
    assert Judgement(0.4, "accuracy", 0.9).better_than(good)
    assert not Judgement(0.5, "accuracy", 0.9).better_than(good)
    assert not Judgement(0.4, "accuracy", 0.905).better_than(good, 0.01)
    assert Judgement(9.0, "rmse", 1.0).better_than(Judgement(1.0, "rmse", 2.0))
    assert good.better_than(None)
    assert not Judgement(math.inf, "rmse", math.nan).better_than(Judgement(1.0, "rmse", 2.0))
