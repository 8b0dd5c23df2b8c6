"""Which networks are worth a probe: the one that `plan` would take, then others and other sizes. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from yunmo.core import encoders as specs
from yunmo.core.fields import (
    FieldStatistics,
    ImageField,
    InputField,
    SequenceField,
    TextField,
)
from yunmo.core.recipe import CombineSpec, Recipe
from yunmo.training.plan import complete

_WIDER = 2
"""How much wider or narrower another size is."""
_TEXTS: dict[str, dict[str, Any]] = {
    "textcnn": {"dropout": 0.2, "encoder": specs.TextCnnEncoder()},
    "gru": {
        "dropout": 0.3,
        "encoder": specs.RnnEncoder(cell="gru", hidden=96, bidirectional=True, pool="attention", dropout=0.4),
    },
    "transformer": {"dropout": 0.2, "encoder": specs.TransformerEncoder(dropout=0.2)},
}
"""As the recipes of the folder ``recipes`` have them."""
_TABLES = {"small": (16,), "large": (256, 256)}
"""Units of the layers of each network of a table, beside the plan's own."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A network for a task."""

    name: str
    recipe: Recipe
    """What is asked for, with the fields named: what it leaves open, training decides."""
    settings: tuple[str, ...] = ()
    """What ``yunmo train --set`` gets for it, beside what was asked for; nothing for the first choice."""


def choices(
    asked: Recipe, named: Recipe, statistics: dict[str, FieldStatistics], *, rows: int, cores: int
) -> list[Choice]:
    """Return the networks to compare, the first of them what training would take by itself.

    Args:
        asked: the recipe as it was given.
        named: the same with its fields named, as preparing does.
        statistics: of the fields.
        rows: of training data.
        cores: processor cores.
    """
    inputs = tuple(_as_asked(field, asked) for field in named.inputs or ())
    recipe = msgspec.structs.replace(asked, inputs=inputs, outputs=named.outputs)
    planned, _ = complete(msgspec.structs.replace(named, train=asked.train), statistics, rows, rows, cores=cores)
    place = _main(inputs)
    if place is None:
        return _tables(recipe, planned)
    others = _others(planned.inputs or (), place, statistics)
    own = inputs[place].encoder
    if own is not None and not isinstance(own, specs.BagEncoder | specs.ResnetEncoder):
        others = {_default_name(inputs[place]): {"encoder": None}, **others}
    chosen = (planned.inputs or ())[place].encoder
    first = Choice(str(chosen.__struct_config__.tag) if chosen is not None else "none", recipe)
    found = [first]
    for name, changes in others.items():
        field = msgspec.structs.replace(inputs[place], **changes)
        if isinstance(field, TextField):
            field = msgspec.structs.replace(field, tokenizer=None, length=None)
        if field.encoder == chosen:
            continue
        other = (*inputs[:place], field, *inputs[place + 1 :])
        settings = _settings(asked, other, place)
        found.append(Choice(name, msgspec.structs.replace(recipe, inputs=other), settings))
    return found


def _main(inputs: Sequence[InputField]) -> int | None:
    """Return the place of the field whose encoder matters most; None: a table, whose fields have no network."""
    for kind in (ImageField, SequenceField, TextField):
        for place, field in enumerate(inputs):
            if isinstance(field, kind):
                return place
    return None


def _as_asked(field: InputField, asked: Recipe) -> InputField:
    """Return a field as the recipe has it, or as inferred with all else open."""
    for given in asked.inputs or ():
        if given.name == field.name:
            return given
    kind = type(field)
    return kind(name=field.name, column=field.column)


def _default_name(field: InputField) -> str:
    if isinstance(field, ImageField):
        return "resnet"
    return "bag" if isinstance(field, TextField) else "rnn"


