from __future__ import annotations

import math

import numpy as np
import pytest

from yunmo.core import fields as specs
from yunmo.core.errors import DataError, InvalidInput
from yunmo.core.fields import FieldStatistics
from yunmo.data.fields.number import NumberField, NumberOutput, parse_number


def _where(row: int) -> str:
    return f"t.csv, row {row + 2}"


def _fitted(values: list[object], **keys: object) -> NumberField:
    field = NumberField(specs.NumberField(name="age", **keys))
    return NumberField(field.spec, field.fit(values))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("1", 1), (" -2.5 ", -2.5), ("1e3", 1000), ("1,234.5", 1234.5), ("1,234,567", 1234567), (3, 3)),
        *((np.float32(2), 2), (np.int64(7), 7)),
        *((text, None) for text in ("3,14", "1_000", "inf", "-Infinity", "12 %", "0x10", 1e300, [], True)),
    ],
)
def test_numbers_are_read(text: object, number: float | None) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize("value", [None, "", " ", "NA", "NaN", "null", "?", math.nan, np.float32("nan")])
def test_missing_values_are_nan(value: object) -> None:
    assert math.isnan(parse_number(value) or 0)


@pytest.mark.parametrize(
    ("missing", "fill"), [("mean", 3.25), ("median", 2.0), ("most_frequent", 2.0), ("constant", -1.0)]
)
def test_missing_cells_are_filled_with_what_training_learned(missing: str, fill: float) -> None:
    field = _fitted(["1", "2", None, "2", "8"], missing=missing, constant=-1.0)
    assert field.encode([None, "4"])["age"].tolist() == [fill, 4]
    assert field.known().missing == 1


def test_drop_leaves_rows_out_and_refuses_them_in_requests() -> None:
    field = _fitted(["1", "2", "3"], missing="drop")
    cleaned = field.clean(["1", None, "2"], _where)
    assert cleaned.keep.tolist() == [True, False, True]
    assert cleaned.issues[0].rows == ("t.csv, row 3",)
    with pytest.raises(InvalidInput, match="missing"):
        field.encode([None])


def test_clean_counts_missing_cells_and_names_rows() -> None:
    (issue,) = NumberField(specs.NumberField(name="age")).clean(["1", None, "", "4"], _where).issues
    assert (issue.reason, issue.action, issue.count) == ("missing", "filled with median", 2)
    assert issue.rows == ("t.csv, row 3", "t.csv, row 4")


@pytest.mark.parametrize("bad", ["abc", "inf", "1e999", "3,14"])
def test_what_is_no_number_names_row_and_remedy(bad: str) -> None:
    with pytest.raises(DataError) as caught:
        NumberField(specs.NumberField(name="age")).clean(["1", bad, "3", bad], _where)
    assert caught.value.where == "t.csv, row 3, field age"
    assert "t.csv, row 5" in str(caught.value)
    assert caught.value.remedy


def test_infinity_in_arrays_is_refused_and_nan_is_missing() -> None:
    field = NumberField(specs.NumberField(name="age"))
    with pytest.raises(DataError, match="finite"):
        field.clean(np.array([1.0, np.inf]), _where)
    assert field.clean(np.array([1.0, np.nan]), _where).issues[0].count == 1


def test_half_floats_have_neither_infinity_nor_another_fill() -> None:
    statistics = FieldStatistics(name="age", type="number", role="input", encode_version=1, count=1, fill=70_001.0)
    field = NumberField(specs.NumberField(name="age"), statistics)
    assert field.encode(np.array([1, np.nan], np.float16))["age"].tolist() == [1.0, 70_001.0]
    with pytest.raises(InvalidInput, match="inf is not a finite number"):
        field.encode(np.array([np.inf], np.float16))


def test_iqr_outliers_are_clipped_at_the_limits() -> None:
    values = [*range(1, 101), 10_000]
    field = _fitted(values, outliers=specs.Outliers())
    low, high = np.quantile(values, [0.25, 0.75])
    top = high + 1.5 * (high - low)
    assert field.encode([10_000, 50])["age"].tolist() == pytest.approx([top, 50])
    assert field.known().maximum[0] == pytest.approx(top)
    assert field.beyond(values).nonzero()[0].tolist() == [100]


def test_z_score_outliers_to_drop_are_found_but_not_clipped() -> None:
    values = [0.0] * 50 + [1.0] * 50 + [100.0]
    field = _fitted(values, outliers=specs.Outliers(method="z_score", threshold=3, action="drop"))
    assert field.beyond(values).sum() == 1
    assert field.encode([100])["age"].tolist() == [100]


def test_statistics_are_those_of_what_is_encoded() -> None:
    values: list[object] = ["1", None, "3", "8"]
    field = _fitted(values)
    encoded = field.encode(values)["age"].astype(np.float64)
    statistics = field.known()
    assert statistics.mean[0] == pytest.approx(encoded.mean())
    assert statistics.deviation[0] == pytest.approx(encoded.std())


@pytest.mark.parametrize("value", ["x", [1], {"a": 1}, True, float("inf")])
def test_requests_with_something_else_are_refused(value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        _fitted([1, 2, 3]).encode([1, value])
    assert caught.value.where == "row 1, field age"


def test_target_keeps_its_units_and_drops_missing_rows() -> None:
    field = NumberOutput(specs.NumberOutput(name="price"))
    assert field.clean(["1", None], _where).keep.tolist() == [True, False]
    assert field.encode(["1,200", "3"])["price"].tolist() == [1200, 3]
    with pytest.raises(DataError, match="same"):
        field.fit(["5", "5.0"])


def test_raw_is_a_number_or_none() -> None:
    field = _fitted([1, 2, 3])
    assert [field.raw(value) for value in ("1,000", None, np.float64(2))] == [1000, None, 2]
