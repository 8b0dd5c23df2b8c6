from __future__ import annotations

import datetime as dt
import os
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from yunmo.core.errors import DataError, MissingExtra
from yunmo.data.limits import DEFAULT_LIMITS
from yunmo.data.profile import profile
from yunmo.data.sources.open import open_source


def _write(path: Path, columns: Any, **options: Any) -> Path:
    parquet.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.parquet"


def test_columns_of_every_plain_type(file: Path) -> None:
    day = dt.date(2026, 11, 22)
    noon = dt.datetime(2026, 11, 22, 12, 0, 0, 5, tzinfo=dt.timezone(dt.timedelta(hours=8)))
    columns = {
        "whole": [1, 2, 3],
        "number": [1.5, None, 2.5],
        "text": [" x ", "NA", None],
        "yes": [True, None, False],
        "day": [day, None, day],
        "time": pa.array([noon, noon, None], pa.timestamp("ns", "Asia/Shanghai")),
        "price": pa.array([1, 2, 3]).cast(pa.decimal128(22, 2)),
        "kind": pa.array(["a", "b", "a"]).dictionary_encode(),
        "none": pa.nulls(3),
    }
    source = open_source(_write(file, columns))
    assert source.kind == "parquet"
    assert source.names == list(columns)
    found = {name: list(source.column(name)) for name in source.names}
    assert found == {
        "whole": [1, 2, 3],
        "number": [1.5, None, 2.5],
        "text": ["x", None, None],
        "yes": [True, None, False],
        "day": ["2026-11-22", None, "2026-11-22"],
        "time": ["2026-11-22 04:00:00", "2026-11-22 04:00:00", None],
        "price": [1.0, 2.0, 3.0],
        "kind": ["a", "b", "a"],
        "none": [None, None, None],
    }
    assert source.where(2) == "rows.parquet, row 2 (from 0)"
    assert [field["type"] for field in profile(source)["fields"]][4:6] == ["date", "date"]


def test_lists_of_one_length_are_an_array(file: Path) -> None:
    vectors = np.arange(60_000, dtype=np.float32).reshape(20_000, 3)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 3)
    steps = [[[1, 2], [3, 4]]] * 20_000
    source = open_source(_write(file, {"v": vectors.tolist(), "f": lists, "s": steps}, row_group_size=7000))
    assert np.array_equal(source.column("v"), vectors)
    assert np.array_equal(source.column("f"), vectors)
    assert np.shape(source.column("s")) == (20_000, 2, 2)


@pytest.mark.parametrize(
    ("values", "message", "where"),
    [
        ([{"a": 1}, {"a": 2}], "values of the type struct", "column x"),
        ([[{"a": 1}], [{"a": 2}]], "lists of struct", "column x"),
        (pa.array([[("a", 1)]] * 2, pa.map_(pa.string(), pa.int64())), "values of the type map", "column x"),
        ([["a"], ["b"]], "lists of string", "column x"),
        ([b"1", b"2"], "values of the type binary", "column x"),
        ([dt.time(1), dt.time(2)], "values of the type time", "column x"),
        ([[1], [1, 2]], "a list of 2 where the first row has 1", "row 1 (from 0), x"),
        ([[1, 2], None], "a missing list", "row 1 (from 0), x"),
        ([[1, 2], [1, None]], "a missing number", "row 1 (from 0), x"),
        ([[[1], [2]], [[1], [2, 3]]], "a list of 2 where the first row has 1", "row 1 (from 0), x"),
    ],
)
def test_other_values_are_refused_where_they_are(file: Path, values: Any, message: str, where: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_source(_write(file, {"ok": [1, 2], "x": values}))
    assert caught.value.where == f"rows.parquet, {where}"
    assert caught.value.remedy


def test_texts_that_are_not_utf8_are_named_with_their_row(file: Path) -> None:
    raw = pa.array([b"ok"] * 9000 + [b"\xff", b"ok"])
    texts = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    with pytest.raises(DataError, match="0xff is not UTF-8") as caught:
        open_source(_write(file, {"s": texts}))
    assert caught.value.where == "rows.parquet, row 9000 (from 0), s"


def test_names_that_stand_twice_and_empty_tables_are_refused(file: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    with pytest.raises(DataError, match="2 columns are called 'a'"):
        open_source(_write(file, twice))
    with pytest.raises(DataError, match="no rows"):
        open_source(_write(file, {"a": pa.array([], pa.int64())}))
    with pytest.raises(DataError, match="no rows"):
        open_source(_write(file, pa.table({})))


def test_ten_thousand_columns_are_read_and_more_refused(file: Path) -> None:
    source = open_source(_write(file, {f"c{column}": [column, 1, 2] for column in range(10_000)}))
    assert len(source.names) == 10_000
    with pytest.raises(DataError, match="10,001 columns"):
        open_source(_write(file, {f"c{column}": [1] for column in range(10_001)}))


def test_a_small_file_of_very_many_cells_is_refused_before_they_fill_the_memory(file: Path) -> None:
    _write(file, {"a": np.zeros(5_000_000, np.int64)})
    assert file.stat().st_size < 50_000
    with pytest.raises(DataError, match="more than 1,000,000 bytes") as caught:
        open_source(file, limits=replace(DEFAULT_LIMITS, memory=1_000_000))
    assert "row" in str(caught.value.where)


def test_a_long_text_in_every_row_is_kept_once(file: Path) -> None:
    """10 GB as plain texts."""
    places = pa.array(np.zeros(10_000, np.int32))
    _write(
        file, {"a": pa.DictionaryArray.from_arrays(places, pa.array(["x" * 10**6]))}, dictionary_pagesize_limit=10**8
    )
    assert len(set(open_source(file).column("a"))) == 1


def test_a_text_over_the_limit_is_refused_where_it_is(file: Path) -> None:
    with pytest.raises(DataError, match="a text of more than 1,048,576 bytes") as caught:
        open_source(_write(file, {"a": ["x", "y", "x" * (2**20 + 1)]}))
    assert caught.value.where == "rows.parquet, row 2 (from 0), a"


@pytest.mark.parametrize("keep", [5, 12, 0.5, 0.99])
def test_truncated_files_are_damaged(file: Path, keep: float) -> None:
    data = _write(file, {"a": list(range(1000))}).read_bytes()
    file.write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
    with pytest.raises(DataError, match="a damaged Parquet file"):
        open_source(file)


def test_files_with_changed_bytes_are_read_or_refused(file: Path) -> None:
    columns = {"a": list(range(500)), "s": [f"x{i % 5}" for i in range(500)], "v": [[1, 2]] * 500}
    data = _write(file, columns).read_bytes()
    generator = random.Random(0)  # noqa: S311 - it makes test data
    refused = 0
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(generator.randint(1, 4)):
            changed[generator.randrange(4, len(data))] = generator.randrange(256)
        file.write_bytes(changed)
        try:
            assert len(open_source(file)) == 500
        except DataError:
            refused += 1
    assert refused > 100


def test_an_encrypted_file_is_named_as_one(file: Path) -> None:
    file.write_bytes(b"PARE" + os.urandom(100) + b"PARE")
    with pytest.raises(DataError, match="an encrypted Parquet file"):
        open_source(file)


def test_without_pyarrow_the_extra_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(file, {"a": [1]})
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra) as caught:
        open_source(file)
    assert "yunmo[parquet]" in str(caught.value.remedy)
