"""Which class behaves for which specification. A new field type is one specification, one file and one line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yunmo.core import fields as specs
from yunmo.core.fields import FieldStatistics, ModelInput, ModelOutput
from yunmo.data.fields.base import Field
from yunmo.data.fields.category import CategoryField, CategoryOutput
from yunmo.data.fields.date import DateField
from yunmo.data.fields.image import ImageField
from yunmo.data.fields.labels import LabelsOutput
from yunmo.data.fields.number import NumberField, NumberOutput
from yunmo.data.fields.pixels import MAX_PIXELS
from yunmo.data.fields.sequence import SequenceField
from yunmo.data.fields.tensor import TensorField, TensorOutput
from yunmo.data.fields.text import TextField
from yunmo.data.fields.vector import VectorField

if TYPE_CHECKING:
    from yunmo.data.pretrained.folder import Content

INPUTS: dict[type[ModelInput], type[Field]] = {
    specs.ImageField: ImageField,
    specs.NumberField: NumberField,
    specs.CategoryField: CategoryField,
    specs.DateField: DateField,
    specs.SequenceField: SequenceField,
    specs.VectorField: VectorField,
    specs.TextField: TextField,
    specs.TensorField: TensorField,
}
OUTPUTS: dict[type[ModelOutput], type[Field]] = {
    specs.CategoryOutput: CategoryOutput,
    specs.NumberOutput: NumberOutput,
    specs.LabelsOutput: LabelsOutput,
    specs.TensorOutput: TensorOutput,
}


def open_field(
    spec: ModelInput,
    statistics: FieldStatistics | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    pretrained: Content | None = None,
) -> Field:
    """Return the input field of a specification.

    Args:
        spec: what the recipe says of it.
        statistics: what training learned of it; without them a field can be fitted, but does not encode.
        max_pixels: most pixels of a picture that is decoded.
        pretrained: what comes with a text's pretrained encoder.
    """
    if isinstance(spec, specs.ImageField):
        return ImageField(spec, statistics, max_pixels=max_pixels)
    if isinstance(spec, specs.TextField):
        return TextField(spec, statistics, pretrained=pretrained)
    return INPUTS[type(spec)](spec, statistics)


def open_output(spec: ModelOutput, statistics: FieldStatistics | None = None) -> Field:
    """Return the output field of a specification."""
    return OUTPUTS[type(spec)](spec, statistics)
