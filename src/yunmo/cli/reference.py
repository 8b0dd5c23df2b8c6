"""The recipe reference, written from the specifications: ``python -m yunmo.cli.reference > docs/recipe.md``."""

from __future__ import annotations

import inspect as python_inspect
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import inspect

from yunmo.core import encoders, fields, recipe, tokenizers

_HEADER = """\
# Recipe reference

<!-- Generated from the specifications by `make reference`. Do not edit. -->

A recipe says everything about a training job. Only `data` must be there; every other key has the default that this page
names, or is decided from task, data, cores and budget (default `null`) and shown before training starts. An unknown key
is an error. Paths are relative to the recipe's folder. `yunmo train recipe.yaml --set train.epochs=20` overrides a key.

```yaml
name: pets
data: {train: pets/train.zip, test: pets/test.zip}
train: {epochs: 20}
```
"""

_SECTIONS: tuple[tuple[str, str, tuple[type, ...]], ...] = (
    ("The recipe", "", (recipe.Recipe,)),
    ("Data and cleaning", "", (recipe.DataSpec, recipe.CleanSpec)),
    (
        "Inputs",
        "A field's `type` says which of these it is.",
        (
            fields.ImageField,
            fields.NumberField,
            fields.CategoryField,
            fields.DateField,
            fields.SequenceField,
            fields.VectorField,
            fields.TextField,
        ),
    ),
    (
        "Tokenizers of texts",
        "What a text is split into; its `type` says which of these it is.",
        (
            tokenizers.NgramTokenizer,
            tokenizers.WordTokenizer,
            tokenizers.CharacterTokenizer,
            tokenizers.SubwordTokenizer,
            tokenizers.PretrainedTokenizer,
        ),
    ),
    ("Parts of inputs", "", (fields.Outliers, fields.Augment, fields.Embeddings)),
    (
        "Outputs",
        "An output's `type` says which of these it is.",
        (fields.CategoryOutput, fields.NumberOutput, fields.LabelsOutput),
    ),
    (
        "Encoders",
        "What turns a field into features; its `type` says which of these it is.",
        (
            encoders.ResnetEncoder,
            encoders.CnnEncoder,
            encoders.RnnEncoder,
            encoders.MlpEncoder,
            encoders.FlatEncoder,
            encoders.OneHotEncoder,
            encoders.OrdinalEncoder,
            encoders.EmbeddingEncoder,
            encoders.BagEncoder,
            encoders.TextCnnEncoder,
            encoders.TransformerEncoder,
            encoders.PretrainedEncoder,
        ),
    ),
    ("Parts of the encoder `pretrained`", "", (encoders.LoraSpec,)),
    (
        "Layers of the `cnn` encoder",
        "A layer is known by its first key.",
        (encoders.ConvLayer, encoders.PoolLayer, encoders.DenseLayer),
    ),
    ("Network", "", (recipe.CombineSpec, recipe.InitializationSpec)),
    ("Training", "", (recipe.TrainSpec, recipe.ScheduleSpec, recipe.EarlyStoppingSpec)),
    ("Evaluation", "", (recipe.EvaluateSpec, recipe.CrossValidationSpec)),
    ("Packing", "", (recipe.PackSpec,)),
)


def reference() -> str:
    """Return the recipe reference as Markdown."""
    return "\n".join([_HEADER, *_body()])


def documented() -> set[type]:
    """Return the specifications that the reference describes."""
    return {kind for _, _, kinds in _SECTIONS for kind in kinds}


def _body() -> Iterator[str]:
    for title, text, kinds in _SECTIONS:
        yield f"## {title}\n"
        if text:
            yield f"{text}\n"
        for kind in kinds:
            yield from _spec(kind)
    yield "## Metrics\n"
    for task, names in recipe.METRICS.items():
        yield f"- {task}: {', '.join(f'`{name}`' for name in names)}"
    yield ""


