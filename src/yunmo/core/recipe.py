"""The recipe: everything about a training job. Every key but ``data`` has a default; unknown keys are errors."""

from __future__ import annotations

from types import NoneType
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta

from yunmo.core.encoders import (
    LAYER_KEYS,
    Activation,
    BagEncoder,
    NotNegative,
    Positive,
    PositiveFloat,
    PretrainedEncoder,
    Probability,
)
from yunmo.core.errors import InvalidInput, RecipeError
from yunmo.core.fields import InputField, OutputField, TextField
from yunmo.core.ids import check_name
from yunmo.core.pretrained import LEAST_LENGTH
from yunmo.core.schema import Spec, convert
from yunmo.core.tokenizers import CharacterTokenizer, PretrainedTokenizer, WordTokenizer

SCHEMA_VERSION = 1
"""Version of the recipe's schema. A bundle or run with a higher one comes from a newer Yunmo."""

Optimizer = Literal["sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw", "muon"]


class DataSpec(Spec, frozen=True):
    """Where the data is. Either files (train, validation, test), or a dataset version that was added before."""

    train: Annotated[str | None, Meta(description="file or folder, relative to the recipe's folder")] = None
    validation: Annotated[str | None, Meta(description="file or folder; null: taken from train")] = None
    test: Annotated[str | None, Meta(description="file or folder; null: taken from train")] = None
    dataset: Annotated[str | None, Meta(description="NAME or NAME:VERSION instead of files")] = None
    test_share: Annotated[
        Probability | None, Meta(description="share of train held out for the test if none is given; null: 0.2")
    ] = None
    digests: Annotated[
        dict[str, str], Meta(description="SHA-256 of each split's bytes; written when the recipe is resolved")
    ] = {}


class CleanSpec(Spec, frozen=True):
    """Cleaning of whole rows; fields have their own (missing, outliers)."""

    duplicates: Annotated[Literal["drop", "keep"], Meta(description="rows equal in every field")] = "drop"
    unreadable: Annotated[Literal["drop", "error"], Meta(description="pictures that cannot be decoded")] = "drop"


class CombineSpec(Spec, frozen=True):
    """What comes between the fields' encoders and the heads: features side by side, then fully connected layers."""

    hidden: Annotated[tuple[Positive, ...], Meta(description="units of each layer; [] for none")] = ()
    activation: Annotated[Activation, Meta(description="after each layer")] = "relu"
    batch_norm: Annotated[bool, Meta(description="normalize over the batch before each activation")] = False
    dropout: Annotated[Probability, Meta(description="after each layer, while training")] = 0.0
    linear: Annotated[bool, Meta(description="also connect the features straight to the heads, beginning at 0")] = False
    zero_heads: Annotated[bool, Meta(description="heads begin at 0, so that the first answers are even")] = False
    members: Annotated[
        int, Meta(ge=1, le=64, description="independent copies of these layers, trained together and averaged")
    ] = 1


class InitializationSpec(Spec, frozen=True):
    """How weights begin; biases begin at 0."""

    method: Annotated[
        Literal["default", "kaiming", "xavier", "normal", "constant"],
        Meta(description="default: usual for each layer; kaiming (He 2015); xavier (Glorot 2010); normal; constant"),
    ] = "default"
    deviation: Annotated[float, Meta(gt=0, description="standard deviation for normal")] = 0.02
    value: Annotated[float, Meta(description="value for constant")] = 0.01


class ScheduleSpec(Spec, frozen=True):
    """How the learning rate changes."""

    type: Annotated[
        Literal["constant", "step", "cosine", "one_cycle", "plateau"], Meta(description="shape over the run")
    ] = "one_cycle"
    warmup: Annotated[
        Annotated[float, Meta(ge=0, lt=1)] | None,
        Meta(description="share of all steps in which the rate rises from near 0; null: 0.2 for one_cycle, else 0"),
    ] = None
    step_epochs: Annotated[Positive, Meta(description="step: epochs between two falls")] = 10
    factor: Annotated[float, Meta(gt=0, lt=1, description="step and plateau: what the rate is multiplied by")] = 0.1
    patience: Annotated[int, Meta(ge=0, description="plateau: epochs without a better validation loss")] = 3


class EarlyStoppingSpec(Spec, frozen=True):
    """When to stop before the last epoch."""

    patience: Annotated[Positive, Meta(description="epochs without a better validation result")] = 10
    min_delta: Annotated[float, Meta(ge=0, description="how much better counts as better")] = 0.0


