import numpy as np
import pytest
import torch

from yunmo.core.errors import RecipeError
from yunmo.core.fields import FieldStatistics
from yunmo.core.recipe import Recipe, recipe_from
from yunmo.models.network import Network


def _statistics(name: str, kind: str, role: str = "input", **values: object) -> FieldStatistics:
    return FieldStatistics(name=name, type=kind, role=role, encode_version=1, count=10, **values)  # type: ignore[arg-type]


STATISTICS = {
    "photo": _statistics(
        "photo",
        "image",
        mean=(0.5, 0.4, 0.3),
        deviation=(0.2, 0.3, 0.4),
        minimum=(0.0,) * 3,
        maximum=(1.0,) * 3,
        shape=(16, 16, 3),
    ),
    "age": _statistics("age", "number", mean=(40.0,), deviation=(10.0,), minimum=(0.0,), maximum=(100.0,)),
    "weight": _statistics("weight", "number", mean=(70.0,), deviation=(5.0,), minimum=(40.0,), maximum=(140.0,)),
    "color": _statistics("color", "category", categories=("blue", "red")),
    "born": _statistics("born", "date", mean=(1.0,) * 6, deviation=(2.0,) * 6, shape=(6,)),
    "label": _statistics("label", "category", "output", categories=("a", "b", "c")),
    "price": _statistics("price", "number", "output", mean=(100.0,), deviation=(20.0,)),
}
PHOTO = {"name": "photo", "type": "image", "encoder": {"type": "resnet", "filters": [4, 8], "blocks": [0, 1]}}
TABLE = [
    {"name": "age", "type": "number", "encoder": {"type": "flat", "clip": 3}},
    {"name": "weight", "type": "number", "scale": "min_max", "encoder": {"type": "flat"}},
    {"name": "color", "type": "category", "encoder": {"type": "one_hot"}},
    {"name": "born", "type": "date", "encoder": {"type": "mlp", "hidden": [4]}},
]
OUTPUTS = [{"name": "label", "type": "category"}, {"name": "price", "type": "number"}]


def _recipe(inputs: list[dict[str, object]], combine: dict[str, object] | None = None) -> Recipe:
    return recipe_from({"data": {"train": "x"}, "inputs": inputs, "outputs": OUTPUTS, "combine": combine})


def _batch(rows: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "photo": torch.randint(0, 256, (rows, 16, 16, 3), dtype=torch.uint8),
        "age": torch.randn(rows) * 50,
        "weight": torch.randn(rows) * 20 + 70,
        "color": torch.randint(0, 3, (rows,)),
        "born": torch.randn(rows, 6),
    }


def test_pictures_and_table_answer_category_and_number() -> None:
    network = Network(_recipe([PHOTO, *TABLE], {"hidden": [8]}), STATISTICS).eval()
    answer = network.predict(_batch(5))
    assert answer["label"].shape == (5, 3)
    assert torch.allclose(answer["label"].sum(1), torch.ones(5))
    assert answer["price"].shape == (5,)
    assert {value.dtype for value in answer.values()} == {torch.float32}


def test_numbers_are_scaled_clipped_and_one_hot_is_exact() -> None:
    network = Network(_recipe(TABLE[:3]), STATISTICS)
    tensors = {"age": torch.tensor([60.0, 400.0]), "weight": torch.tensor([40.0, 90.0]), "color": torch.tensor([0, 2])}
    expected = torch.tensor([[2.0, 0.0, 1.0, 0.0, 0.0], [3.0, 0.5, 0.0, 0.0, 1.0]])
    assert torch.allclose(network.features(tensors), expected)


def test_a_number_is_answered_in_raw_units() -> None:
    network = Network(_recipe(TABLE[:1]), STATISTICS).eval()
    tensors = {"age": torch.tensor([35.0, 50.0])}
    scaled = network(tensors)["price"]
    assert torch.allclose(network.predict(tensors)["price"], scaled * 20 + 100)
    assert torch.allclose(network.scaled(1, torch.tensor([120.0])), torch.tensor([1.0]))


