from __future__ import annotations

import numpy as np
import pytest

from yunmo.core import fields as specs
from yunmo.core.errors import DataError, InvalidInput
from yunmo.data.fields.vector import VectorField


def _fitted(values: object) -> VectorField:
    field = VectorField(specs.VectorField(name="v"))
    return VectorField(field.spec, field.fit(values))


def test_vectors_keep_their_values() -> None:
    array = np.random.default_rng(0).normal(3, 2, size=(9000, 4)).astype(np.float32)
    field = _fitted(array)
    assert np.array_equal(field.encode(array[:5])["v"], array[:5])
    assert field.known().mean == pytest.approx(array.mean(axis=0, dtype=np.float64).tolist())
    assert field.known().deviation == pytest.approx(array.std(axis=0, dtype=np.float64).tolist())
    assert field.tensors()[0].shape == (4,)


@pytest.mark.parametrize("value", [None, [1, 2], [1, 2, 3, 4, 5], "x", [[1, 2, 3, 4]], [1, 2, 3, float("inf")]])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(InvalidInput):
        _fitted(np.ones((2, 4))).encode([value])


def test_missing_rows_are_dropped_and_lengths_must_agree() -> None:
    field = VectorField(specs.VectorField(name="v"))
    assert field.clean(["[1, 2]", None], str).keep.tolist() == [True, False]
    with pytest.raises(DataError, match="3 numbers where others have 2"):
        field.clean(["[1, 2]", "[1, 2, 3]"], str)
    with pytest.raises(DataError, match="NaN"):
        field.clean(np.array([[1.0, np.nan]]), str)
