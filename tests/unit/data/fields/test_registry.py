from __future__ import annotations

import json
import typing

import numpy as np
import pytest

from yunmo.core.fields import ModelInput, ModelOutput, NumberField
from yunmo.data.fields.registry import INPUTS, OUTPUTS, open_field, open_output

VALUES: dict[str, list[object]] = {
    "image": [np.zeros((4, 4, 3), np.uint8).tolist(), np.full((4, 4, 3), 9, np.uint8).tolist()],
    "number": ["1", "2.5"],
    "category": ["a", "b"],
    "date": ["2020-01-01", "2021-05-06"],
    "sequence": [[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]],
    "vector": [[1.0, 2.0], [3.0, 5.0]],
    "text": ["a text", "this text"],
    "tensor": [1.0, 2.5],
    "labels": ["a;b", "b"],
}


def test_every_specification_has_its_behaviour() -> None:
    assert set(INPUTS) == set(typing.get_args(ModelInput))
    assert set(OUTPUTS) == set(typing.get_args(ModelOutput))


@pytest.mark.parametrize("kind", typing.get_args(ModelInput))
def test_every_input_encodes_what_its_tensors_say(kind: type) -> None:
    spec = kind(name="f")
    values = VALUES[spec.__struct_config__.tag]
    field, _ = open_field(spec).resolve(values, str)
    field = open_field(field.spec, field.fit(values))
    encoded = field.encode(values)
    for tensor in field.tensors():
        array = encoded.pop(tensor.name)
        assert str(array.dtype) == tensor.dtype
        assert array.shape == (2, *tensor.shape)
    assert not encoded
    raw = [field.raw(value) for value in values]
    json.dumps([raw, field.json_schema()])
    for name, array in field.encode(raw).items():
        assert np.array_equal(array, field.encode(values)[name])


@pytest.mark.parametrize("kind", typing.get_args(ModelOutput))
def test_every_output_encodes_what_its_tensors_say(kind: type) -> None:
    spec = kind(name="f")
    values = VALUES[spec.__struct_config__.tag]
    field, _ = open_output(spec).resolve(values, str)
    field = open_output(field.spec, field.fit(values))
    (tensor,) = field.tensors()
    assert str(field.encode(values)["f"].dtype) == tensor.dtype
    assert field.known().role == "output"


def test_a_field_that_was_not_fitted_says_so() -> None:
    with pytest.raises(Exception, match="not fitted"):
        open_field(NumberField(name="n")).encode([1])