class TrainSpec(Spec, frozen=True):
    """How the network is trained. ``None`` is decided from task, data, cores and budget, and then fixed."""

    optimizer: Annotated[
        Optimizer | None,
        Meta(
            description="momentum, nesterov: SGD with it; muon: for convolutions with batch norm, another for the rest"
        ),
    ] = None
    lr: Annotated[PositiveFloat | None, Meta(description="learning rate (the highest of the schedule)")] = None
    rest: Annotated[
        Literal["adamw", "nesterov"] | None,
        Meta(
            description="muon: what trains all else (nesterov: momentum 0.85); null: adamw, or decided with optimizer"
        ),
    ] = None
    rest_lr: Annotated[PositiveFloat, Meta(description="muon: learning rate of all else")] = 4e-3
    norm_lr: Annotated[
        PositiveFloat | None,
        Meta(description="muon: learning rate of norms; null: rest_lr, or decided with optimizer"),
    ] = None
    momentum: Annotated[
        Probability | None, Meta(description="null: 0.6 for muon; 0.9 for momentum, nesterov and rmsprop")
    ] = None
    betas: Annotated[tuple[Probability, ...], Meta(min_length=2, max_length=2, description="of the adams")] = (
        0.9,
        0.999,
    )
    weight_decay: Annotated[NotNegative | None, Meta(description="not on biases and norms")] = None
    epochs: Annotated[Positive | None, Meta(description="passes over the training data")] = None
    batch_size: Annotated[
        Positive | Literal["full"] | None,
        Meta(description="rows in a step; full: all of them (plain gradient descent)"),
    ] = None
    schedule: ScheduleSpec | None = None
    gradient_clip: Annotated[
        PositiveFloat | None, Meta(description="longest gradient norm; null: 1 for recurrent networks, else none")
    ] = None
    initialization: InitializationSpec = InitializationSpec()
    ema: Annotated[
        Probability | None, Meta(description="decay of the running mean of the weights that is kept; 0: none")
    ] = None
    lookahead: Annotated[
        Probability | None,
        Meta(
            description="every 5 steps weights return to their running mean; each step keeps this share of it, "
            "growing from 0; 0: never"
        ),
    ] = None
    early_stopping: Annotated[EarlyStoppingSpec | None, Meta(description="null: run all epochs")] = None
    keep: Annotated[
        Literal["best", "last"] | None,
        Meta(description="weights of the epoch best on validation, or of the last; null: last if few rows could tell"),
    ] = None
    calibrate: Annotated[
        bool,
        Meta(description="fit one temperature per category on the validation rows, so that probabilities are honest"),
    ] = True
    validation: Annotated[float, Meta(gt=0, lt=1, description="share of train kept for validation")] = 0.1
    precision: Annotated[
        Literal["auto", "bf16", "fp32"], Meta(description="auto: bf16 where the processor has it and it pays")
    ] = "auto"
    threads: Annotated[Positive | None, Meta(description="cores this job may use; null: all")] = None
    seed: int = 0
    budget: Annotated[PositiveFloat | None, Meta(description="seconds the whole run may take; null: 300")] = None


class CrossValidationSpec(Spec, frozen=True):
    """Training once more for each of several folds of the rows that are not the test's, beyond the budget."""

    folds: Annotated[int, Meta(ge=2, le=50, description="how many; each is a whole training")] = 5
    method: Annotated[
        Literal["stratified", "group", "time"],
        Meta(
            description="stratified: each class in every fold; group: rows with one value of the column are never on "
            "both sides; time: rows held out are later than those trained on"
        ),
    ] = "stratified"
    column: Annotated[str | None, Meta(description="group, time: the column of the data that says it")] = None


class EvaluateSpec(Spec, frozen=True):
    """What the report shows first; it always holds everything."""

    metrics: Annotated[
        tuple[str, ...], Meta(description="metrics in the summary; empty: those usual for the task")
    ] = ()
    cross_validation: Annotated[
        CrossValidationSpec | None, Meta(description="mean and deviation over folds in the report; null: none")
    ] = None


class PackSpec(Spec, frozen=True):
    """How the trained network is packed."""

    precision: Annotated[
        Literal["fp32", "int8"],
        Meta(
            description="int8: products with weights in 8-bit integers, smaller and faster; the report says what it "
            "costs. For texts and tables; convolutions stay as they are"
        ),
    ] = "fp32"


class Recipe(Spec, frozen=True, kw_only=True):
    """Everything about a training job."""

    name: Annotated[str | None, Meta(description="name of the model; null: the stem of the data's file")] = None
    schema_version: int = SCHEMA_VERSION
    data: DataSpec
    inputs: Annotated[
        tuple[InputField, ...] | None, Meta(description="null: every field of the data but the outputs")
    ] = None
    outputs: Annotated[
        tuple[OutputField, ...] | None, Meta(description="null: the folder's class, or the target given")
    ] = None
    clean: CleanSpec = CleanSpec()
    combine: CombineSpec | None = None
    train: TrainSpec = TrainSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    pack: PackSpec = PackSpec()


