"""JSON Schemas of what a model takes and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yunmo.core.fields import CategoryOutput, LabelsOutput, ModelOutput, TensorOutput
from yunmo.data.fields.base import Field
from yunmo.data.fields.labels import USUAL_THRESHOLD
from yunmo.data.fields.registry import open_output

SEPARATOR = "x-separator"
"""Key of the schema of a list of labels: what joins them in a cell."""
_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}


def input_schema(fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return the JSON Schema of one row: every field is named, none may be added."""
    return {
        "type": "object",
        "properties": {name: field.json_schema() for name, field in fields.items()},
        "required": list(fields),
        "additionalProperties": False,
    }


def output_schema(outputs: Sequence[ModelOutput], categories: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the JSON Schema of one prediction.

    Args:
        outputs: what the model answers.
        categories: the names of each category output, in order.
    """
    return {
        "type": "object",
        "properties": {output.name: _output(output, categories) for output in outputs},
        "required": [output.name for output in outputs],
        "additionalProperties": False,
    }


def _output(output: ModelOutput, categories: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    if isinstance(output, CategoryOutput):
        return _category(categories[output.name])
    if isinstance(output, LabelsOutput):
        return _labels(output)
    return _value(open_output(output).json_schema() if isinstance(output, TensorOutput) else {"type": "number"})


def _category(names: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "value": {"type": "string", "enum": list(names), "description": "the most probable category"},
            "probability": {**_PROBABILITY, "description": "its probability"},
            "probabilities": _probabilities(names),
        },
        "required": ["value", "probability", "probabilities"],
        "additionalProperties": False,
    }


def _labels(output: LabelsOutput) -> dict[str, Any]:
    held = f"those of a probability of at least {output.threshold or USUAL_THRESHOLD:g}"
    value = {**open_output(output).json_schema(), "description": held, SEPARATOR: output.separator}
    return {
        "type": "object",
        "properties": {"value": value, "probabilities": _probabilities(output.categories or ())},
        "required": ["value", "probabilities"],
        "additionalProperties": False,
    }


def _probabilities(names: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict.fromkeys(names, _PROBABILITY),
        "required": list(names),
        "additionalProperties": False,
    }


def _value(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"value": schema},
        "required": ["value"],
        "additionalProperties": False,
    }
