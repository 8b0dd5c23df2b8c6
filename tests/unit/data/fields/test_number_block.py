from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yunmo.core import fields as specs
from yunmo.core.errors import InvalidInput
from yunmo.core.fields import JOINED_NUMBERS, FieldStatistics, Outliers
from yunmo.data.fields.number import LARGEST, NumberBlock, NumberField, join_numbers


def fitted(name: str, *, fill: float | None, low: float | None = None, high: float | None = None) -> NumberField:
    outliers = None if low is None else Outliers(method="iqr", threshold=1.5, action="clip")
    spec = specs.NumberField(name=name, missing="drop" if fill is None else "median", outliers=outliers)
    statistics = FieldStatistics(
        name=name, type="number", role="input", encode_version=1, count=1, fill=fill, low=low, high=high
    )
    return NumberField(spec, statistics)


FIELDS = [
    fitted("plain", fill=0.5),
    fitted("strict", fill=None),
    fitted("clipped", fill=-3.25, low=-10.0, high=1e6),
    fitted("narrow", fill=7.0, low=0.1, high=0.2),  # the fill is beyond the limits
    fitted("strict and clipped", fill=None, low=-1.0, high=1.0),
]
BLOCK = NumberBlock(FIELDS)

usual = st.one_of(st.floats(-1e6, 1e6), st.integers(-(10**6), 10**6), st.none(), st.just(math.nan))
any_float = st.floats(allow_nan=True, allow_infinity=True)
edges = st.sampled_from(
    [0.0, -0.0, 1e-320, LARGEST, -LARGEST, LARGEST * 1.0000001, 2**24 + 1, 2**53 + 1, 2**63, 2**64, 10**30, 10**400]
)
odd = st.one_of(
    st.booleans(),
    st.text(max_size=4),
    st.sampled_from(["1", "1.5", " 2 ", "", "NaN", "null", "1e3", "1,234", "1_0", "inf", "ä"]),
    st.sampled_from([[], {}, b"1", (), 1j, np.float32(2.5), np.int8(3), np.float64("nan"), np.bool_(True)]),
)
values = st.one_of(usual, usual, usual, any_float, edges, odd)


def alone(columns: list[list[Any]]) -> dict[str, Any] | None:
    """Return what the fields give one by one; None if one of them refuses."""
    found: dict[str, Any] = {}
    try:
        for field, column in zip(FIELDS, columns, strict=True):
            found |= field.encode(column)
    except InvalidInput:
        return None
    return found


def check(columns: list[list[Any]]) -> bool:
    """Hold the block against its fields; say whether it answered."""
    together, one_by_one = BLOCK.encode(list(zip(*columns, strict=True))), alone(columns)
    if together is None:
        return False
    assert one_by_one is not None, "the block read what a field refuses"
    assert together.dtype == np.float32
    expected = join_numbers(one_by_one, [field.name for field in FIELDS])
    assert expected.keys() == {JOINED_NUMBERS}
    assert together.shape == expected[JOINED_NUMBERS].shape
    assert together.tobytes() == expected[JOINED_NUMBERS].tobytes()  # bit by bit, the sign of 0 too
    return True


def tables(cells: st.SearchStrategy[Any]) -> st.SearchStrategy[list[list[Any]]]:
    """Make columns of one length, one for each field."""
    return st.integers(0, 5).flatmap(
        lambda rows: st.tuples(*(st.lists(cells, min_size=rows, max_size=rows) for _ in FIELDS)).map(list)
    )


@given(tables(values))
def test_whatever_comes_a_block_gives_what_its_fields_give_or_leaves_it_to_them(columns: list[list[Any]]) -> None:
    check(columns)


@given(tables(st.one_of(st.floats(-1e6, 1e6), st.integers(-(10**20), 10**20))))
def test_plain_numbers_are_always_answered(columns: list[list[Any]]) -> None:
    assert check(columns)


@given(st.lists(st.one_of(usual, st.floats(width=32, allow_infinity=False)), min_size=1, max_size=5))
def test_missing_numbers_are_filled_where_something_stands_for_them(column: list[Any]) -> None:
    zeros = [0.0] * len(column)
    assert check([column, zeros, column, column, zeros])


@pytest.mark.parametrize("value", [True, "1", "", math.inf, 1e39, 10**400, b"1", [1], np.float32(1)])
def test_what_a_field_has_to_look_at_itself_is_left_to_it(value: Any) -> None:
    for index in range(len(FIELDS)):
        columns: list[list[Any]] = [[1.0, 2.0] for _ in FIELDS]
        columns[index][1] = value
        assert BLOCK.encode(list(zip(*columns, strict=True))) is None


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_missing_number_that_nothing_stands_for_is_left_to_its_field(missing: Any) -> None:
    columns = [[1.0, missing] for _ in FIELDS]
    assert BLOCK.encode(list(zip(*columns, strict=True))) is None
    assert alone(columns) is None