METRICS: dict[str, tuple[str, ...]] = {
    "category": ("accuracy", "precision", "recall", "f1", "f1_micro", "roc_auc", "calibration_error", "log_loss"),
    "labels": (
        *("f1_micro", "f1", "precision", "recall", "subset_accuracy", "hamming_loss"),
        *("roc_auc", "log_loss"),
    ),
    "number": ("mae", "mse", "rmse", "r2"),
}
"""Summary metrics by type of output; precision, recall and f1 are macro averages."""


def parse_recipe(text: str, *, where: str = "recipe") -> Recipe:
    """Read a recipe from YAML.

    Raises:
        RecipeError: no YAML, an unknown or missing key, or a value that does not fit.
    """
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise RecipeError(f"not valid YAML: {getattr(error, 'problem', error)}", where=f"{where}{line}") from None
    return recipe_from(data, where=where)


def recipe_from(data: object, *, where: str = "recipe") -> Recipe:
    """Make a recipe of plain data (from YAML or JSON) and check it.

    Raises:
        RecipeError: as `parse_recipe`.
    """
    if not isinstance(data, dict):
        raise RecipeError("a recipe is a mapping of keys", where=where, remedy="Begin with 'data: {train: FILE}'")
    version = data.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise RecipeError(
            f"made for recipe schema {version}; this Yunmo reads up to {SCHEMA_VERSION}",
            where=where,
            remedy="Upgrade Yunmo",
        )
    _refuse_tensors(data, where)
    recipe = convert(_with_layer_tags(data), Recipe, what=where, error=RecipeError)
    check_recipe(recipe, where=where)
    return recipe


def _refuse_tensors(data: dict[str, Any], where: str) -> None:
    for part in ("inputs", "outputs"):
        fields = data.get(part)
        for index, field in enumerate(fields if isinstance(fields, list) else []):
            if isinstance(field, dict) and field.get("type") == "tensor":
                raise RecipeError(
                    "fields of type 'tensor' are those of imported ONNX files; nothing is learned of them",
                    where=f"{where}, {part}[{index}]",
                    remedy="For training, use 'vector' (a list of numbers), 'sequence' (steps of numbers) or 'image'",
                )


def dump_recipe(recipe: Recipe) -> str:
    """Write a recipe as YAML that `parse_recipe` reads back to an equal one."""
    return yaml.safe_dump(recipe_data(recipe), sort_keys=False, allow_unicode=True, width=120)


