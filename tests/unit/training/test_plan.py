import subprocess
import sys

import msgspec
import pytest

from yunmo.core.encoders import (
    BagEncoder,
    EmbeddingEncoder,
    FlatEncoder,
    OneHotEncoder,
    ResnetEncoder,
    RnnEncoder,
    TextCnnEncoder,
    TransformerEncoder,
)
from yunmo.core.events import Decision
from yunmo.core.fields import Augment, FieldStatistics, ImageField, TextField
from yunmo.core.recipe import CombineSpec, Recipe, recipe_from
from yunmo.training.budget import fix_epochs
from yunmo.training.plan import complete


def _statistics(name: str, kind: str, **values: object) -> FieldStatistics:
    return FieldStatistics(name=name, type=kind, role="input", encode_version=1, count=10, **values)  # type: ignore[arg-type]


STATISTICS = {
    "photo": _statistics("photo", "image", shape=(32, 32, 3)),
    "scan": _statistics("scan", "image", shape=(8, 8, 1)),
    "age": _statistics("age", "number"),
    "few": _statistics("few", "category", categories=("a", "b")),
    "many": _statistics("many", "category", categories=tuple(str(index) for index in range(100))),
    "moves": _statistics("moves", "sequence", shape=(20, 3)),
    "words": _statistics("words", "text", shape=(30,), buckets=(1, 2), bucket_counts=(3, 4)),
    "label": _statistics("label", "category", categories=("a", "b")),
}
SIZES = {"photo": 32, "scan": 8}
KINDS = {
    "photo": "image",
    "scan": "image",
    "age": "number",
    "few": "category",
    "many": "category",
    "moves": "sequence",
    "words": "text",
}


def _plan(*names: str, rows: int = 1000, validation: int = 100, **recipe: object) -> tuple[Recipe, list[Decision]]:
    inputs = [{"name": name, "type": KINDS[name]} for name in names]
    for field in inputs:
        if field["name"] in SIZES:
            field["size"] = SIZES[field["name"]]  # type: ignore[assignment]
    data = {
        "data": {"train": "x"},
        "inputs": inputs,
        "outputs": [{"name": "label", "type": "category"}],
        **recipe,
    }
    return complete(recipe_from(data), STATISTICS, rows, validation, cores=4)


def _encoder(recipe: Recipe, index: int) -> object:
    return (recipe.inputs or ())[index].encoder


def test_a_table_gets_members_beside_a_linear_model() -> None:
    recipe, decisions = _plan("age", "few", "many")
    assert isinstance(_encoder(recipe, 0), FlatEncoder)
    assert isinstance(_encoder(recipe, 1), OneHotEncoder)
    assert isinstance(_encoder(recipe, 2), EmbeddingEncoder)
    assert recipe.combine is not None
    assert recipe.combine.members > 1
    assert recipe.combine.linear
    assert recipe.train.threads == 1
    assert recipe.train.keep == "last"
    assert all(decision.reason and decision.value for decision in decisions)


def test_color_pictures_get_a_residual_network_and_mirrored_answers() -> None:
    recipe, _ = _plan("photo", rows=9000, validation=1000)
    field = (recipe.inputs or ())[0]
    assert isinstance(field, ImageField)
    assert isinstance(field.encoder, ResnetEncoder)
    assert field.augment is not None
    assert field.augment.flip
    assert field.augment.alternate
    assert field.average_flips
    assert field.encoder.stem == "whitened"
    assert recipe.train.threads is None  # measured
    assert recipe.train.keep == "best"
    assert recipe.train.lookahead


def test_norms_with_a_scale_and_dense_layers_get_no_high_rate() -> None:
    assert _plan("photo")[0].train.norm_lr is not None
    given = {"name": "photo", "type": "image", "size": 32, "encoder": {"type": "resnet"}}
    for recipe in (_plan(inputs=[given])[0], _plan("photo", "age")[0]):
        assert recipe.train.optimizer == "muon"
        assert recipe.train.norm_lr is None
        assert recipe.train.rest == "adamw"


def test_gray_pictures_are_never_mirrored() -> None:
    recipe, _ = _plan("scan")
    field = (recipe.inputs or ())[0]
    assert isinstance(field, ImageField)
    assert field.augment is not None
    assert not field.augment.flip
    assert field.average_flips is False
    assert recipe.train.threads == 1


def test_sequences_get_a_gru() -> None:
    recipe, _ = _plan("moves")
    encoder = _encoder(recipe, 0)
    assert isinstance(encoder, RnnEncoder)
    assert encoder.cell == "gru"
    assert recipe.train.gradient_clip is not None


