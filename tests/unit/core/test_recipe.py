import gc

import msgspec
import pytest

from yunmo.core.encoders import CnnEncoder, ConvLayer, PoolLayer
from yunmo.core.errors import RecipeError
from yunmo.core.fields import ImageField
from yunmo.core.recipe import Recipe, dump_recipe, parse_recipe, recipe_data, recipe_from, with_settings

SEED = """
name: cats-vs-dogs
data: {train: train.zip, test: test.zip}
inputs:  [{name: image, type: image, size: 32,
           encoder: {type: cnn, layers: [{conv: 32, kernel: 3, activation: relu},
                                         {conv: 64, kernel: 5, activation: relu}, {pool: max, size: 2}]}}]
outputs: [{name: label, type: category}]
train:   {optimizer: sgd, lr: 0.01, epochs: 100, batch_size: 32, validation: 0.1, seed: 0}
evaluate: {metrics: [accuracy, precision, recall, f1]}
"""


def test_the_seed_experiment_is_read_as_it_is_written() -> None:
    recipe = parse_recipe(SEED)
    assert recipe.inputs is not None
    image = recipe.inputs[0]
    assert isinstance(image, ImageField)
    assert isinstance(image.encoder, CnnEncoder)
    assert image.encoder.layers == (
        ConvLayer(conv=32, kernel=3, activation="relu"),
        ConvLayer(conv=64, kernel=5, activation="relu"),
        PoolLayer(pool="max", size=2),
    )
    assert (recipe.train.optimizer, recipe.train.lr, recipe.train.epochs) == ("sgd", 0.01, 100)


def test_a_written_recipe_reads_back_equal() -> None:
    recipe = parse_recipe(SEED)
    assert parse_recipe(dump_recipe(recipe)) == recipe
    assert recipe_from(recipe_data(recipe)) == recipe


@pytest.mark.parametrize(
    ("text", "where", "remedy"),
    [
        ("data: {train: x}\ntrain: {epoch: 3}", "train", "Did you mean 'epochs'?"),
        ("data: {train: x}\ninputs: [{type: imge, name: a}]", "inputs[0]", "Did you mean 'image'?"),
        ("data: {train: x}\nzzz: 1", "recipe", "Known: name,"),
        (
            "data: {train: x}\ninputs: [{name: a, type: image, encoder: {type: cnn, layers: [{conv: 3, kernl: 3}]}}]",
            "inputs[0].encoder.layers[0]",
            "Did you mean 'kernel'?",
        ),
        ("data: {train: x}\ninputs: [{name: a}]", "inputs[0]", "It is one of: image"),
        ("data: {}", "data", "Write data: {train: FILE}"),
        ("data: {dataset: a, test: b}", "data", "Leave out the files"),
        ("data: {train: x}\nevaluate: {metrics: [acuracy]}", "evaluate.metrics", "accuracy"),
        ("data: {train: x}\ninputs: []", "inputs", "Leave it out to have it inferred"),
        (
            "data: {train: x}\ninputs: [{name: a, type: number}]\noutputs: [{name: a, type: number}]",
            "inputs",
            "Rename one of them",
        ),
        ("schema_version: 99\ndata: {train: x}", "recipe", "Upgrade Yunmo"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_remedy(text: str, where: str, remedy: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text)
    assert where in str(caught.value.where)
    assert remedy in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: [", "not valid YAML"),
        ("- 1", "a mapping of keys"),
        ("data: {train: x}\ntrain: {epochs: 0}", ">= 1"),
        ("data: {train: x}\ntrain: {lr: high}", "got 'str'"),
        ("data: {train: x}\ntrain: {batch_size: half}", "half"),
        ("data: {train: x}\ntrain: {betas: [0.9]}", "length"),
        ("train: {}", "missing key 'data'"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(text)


def test_a_long_value_is_not_quoted_whole() -> None:
    with pytest.raises(RecipeError, match="Invalid enum value") as caught:
        parse_recipe(f"data: {{train: a.csv}}\ntrain: {{optimizer: {'x' * 100_000}}}")
    assert len(str(caught.value)) < 1000


def test_settings_on_the_command_line_reach_into_lists_and_mappings() -> None:
    data = {"data": {"train": "x"}, "inputs": [{"name": "a", "type": "image"}]}
    changed = with_settings(data, ["train.epochs=20", "inputs.0.size=16", "train.optimizer=adam"])
    recipe = recipe_from(changed)
    assert (recipe.train.epochs, recipe.train.optimizer) == (20, "adam")
    assert recipe.inputs is not None
    assert isinstance(recipe.inputs[0], ImageField)
    assert recipe.inputs[0].size == 16
    assert "train" not in data


@pytest.mark.parametrize("assignment", ["train.epochs", "=3", "inputs.5.size=3", "data.train.x=1"])
def test_a_setting_that_leads_nowhere_is_refused(assignment: str) -> None:
    data = {"data": {"train": "x"}, "inputs": [{"name": "a", "type": "image"}]}
    with pytest.raises(RecipeError, match="--set"):
        with_settings(data, [assignment])


def test_inspecting_the_specifications_survives_garbage_collection() -> None:
    # msgspec 0.22 crashes the interpreter on fixed-length tuples in unions; this keeps them out of the specifications.
    for _ in range(3):
        msgspec.inspect.type_info(Recipe)
        gc.collect()
        recipe_from({"data": {"train": "x"}, "inputs": [{"name": "a", "type": "image", "size": [3, 4]}]})


def test_an_error_names_the_file_it_was_read_from() -> None:
    with pytest.raises(RecipeError, match=r"pets\.yaml, train"):
        parse_recipe(SEED.replace("lr:", "learning_rate:"), where="pets.yaml")


def test_a_name_that_no_model_may_have_is_refused_as_the_models() -> None:
    with pytest.raises(RecipeError, match="'a/b c' is not a valid model name") as caught:
        recipe_from({"name": "a/b c", "data": {"train": "x"}})
    assert caught.value.where == "recipe, name"
