from __future__ import annotations

import numpy as np
import pytest

from yunmo.core import fields as specs
from yunmo.core.errors import DataError, InvalidInput
from yunmo.data.fields.sequence import SequenceField


def _fitted(values: object, **keys: object) -> SequenceField:
    field, _ = SequenceField(specs.SequenceField(name="x", **keys)).resolve(values, str)
    return SequenceField(field.spec, field.fit(values))


RAGGED = [[[1, 2], [3, 4], [5, 6]], [[7, 8]]]


def test_short_sequences_are_padded_and_long_ones_cut() -> None:
    field = _fitted(RAGGED)
    found = field.encode([*RAGGED, [[0, 1]] * 5])
    assert found["x"].shape == (3, 3, 2)
    assert found["x"][1].tolist() == [[7, 8], [0, 0], [0, 0]]
    assert found["x_length"].tolist() == [3, 1, 3]


def test_padding_does_not_count_in_the_statistics() -> None:
    statistics = _fitted(RAGGED).known()
    assert statistics.mean == (4, 5)
    assert statistics.minimum == (1, 2)
    assert statistics.shape == (3, 2)


def test_arrays_and_lists_are_the_same() -> None:
    array = np.random.default_rng(0).normal(size=(5, 4, 2))
    one, other = _fitted(array), _fitted(array.tolist())
    assert one.known().mean == pytest.approx(other.known().mean)
    assert np.array_equal(one.encode(array)["x"], other.encode(array.tolist())["x"])


def test_a_list_of_numbers_is_one_channel_and_text_is_json() -> None:
    field = _fitted([[1, 2, 3]])
    assert field.encode(["[4, 5]"])["x"].tolist() == [[[4], [5], [0]]]


@pytest.mark.parametrize("value", [None, "x", [], [[1, 2], [3]], [[1, float("nan")]], [["a", "b"]], [[1, 2, 3]], 5])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        _fitted(RAGGED).encode([value])
    assert caught.value.where == "row 0, field x"


def test_nan_and_other_widths_in_files_name_the_row() -> None:
    array = np.zeros((3, 2, 2))
    array[1, 0, 0] = np.inf
    field = SequenceField(specs.SequenceField(name="x"))
    with pytest.raises(DataError) as caught:
        field.clean(array, lambda row: f"a.npz, row {row}")
    assert caught.value.where == "a.npz, row 1, field x"
    with pytest.raises(DataError, match="steps of 1 numbers where others have 2"):
        field.clean(["[[1, 2]]", "[[1]]"], str)


def test_raw_encodes_to_the_same() -> None:
    field = _fitted(RAGGED)
    assert np.array_equal(field.encode([field.raw(RAGGED[1])])["x"], field.encode([RAGGED[1]])["x"])
