"""FIELDS.yaml: how the tensors of an imported ONNX file are fields. What it leaves out is taken from the graph."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from yunmo.core.encoders import Positive
from yunmo.core.errors import InvalidInput
from yunmo.core.fields import Axis, HeightWidth, Name
from yunmo.core.schema import Spec, convert

WHAT = "fields file"
"""What the description is called in messages."""

_TENSOR = "the graph's tensor; null: the one of the field's name, or the only one"
_COLUMNS = "its columns in that tensor, from 0; null: fields of one tensor fill it in the order they are listed"
Column = Annotated[int, Meta(ge=0)]
Columns = Annotated[Column | tuple[Column, ...] | None, Meta(description=_COLUMNS)]
PerChannel = float | tuple[float, ...]


class PixelScale(Spec, frozen=True):
    """How pixels (0 to 255) become the graph's numbers: (pixel / divide - mean) / deviation."""

    divide: Annotated[float, Meta(gt=0)] = 1.0
    mean: Annotated[PerChannel, Meta(description="one number, or one for each channel")] = 0.0
    deviation: Annotated[PerChannel, Meta(description="one number, or one for each channel")] = 1.0


class ImageInput(Spec, frozen=True, tag_field="type", tag="image"):
    """A picture."""

    name: Name
    tensor: Annotated[str | None, Meta(description=_TENSOR)] = None
    size: Annotated[Positive | HeightWidth | None, Meta(description="null: as the graph has it")] = None
    color: Annotated[
        Literal["rgb", "bgr", "gray"] | None,
        Meta(description="order of the channels; null: rgb or gray by their number"),
    ] = None
    layout: Annotated[
        Literal["NCHW", "NHWC"] | None, Meta(description="order of the axes; null: by where the channels are")
    ] = None
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    scale: Annotated[PixelScale, Meta(description="null: pixels as they are, 0 to 255")] = PixelScale()


class NumberInput(Spec, frozen=True, tag_field="type", tag="number"):
    """A number, in one column."""

    name: Name
    tensor: Annotated[str | None, Meta(description=_TENSOR)] = None
    columns: Columns = None
    missing: Annotated[float | None, Meta(description="what stands for null; null: a number must be given")] = None


class CategoryInput(Spec, frozen=True, tag_field="type", tag="category"):
    """One of a set of names; null and any other name count as unknown."""

    name: Name
    categories: Annotated[tuple[str | int, ...], Meta(min_length=1)]
    tensor: Annotated[str | None, Meta(description=_TENSOR)] = None
    columns: Columns = None
    form: Annotated[
        Literal["index", "one_hot", "text"] | None,
        Meta(
            description="the place in categories, a column of 0 or 1 for each, or the name itself; null: text if "
            "the tensor is one of strings"
        ),
    ] = field(default=None, name="as")
    unknown: Annotated[
        str | int | None, Meta(description="what stands for unknown (index, text); one_hot: all columns are 0")
    ] = None


class VectorInput(Spec, frozen=True, tag_field="type", tag="vector"):
    """A list of numbers, in as many columns."""

    name: Name
    length: Positive
    tensor: Annotated[str | None, Meta(description=_TENSOR)] = None
    columns: Columns = None


class TensorInput(Spec, frozen=True, tag_field="type", tag="tensor"):
    """The tensor as it is."""

    name: Name
    tensor: Annotated[str | None, Meta(description=_TENSOR)] = None
    shape: Annotated[
        tuple[Axis | None, ...] | None, Meta(description="without the batch; null: as the graph has it")
    ] = None


Input = ImageInput | NumberInput | CategoryInput | VectorInput | TensorInput
Column_ = NumberInput | CategoryInput | VectorInput


class CategoryAnswer(Spec, frozen=True, tag_field="type", tag="category"):
    """One of a set of classes."""

    name: Name
    categories: Annotated[
        tuple[str | int, ...] | None, Meta(description="in order; null: those that the file itself names (ZipMap)")
    ] = None
    tensor: Annotated[str | None, Meta(description=_TENSOR)] = None
    form: Annotated[
        Literal["logits", "probabilities", "index", "label"],
        Meta(
            description="what the tensor has: a number for each class before softmax, or after it; the best class' "
            "place in categories; its name"
        ),
    ] = field(default="probabilities", name="from")


class NumberAnswer(Spec, frozen=True, tag_field="type", tag="number"):
    """A number."""

    name: Name
    tensor: Annotated[str | None, Meta(description=_TENSOR)] = None
    column: Annotated[Column | None, Meta(description="of a tensor with several columns")] = None


class TensorAnswer(Spec, frozen=True, tag_field="type", tag="tensor"):
    """The tensor as it is."""

    name: Name
    tensor: Annotated[str | None, Meta(description=_TENSOR)] = None


Answer = CategoryAnswer | NumberAnswer | TensorAnswer


class Description(Spec, frozen=True):
    """What FIELDS.yaml holds."""

    inputs: Annotated[tuple[Input, ...] | None, Meta(description="null: every input as a tensor")] = None
    outputs: Annotated[tuple[Answer, ...] | None, Meta(description="null: every output as a tensor")] = None
    examples: Annotated[
        tuple[dict[str, Any], ...], Meta(description="rows to try the model on; none: made-up ones")
    ] = ()


def description_from(data: object) -> Description:
    """Make a description of plain data and check it.

    Raises:
        InvalidInput: an unknown key, a value that does not fit, or two fields of one name.
    """
    if not isinstance(data, dict):
        raise InvalidInput("not a mapping of keys", where=WHAT, remedy="Begin with 'inputs:' or 'outputs:'")
    _refuse_booleans(data)
    description = convert(data, Description, what=WHAT)
    names = [one.name for one in (*(description.inputs or ()), *(description.outputs or ()))]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f"two fields are called {name!r}", where=WHAT, remedy="Rename one of them")
    for part in ("inputs", "outputs"):
        if getattr(description, part) == ():
            raise InvalidInput("names no field", where=f"{WHAT}, {part}", remedy="Leave it out to have all as tensors")
    return description


def _refuse_booleans(data: dict[str, Any]) -> None:
    """YAML reads yes, no, on and off as booleans, which nobody means as the name of a category."""
    for part in ("inputs", "outputs"):
        fields = data.get(part)
        for one in fields if isinstance(fields, list) else []:
            categories = one.get("categories") if isinstance(one, dict) else None
            if isinstance(categories, list) and any(isinstance(name, bool) for name in categories):
                raise InvalidInput(
                    "a category is read as true or false",
                    where=f"{WHAT}, {part}, {one.get('name')}, categories",
                    remedy='Put it in quotes: ["no", "yes"]',
                )