def _others(
    planned: Sequence[InputField], place: int, statistics: dict[str, FieldStatistics]
) -> dict[str, dict[str, Any]]:
    field = planned[place]
    if isinstance(field, TextField):
        return dict(_TEXTS)
    if isinstance(field, ImageField):
        return _pictures(field, statistics[field.name].shape)
    recurrent = specs.RnnEncoder(cell="gru", hidden=64, bidirectional=True, project=64, pool="mean_max", dropout=0.2)
    return {
        "rnn, half as wide": {"encoder": recurrent},
        "transformer": {"encoder": specs.TransformerEncoder(size=64, feed_forward=128)},
    }


def _pictures(field: ImageField, shape: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    """Return other widths of the residual network, and a plain one."""
    found: dict[str, dict[str, Any]] = {}
    if isinstance(field.encoder, specs.ResnetEncoder):
        for name, filters in (
            ("resnet, half as wide", tuple(max(4, count // _WIDER) for count in field.encoder.filters)),
            ("resnet, twice as wide", tuple(count * _WIDER for count in field.encoder.filters)),
        ):
            found[name] = {"encoder": msgspec.structs.replace(field.encoder, filters=filters)}
    layers: list[specs.Layer] = []
    side, filters_of = min(shape[:2]), 32
    while side >= 4 and filters_of <= 128:
        layers += [
            specs.ConvLayer(conv=filters_of, padding="same", batch_norm=True),
            specs.PoolLayer(pool="max"),
        ]
        side, filters_of = side // 2, filters_of * 2
    if layers:
        found["cnn"] = {"encoder": specs.CnnEncoder(layers=(*layers, specs.DenseLayer(dense=128, dropout=0.3)))}
    return found


def _tables(recipe: Recipe, planned: Recipe) -> list[Choice]:
    """Return other sizes of the networks on top of fields that have none."""
    combine = planned.combine or CombineSpec()
    kind = _table_name(combine, planned)
    found = [Choice(kind, recipe)]
    if any(field.encoder is not None and not _plain(field.encoder) for field in recipe.inputs or ()):
        return found
    for size, hidden in _TABLES.items():
        other = msgspec.structs.replace(combine, hidden=hidden)
        if other != combine:
            setting = f"combine={_flow(other)}"
            found.append(Choice(f"mlp, {size}", msgspec.structs.replace(recipe, combine=other), (setting,)))
    return found


def _plain(encoder: specs.Encoder) -> bool:
    return isinstance(encoder, specs.FlatEncoder | specs.OneHotEncoder | specs.OrdinalEncoder | specs.EmbeddingEncoder)


def _table_name(combine: CombineSpec, planned: Recipe) -> str:
    learning = [field.encoder for field in planned.inputs or () if field.encoder and not _plain(field.encoder)]
    if learning:
        return str(learning[0].__struct_config__.tag)
    return "mlp" if combine.hidden else "linear"


def _settings(asked: Recipe, inputs: Sequence[InputField], place: int) -> tuple[str, ...]:
    """Return what changes the one field: by its place if the recipe names fields, else all fields are named."""
    if asked.inputs is None:
        return (f"inputs={_flow(inputs)}",)
    number = [field.name for field in asked.inputs].index(inputs[place].name)
    given, now = asked.inputs[number], inputs[place]
    changed = [key for key in now.__struct_fields__ if getattr(given, key) != getattr(now, key)]
    return tuple(f"inputs.{number}.{key}={_flow(getattr(now, key))}" for key in changed)


def _own(value: Any) -> Any:
    """Return plain data of a specification without what is the default anyway."""
    if isinstance(value, (list, tuple)):
        return [_own(item) for item in value]
    if not isinstance(value, msgspec.Struct):
        return value
    plain: dict[str, Any] = {}
    config = value.__struct_config__
    if config.tag is not None and config.tag_field != "layer":
        plain[str(config.tag_field)] = config.tag
    for field in msgspec.structs.fields(value):
        given = getattr(value, field.name)
        if field.name == "name" or given != field.default or field.required:
            plain[field.encode_name] = _own(given)
    return plain


def _flow(value: Any) -> str:
    """Return a value as YAML on one line, as ``--set`` reads it."""
    import yaml

    text: str = yaml.safe_dump(_own(value), default_flow_style=True, sort_keys=False, width=10**9, allow_unicode=True)
    return text.removesuffix("...\n").strip()