def _spec(kind: type) -> Iterator[str]:
    struct = inspect.type_info(kind)
    if not isinstance(struct, inspect.StructType):
        raise TypeError(f"{kind.__name__} is no specification")
    yield f"### {_name(struct)}\n"
    yield f"{_paragraph(kind)}\n"
    if not struct.fields:
        yield "It has no keys but its type.\n"
        return
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    for field in struct.fields:
        cells = (f"`{field.encode_name}`", _cell(value_of(field.type)), _default(field), _cell(_meaning(field)))
        yield f"| {' | '.join(cells)} |"
    yield ""


def _name(struct: inspect.StructType) -> str:
    return f"{struct.cls.__name__}" + (
        f": `{struct.tag_field}: {struct.tag}`" if struct.tag_field and struct.tag_field != "layer" else ""
    )


def _paragraph(kind: type) -> str:
    return " ".join((python_inspect.getdoc(kind) or "").replace("``", "`").split())


def _meaning(field: inspect.Field) -> str:
    """Return a key's description: its own, or else that of the specification that its value is."""
    for kind in _walk(field.type):
        if isinstance(kind, inspect.Metadata) and kind.extra_json_schema:
            return str(kind.extra_json_schema.get("description", ""))
    structs = [kind for kind in _walk(field.type) if isinstance(kind, inspect.StructType)]
    return _paragraph(structs[0].cls) if len(structs) == 1 else ""


def _walk(kind: inspect.Type) -> Iterator[inspect.Type]:
    yield kind
    if isinstance(kind, inspect.Metadata):
        yield from _walk(kind.type)
    elif isinstance(kind, inspect.UnionType):
        for member in kind.types:
            yield from _walk(member)


def value_of(kind: inspect.Type) -> str:
    """Return what a type takes, in words for a person who writes YAML."""
    match kind:
        case inspect.Metadata():
            return value_of(kind.type)
        case inspect.UnionType():
            return " or ".join(_unique(value_of(member) for member in sorted(kind.types, key=_place)))
        case inspect.LiteralType():
            return ", ".join(f"`{value}`" for value in sorted(kind.values, key=str))
        case inspect.StructType():
            return (
                f"`{kind.tag}`" if kind.tag_field == "type" else f"[{kind.cls.__name__}](#{kind.cls.__name__.lower()})"
            )
        case inspect.VarTupleType() | inspect.ListType():
            item = value_of(kind.item_type)
            return f"list of {item}"
        case inspect.DictType():
            return f"mapping to {value_of(kind.value_type)}"
        case inspect.IntType() | inspect.FloatType():
            return _range(kind)
        case inspect.NoneType():
            return "`null`"
        case inspect.StrType():
            return "text"
        case inspect.BoolType():
            return "`true`, `false`"
    raise TypeError(f"{type(kind).__name__} has no words in the reference")


def _place(kind: inspect.Type) -> int:
    """Return where an alternative stands: specifications as on this page, null last.

    Python caches equal unions, so their own order depends on which of them was made first.
    """
    if isinstance(kind, inspect.StructType):
        return [each for _, _, kinds in _SECTIONS for each in kinds].index(kind.cls)
    return 1000 if isinstance(kind, inspect.NoneType) else -1


def _unique(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))


def _range(kind: inspect.IntType | inspect.FloatType) -> str:
    word = "integer" if isinstance(kind, inspect.IntType) else "number"
    bounds = [
        f"{sign} {bound:g}"
        for sign, bound in (("≥", kind.ge), (">", kind.gt), ("≤", kind.le), ("<", kind.lt))
        if bound is not None
    ]
    return f"{word} {', '.join(bounds)}".strip()


def _default(field: inspect.Field) -> str:
    if field.required:
        return "**needed**"
    value: Any = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, msgspec.Struct):
        return "its defaults"
    return f"`{msgspec.json.encode(value).decode()}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.write(reference())