def test_predict_averages_a_picture_and_its_mirror_image() -> None:
    network = Network(_recipe([{**PHOTO, "average_flips": True}]), STATISTICS).eval()
    plain = Network(_recipe([PHOTO]), STATISTICS).eval()
    plain.load_state_dict(network.state_dict())
    batch = _batch(4)
    mirrored = {**batch, "photo": batch["photo"].flip(2)}
    expected = (plain.predict(batch)["label"] + plain.predict(mirrored)["label"]) / 2
    assert not torch.allclose(plain.predict(batch)["label"], expected, atol=1e-4)
    assert torch.allclose(network.predict(batch)["label"], expected, atol=1e-6)
    assert torch.allclose(network.predict(mirrored)["label"], expected, atol=1e-6)


def test_members_are_independent_and_their_probabilities_averaged() -> None:
    network = Network(_recipe(TABLE, {"hidden": [8], "members": 3, "linear": True}), STATISTICS).eval()
    batch = _batch(6)
    each = network.member_answers(batch)["label"]
    assert each.shape == (3, 6, 3)
    assert not torch.allclose(each[0], each[1])
    mean = each.softmax(2).mean(0)
    assert torch.allclose(network.predict(batch)["label"], mean, atol=1e-6)
    assert torch.allclose(network(batch)["label"].softmax(1), mean, atol=1e-6)
    each[0].sum().backward()
    weight = network.combine.heads[0].weight
    assert weight.grad is not None
    assert weight.grad[0].abs().sum() > 0
    assert weight.grad[1:].abs().sum() == 0


def test_members_may_have_rows_of_their_own() -> None:
    network = Network(_recipe(TABLE, {"hidden": [8], "members": 2}), STATISTICS).eval()
    batch = _batch(6)
    shared = network.member_answers(batch)["label"]
    rows = torch.tensor([3, 1, 0, 5, 4, 2])
    separate = network.member_answers({name: value[rows] for name, value in batch.items()}, separate=True)["label"]
    assert torch.allclose(separate[0], shared[0, rows[:3]], atol=1e-6)
    assert torch.allclose(separate[1], shared[1, rows[3:]], atol=1e-6)


@pytest.mark.parametrize("combine", [None, {"members": 3, "hidden": [4]}])
def test_a_temperature_changes_probabilities_and_never_the_answer(combine: dict[str, object] | None) -> None:
    network = Network(_recipe([{**PHOTO, "average_flips": True}], combine), STATISTICS).eval()
    batch = _batch(8)
    before = network.predict(batch)
    network.temperatures.copy_(torch.tensor([0.5, 0.5]))
    after = network.predict(batch)
    expected = before["label"].square() / before["label"].square().sum(1, keepdim=True)
    assert torch.allclose(after["label"], expected, atol=1e-5)
    assert torch.equal(after["label"].argmax(1), before["label"].argmax(1))
    assert torch.equal(after["price"], before["price"])


def test_zero_heads_give_even_first_answers() -> None:
    network = Network(_recipe(TABLE, {"hidden": [8], "linear": True, "zero_heads": True, "members": 2}), STATISTICS)
    assert torch.allclose(network.predict(_batch(3))["label"], torch.full((3, 3), 1 / 3))


def test_an_input_without_encoder_is_refused() -> None:
    with pytest.raises(RecipeError, match="no encoder"):
        Network(_recipe([{"name": "age", "type": "number"}]), STATISTICS)


@pytest.mark.parametrize("method", ["kaiming", "xavier", "normal", "constant"])
def test_initialization_sets_weights_and_zeroes_biases(method: str) -> None:
    recipe = recipe_from(
        {
            "data": {"train": "x"},
            "inputs": [{"name": "born", "type": "date", "encoder": {"type": "mlp", "hidden": [400]}}],
            "outputs": OUTPUTS,
            "train": {"initialization": {"method": method, "deviation": 0.5, "value": 0.25}},
        }
    )
    weights = dict(Network(recipe, STATISTICS).named_parameters())
    weight, bias = weights["parts.0.encoder.layers.0.weight"], weights["parts.0.encoder.layers.0.bias"]
    deviation = {"kaiming": (2 / 6) ** 0.5, "xavier": (2 / 406) ** 0.5, "normal": 0.5, "constant": 0.0}[method]
    assert np.isclose(weight.std().item(), deviation, rtol=0.1, atol=1e-6)
    assert bias.abs().max() == 0
    if method == "constant":
        assert weight.min() == 0.25