def recipe_data(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain dicts, lists and scalars."""
    # Through JSON, because msgspec.to_builtins leaves tuples: the data must equal what is read back from a file.
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(recipe))
    return plain


def check_recipe(recipe: Recipe, *, where: str = "recipe") -> None:
    """Check what single keys can't show: names that are none or clash, unknown metrics, keys that exclude each other.

    Raises:
        RecipeError: the first contradiction found.
    """
    data = recipe.data
    if recipe.name is not None:
        try:
            check_name(recipe.name, "model")
        except InvalidInput as error:
            raise RecipeError(error.message, where=f"{where}, name", remedy=error.remedy) from None
    if bool(data.train) == bool(data.dataset):
        raise RecipeError(
            "needs either 'train' or 'dataset'", where=f"{where}, data", remedy="Write data: {train: FILE}"
        )
    if data.dataset and (data.validation or data.test):
        raise RecipeError("a dataset brings its own splits", where=f"{where}, data", remedy="Leave out the files")
    names = [field.name for field in (*(recipe.inputs or ()), *(recipe.outputs or ()))]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"two fields are called {name!r}", where=f"{where}, inputs", remedy="Rename one of them")
    for part in ("inputs", "outputs"):
        if getattr(recipe, part) == ():
            raise RecipeError("names no field", where=f"{where}, {part}", remedy="Leave it out to have it inferred")
    _check_embeddings(recipe.inputs or (), where)
    _check_texts(recipe, where)
    _check_folds(recipe.evaluate.cross_validation, where)
    known = {metric for metrics in METRICS.values() for metric in metrics}
    for metric in recipe.evaluate.metrics:
        if metric not in known:
            raise RecipeError(
                f"unknown metric {metric!r}",
                where=f"{where}, evaluate.metrics",
                remedy=f"Known: {', '.join(sorted(known))}",
            )


def _check_embeddings(inputs: tuple[InputField, ...], where: str) -> None:
    """Refuse vectors of words where an encoder or a tokenizer has no use for them."""
    usual = TextField(name="usual").embedding
    for field in inputs:
        if not isinstance(field, TextField) or field.embeddings is None:
            continue
        place = f"{where}, input {field.name}"
        if field.encoder is None or isinstance(field.encoder, BagEncoder):
            raise RecipeError(
                "embeddings are for encoders that read words in their order",
                where=place,
                remedy="Name one of them: encoder: {type: textcnn}, rnn or transformer",
            )
        if not isinstance(field.tokenizer, (WordTokenizer, CharacterTokenizer, NoneType)):
            raise RecipeError(
                f"no file of embeddings has the tokens of tokenizer {field.tokenizer.__struct_config__.tag!r}",
                where=place,
                remedy="Write tokenizer: {type: words}, or {type: characters}",
            )
        if isinstance(field.tokenizer, WordTokenizer) and (field.tokenizer.stem or field.tokenizer.tags):
            raise RecipeError(
                "no file of embeddings has stems, or words with their part of speech",
                where=f"{place}, tokenizer",
                remedy="Leave out stem and tags",
            )
        if field.embedding != usual:
            raise RecipeError(
                "embeddings of a file have their own length", where=f"{place}, embedding", remedy="Leave the key out"
            )


def _check_texts(recipe: Recipe, where: str) -> None:
    for index, field in enumerate(recipe.inputs or ()):
        if isinstance(field, TextField):
            _check_text(field, f"{where}, inputs[{index}]")


def _check_text(field: TextField, where: str) -> None:
    """A pretrained network and its tokenizer go together."""
    pretrained = isinstance(field.encoder, PretrainedEncoder)
    if field.tokenizer is not None and isinstance(field.tokenizer, PretrainedTokenizer) != pretrained:
        message = "a pretrained encoder has its own tokenizer" if pretrained else "only the encoder 'pretrained' has it"
        raise RecipeError(message, where=f"{where}.tokenizer", remedy="Leave it out")
    if pretrained and field.length is not None and field.length < LEAST_LENGTH:
        raise RecipeError(
            f"a pretrained encoder reads at least {LEAST_LENGTH} tokens: two mark beginning and end",
            where=f"{where}.length",
        )


def pretrained_encoders(recipe: Recipe) -> list[tuple[int, PretrainedEncoder]]:
    """Return the pretrained encoders of a recipe, each with the number of its input."""
    return [
        (index, field.encoder)
        for index, field in enumerate(recipe.inputs or ())
        if isinstance(field, TextField) and isinstance(field.encoder, PretrainedEncoder)
    ]


def _check_folds(spec: CrossValidationSpec | None, where: str) -> None:
    if spec is None or (spec.column is not None) == (spec.method != "stratified"):
        return
    needs = spec.column is None
    raise RecipeError(
        f"method {spec.method!r} {'needs a column' if needs else 'takes no column'}",
        where=f"{where}, evaluate.cross_validation",
        remedy="Write {method: group, column: patient}, say" if needs else "Leave it out, or name method group or time",
    )


def with_settings(data: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Return plain recipe data with ``key.path=value`` assignments applied (``--set``); values are read as YAML.

    Raises:
        RecipeError: an assignment without ``=``, or a path through something that is not a mapping.
    """
    changed: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(data))
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise RecipeError(f"{assignment!r} is not KEY=VALUE", where="--set", remedy="Write train.epochs=20, say")
        place: Any = changed
        for index, key in enumerate(keys[:-1]):
            place = _step(place, key, ".".join(keys[: index + 1]))
        parsed = yaml.safe_load(value)
        if isinstance(place, list):
            place[_index(place, keys[-1], path)] = parsed
        else:
            place[keys[-1]] = parsed
    return changed


def _step(place: Any, key: str, path: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, key, path)]
    child = place.setdefault(key, {})
    if child is None:
        child = place[key] = {}
    if not isinstance(child, (dict, list)):
        raise RecipeError(f"{path!r} has no keys below it", where="--set")
    return child


def _index(place: list[Any], key: str, path: str) -> int:
    if not key.isdigit() or int(key) >= len(place):
        raise RecipeError(f"{path!r} needs an index from 0 to {len(place) - 1}", where="--set")
    return int(key)


def _with_layer_tags(data: Any) -> Any:
    """Name the kind of each ``{conv: 32}`` layer, which recipes leave out, so that the union of layers is tagged."""
    if isinstance(data, list):
        return [_with_layer_tags(item) for item in data]
    if not isinstance(data, dict):
        return data
    changed = {key: _with_layer_tags(value) for key, value in data.items()}
    layers = changed.get("layers")
    if isinstance(layers, list):
        for layer in layers:
            kinds = [key for key in LAYER_KEYS if isinstance(layer, dict) and key in layer]
            if len(kinds) == 1:
                layer.setdefault("layer", kinds[0])
    return changed