def test_pictures_beside_a_table_are_brought_together() -> None:
    recipe, _ = _plan("photo", "age")
    assert recipe.combine is not None
    assert recipe.combine.hidden


def test_a_recipe_with_its_own_encoder_and_optimizer_stays_plain() -> None:
    given = recipe_from(
        {
            "data": {"train": "x"},
            "inputs": [
                {
                    "name": "photo",
                    "type": "image",
                    "size": 32,
                    "encoder": {"type": "cnn", "layers": [{"conv": 32}, {"pool": "max"}]},
                }
            ],
            "outputs": [{"name": "label", "type": "category"}],
            "train": {"optimizer": "sgd", "lr": 0.01, "epochs": 100, "batch_size": 32},
        }
    )
    recipe, _ = complete(given, STATISTICS, 9000, 1000, cores=2)
    field = (recipe.inputs or ())[0]
    assert isinstance(field, ImageField)
    assert field.augment == Augment()
    assert field.average_flips is False
    assert recipe.combine == CombineSpec()
    train = recipe.train
    assert (train.optimizer, train.lr, train.weight_decay, train.keep, train.ema) == ("sgd", 0.01, 0.0, "best", 0.0)
    assert train.lookahead == 0.0
    assert train.schedule is not None
    assert train.schedule.type == "constant"
    assert getattr((recipe.outputs or ())[0], "label_smoothing", None) == 0.0


def test_what_is_given_stays_and_a_planned_recipe_is_left_alone() -> None:
    recipe, _ = _plan("age", train={"lr": 0.5, "batch_size": 10, "threads": 2})
    assert (recipe.train.lr, recipe.train.batch_size, recipe.train.threads) == (0.5, 10, 2)
    again, decisions = complete(recipe, STATISTICS, 1000, 100, cores=8)
    assert again == recipe
    assert decisions == []


def test_batches_never_exceed_the_data_and_grow_with_it() -> None:
    assert _plan("age", rows=7)[0].train.batch_size == 7
    assert _plan("age", rows=1_000_000)[0].train.batch_size == 1024


@pytest.mark.parametrize("side", [1, 2, 5, 8, 17, 33, 64, 100, 224])
def test_a_network_is_found_for_every_size(side: int) -> None:
    from yunmo.models.encoders.registry import build_encoder

    shape = _statistics("photo", "image", shape=(side, side, 3))
    statistics = {**STATISTICS, "photo": shape}
    recipe = recipe_from({"data": {"train": "x"}, "inputs": [{"name": "photo", "type": "image", "size": side}]})
    planned, _ = complete(recipe, statistics, 100, 10, cores=1)
    encoder = (planned.inputs or ())[0].encoder
    assert encoder is not None
    assert build_encoder(encoder, shape).features > 0


def test_decisions_of_many_equal_fields_are_told_once() -> None:
    statistics = {f"n{index}": _statistics(f"n{index}", "number") for index in range(30)}
    inputs = [{"name": name, "type": "number"} for name in statistics]
    recipe = recipe_from({"data": {"train": "x"}, "inputs": inputs})
    planned, decisions = complete(recipe, statistics, 1000, 100, cores=1)
    told = [decision for decision in decisions if decision.key.endswith(".encoder")]
    assert len(told) == 1
    assert "30 fields" in told[0].key
    assert msgspec.json.encode(planned)


def test_planning_needs_no_torch() -> None:
    code = "import sys, yunmo.training.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_texts_get_a_bag_and_its_own_training() -> None:
    recipe, decisions = _plan("words")
    (field,) = recipe.inputs or ()
    assert field.encoder == BagEncoder()
    assert recipe.combine == CombineSpec(zero_heads=True)
    assert (recipe.train.optimizer, recipe.train.weight_decay) == ("adamw", 3.0)
    assert "words.encoder" in {decision.key for decision in decisions}


def test_texts_beside_a_table_are_no_bag_alone() -> None:
    recipe, _ = _plan("words", "age")
    assert recipe.combine == CombineSpec(hidden=(128,), activation="silu", dropout=0.2)
    assert recipe.train.weight_decay != 3.0


@pytest.mark.parametrize("encoder", [TextCnnEncoder(), TransformerEncoder(), RnnEncoder()], ids=str)
def test_texts_in_order_train_for_a_few_epochs(encoder: object) -> None:
    inputs = [{"name": "words", "type": "text", "encoder": msgspec.to_builtins(encoder)}]
    recipe, _ = _plan("words", inputs=inputs)
    assert recipe.inputs == (TextField(name="words", encoder=encoder),)  # type: ignore[arg-type]
    assert recipe.train.weight_decay == (0.05 if isinstance(encoder, RnnEncoder) else 0.1)
    assert fix_epochs(recipe, 0.001)[0].train.epochs == 12
