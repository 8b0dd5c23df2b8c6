from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from yunmo.core import encoders as specs
from yunmo.core.fields import FieldStatistics
from yunmo.core.recipe import Recipe, recipe_data, recipe_from, with_settings
from yunmo.data.prepare import prepare
from yunmo.training.candidates import Choice, choices


def statistics(name: str, shape: tuple[int, ...] = (), role: Any = "input") -> FieldStatistics:
    return FieldStatistics(name=name, type="x", role=role, encode_version=1, count=9000, shape=shape)


def found(
    fields: list[dict[str, Any]], shape: tuple[int, ...] = (), **asked: Any
) -> tuple[dict[str, Any], list[Choice]]:
    """Return a recipe as asked for, and what is to be compared for it."""
    plain = {"data": {"train": "x"}, **asked}
    outputs = [{"name": "label", "type": "category"}]
    named = recipe_from({**plain, "inputs": asked.get("inputs", fields), "outputs": outputs})
    known = {field.name: statistics(field.name, shape) for field in named.inputs or ()}
    known["label"] = statistics("label", role="output")
    return plain, choices(recipe_from(plain), named, known, rows=9000, cores=2)


def encoders(found: list[Choice], place: int = 0) -> list[Any]:
    return [(choice.recipe.inputs or ())[place].encoder for choice in found]


def test_texts_are_compared_with_the_networks_of_the_recipes() -> None:
    _, each = found([{"name": "text", "type": "text"}], (60,))
    assert [choice.name for choice in each] == ["bag", "textcnn", "gru", "transformer"]
    assert encoders(each)[0] is None
    assert [type(encoder) for encoder in encoders(each)[1:]] == [
        specs.TextCnnEncoder,
        specs.RnnEncoder,
        specs.TransformerEncoder,
    ]


def test_pictures_have_other_widths_and_a_plain_network() -> None:
    _, each = found([{"name": "image", "type": "image"}], (32, 32, 3))
    assert [choice.name for choice in each] == ["resnet", "resnet, half as wide", "resnet, twice as wide", "cnn"]
    half, twice = encoders(each)[1:3]
    assert tuple(4 * filters for filters in half.filters) == twice.filters
    _, small = found([{"name": "image", "type": "image"}], (8, 8, 1))
    assert sum(isinstance(layer, specs.PoolLayer) for layer in encoders(small)[-1].layers) == 2


def test_tables_have_other_sizes_above_their_fields() -> None:
    _, each = found([{"name": "a", "type": "number"}, {"name": "b", "type": "number"}])
    assert [choice.name for choice in each] == ["mlp", "mlp, small", "mlp, large"]
    assert each[0].recipe.combine is None
    assert each[2].recipe.combine is not None
    assert each[2].recipe.combine.hidden == (256, 256)


def test_sequences_have_a_narrower_network_and_attention() -> None:
    _, each = found([{"name": "steps", "type": "sequence"}], (100, 6))
    assert [choice.name for choice in each] == ["rnn", "rnn, half as wide", "transformer"]


def test_a_recipes_own_network_comes_first_and_what_training_would_take_second() -> None:
    own = [
        {"name": "text", "type": "text", "tokenizer": {"type": "words"}, "encoder": {"type": "textcnn", "filters": 7}}
    ]
    plain, each = found([], (60,), inputs=own)
    assert [choice.name for choice in each] == ["textcnn", "bag", "textcnn", "gru", "transformer"]
    assert each[0].settings == ()
    changed = recipe_from(with_settings(plain, list(each[1].settings)))
    assert (changed.inputs or ())[0].encoder is None


@pytest.mark.parametrize("named", [False, True], ids=["inferred", "named"])
@pytest.mark.parametrize(
    ("field", "shape"),
    [
        ({"name": "it's: a, text", "type": "text"}, (60,)),
        ({"name": "image", "type": "image"}, (32, 32, 3)),
        ({"name": "steps", "type": "sequence"}, (100, 6)),
        ({"name": "a", "type": "number"}, ()),
    ],
    ids=["text", "image", "sequence", "table"],
)
def test_the_settings_make_the_very_network_of_the_asked_recipe(
    field: dict[str, Any], shape: tuple[int, ...], named: bool
) -> None:
    inputs = [{"name": "first", "type": "number"}, field]
    plain, each = found(inputs, shape, **({"inputs": inputs} if named else {}))
    for choice in each[1:]:
        changed = recipe_from(with_settings(plain, list(choice.settings)))
        assert _comparable(changed) == _comparable(choice.recipe)
    assert len({choice.settings for choice in each}) == len(each)


def _comparable(recipe: Recipe) -> bytes:
    plain = recipe_data(recipe)
    named = {key: plain.get(key) for key in ("inputs", "combine")}
    if named["inputs"] is None:
        named["inputs"] = [{"name": "first", "type": "number"}, {"name": "a", "type": "number"}]
        named["inputs"] = recipe_data(recipe_from({"data": {"train": "x"}, "inputs": named["inputs"]}))["inputs"]
    return msgspec.json.encode(named)


def test_prepared_data_gives_candidates_that_open_what_it_fixed(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 255, (60, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "pictures.npz", image=rows, label=np.arange(60) % 2)
    asked = recipe_from({"data": {"train": "x"}})
    data = prepare(asked, {"train": tmp_path / "pictures.npz"}, tmp_path / "data", target="label")
    each = choices(asked, data.recipe, data.statistics, rows=48, cores=1)
    assert (data.recipe.inputs or ())[0].size is not None  # type: ignore[union-attr]  # a picture's
    assert (each[0].recipe.inputs or ())[0].size is None  # type: ignore[union-attr]
