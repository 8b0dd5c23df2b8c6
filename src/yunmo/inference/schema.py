"""JSON Schemas of what a model takes and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yunmo.core.fields import CategoryOutput, ModelOutput, TensorOutput
from yunmo.data.fields.base import Field
from yunmo.data.fields.registry import open_output


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
    return _value(open_output(output).json_schema() if isinstance(output, TensorOutput) else {"type": "number"})


def _category(names: Sequence[str]) -> dict[str, Any]:
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    return {
        "type": "object",
        "properties": {
            "value": {"type": "string", "enum": list(names), "description": "the most probable category"},
            "probability": {**probability, "description": "its probability"},
            "probabilities": {
                "type": "object",
                "properties": dict.fromkeys(names, probability),
                "required": list(names),
                "additionalProperties": False,
            },
        },
        "required": ["value", "probability", "probabilities"],
        "additionalProperties": False,
    }


def _value(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"value": schema},
        "required": ["value"],
        "additionalProperties": False,
    }
