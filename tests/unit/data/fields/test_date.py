from __future__ import annotations

import numpy as np
import pytest

from yunmo.core import fields as specs
from yunmo.core.errors import DataError, InvalidInput
from yunmo.data.fields.date import FORMATS, DateField, detect_format, parse_date


def _fitted(values: list[object], **keys: object) -> DateField:
    field, _ = DateField(specs.DateField(name="day", **keys)).resolve(values, str)
    return DateField(field.spec, field.fit(values))


def test_a_date_becomes_six_numbers() -> None:
    field = _fitted(["1970-01-02 06:30:00", "1912-04-15 00:00:00"])
    assert field.encode(["1970-01-02 06:30:00"])["day"].tolist() == [[1970, 1, 2, 4, 6.5, 1]]
    assert field.spec.format == "%Y-%m-%d %H:%M:%S"


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (["2024-02-29"], "%Y-%m-%d"),
        (["15.04.1912"], "%d.%m.%Y"),
        (["04/15/1912", "01/02/1912"], "%m/%d/%Y"),
        (["15/04/1912"], "%d/%m/%Y"),
        (["2024-02-29T10:11:12+02:00"], "%Y-%m-%dT%H:%M:%S%z"),
        (["5 Apr 2024"], "%d %b %Y"),
        (["2024年2月29日"], "%Y年%m月%d日"),
        (["hello"], None),
        (["12.5"], None),
        (["2024-13-01"], None),
    ],
)
def test_the_format_is_found(texts: list[str], form: str | None) -> None:
    assert detect_format(texts)[0] == form


def test_two_fitting_formats_are_said() -> None:
    _, decisions = DateField(specs.DateField(name="day")).resolve(["01/02/2020"], str)
    assert decisions[0].value == "%d/%m/%Y"
    assert "%m/%d/%Y" in decisions[0].reason


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_reads_what_it_writes(form: str) -> None:
    from datetime import UTC, datetime

    moment = datetime(2024, 2, 9, 10, 11, 0, tzinfo=UTC)
    found = parse_date(moment.strftime(form), form)
    assert found is not None
    assert (found.year, found.month, found.day) == (2024, 2, 9)


def test_missing_dates_are_the_median() -> None:
    field = _fitted(["2020-01-01", None, "2020-01-03", "2020-01-09"])
    assert field.encode([None])["day"][0, 2] == 3
    assert field.known().missing == 1
    assert np.isfinite(field.known().mean).all()


def test_other_formats_are_refused_with_rows() -> None:
    field = DateField(specs.DateField(name="day", format="%Y-%m-%d"))
    with pytest.raises(DataError) as caught:
        field.clean(["2020-01-01", "1/2/2020"], lambda row: f"t.csv, row {row + 2}")
    assert caught.value.where == "t.csv, row 3, field day"
    with pytest.raises(DataError, match="no known date format"):
        DateField(specs.DateField(name="day")).resolve(["monday"], str)


@pytest.mark.parametrize("value", ["1/2/2020", 5, ["2020-01-01"], "2020-02-30"])
def test_requests_with_something_else_are_refused(value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        _fitted(["2020-01-01", "2020-01-02"]).encode([value])
    assert caught.value.where == "row 0, field day"
