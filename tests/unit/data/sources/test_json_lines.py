from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from yunmo.core.errors import DataError
from yunmo.data.profile import profile
from yunmo.data.sources.open import open_source
from yunmo.data.sources.pack import pack

Write = Callable[..., Path]
NAME = "rows.jsonl"


def test_keys_are_columns_and_missing_values_none(write_csv: Write) -> None:
    text = '{"a": 1, "b": " x ", "c": true}\n\n{"c": false, "a": null, "b": "NA"}\n{"a": 2.5, "b": "猫", "c": null}\n'
    source = open_source(write_csv(text, NAME))
    assert source.kind == "jsonl"
    assert source.names == ["a", "b", "c"]
    assert source.column("a") == [1, None, 2.5]
    assert source.column("b") == ["x", None, "猫"]
    assert source.column("c") == [True, False, None]
    assert [source.where(row) for row in range(3)] == [f"{NAME}, row {line}" for line in (1, 3, 4)]


def test_the_content_decides_with_or_without_a_byte_order_mark(write_csv: Write) -> None:
    for text in ('{"a": 1}\n', '\ufeff {"a": 1}'):
        assert open_source(write_csv(text, "rows.csv")).column("a") == [1]


def test_lists_of_numbers_are_an_array(write_csv: Write) -> None:
    source = open_source(write_csv('{"v": [1, 2.5], "p": [[1], [2]]}\n{"v": [3, 4], "p": [[3], [4]]}\n', NAME))
    assert np.array_equal(source.column("v"), [[1, 2.5], [3, 4]])
    assert np.shape(source.column("p")) == (2, 2, 1)
    assert [field["type"] for field in profile(source)["fields"]] == ["vector", "image"]


@pytest.mark.parametrize(
    ("text", "message", "row"),
    [
        ('{"a": 1}\n{"b": 1}\n', "lacks 'a' and has 'b'", "2"),
        ('{"a": 1}\n{"a": 1, "b": 1}\n', "has 'b'", "2"),
        ('{"a": 1, "b": 2}\n{"a": 1}\n', "lacks 'b'", "2"),
        ('{"a": 1}\n{"a": 1, "a": 2}\n', "'a' stands twice", "2"),
        ('{"a": 1}\n{"a": {"b": 1}}\n', "an object where", "2, a"),
        ('{"a": 1}\n{"a": [1]}\n', "a list where", "2, a"),
        ('{"a": [1]}\n{"a": 1}\n', "a plain value where", "2, a"),
        ('{"a": [1]}\n{"a": [1, 2]}\n', "a list of 2 numbers where the first row has 1", "2, a"),
        ('{"a": [1]}\n{"a": ["x"]}\n', "other than numbers", "2, a"),
        ('{"a": [1, null]}\n', "other than numbers", "1, a"),
        ('{"a": [[1], [1, 2]]}\n', "other than numbers", "1, a"),
        ('{"a": []}\n', "other than numbers", "1, a"),
        ('{"a": 1}\n[1]\n', "not an object", "2"),
        ('{"a": 1}\n{"a": 2\n', "not valid JSON: Expecting ',' delimiter", "2"),
        ('{"a": 1}\n{"a": "x', "not valid JSON: Unterminated string", "2"),
        ('{"a": NaN}\n', "NaN is no JSON", "1"),
        ('{"a": %s}\n' % ("1" * 5000), "not valid JSON", "1"),
        ('{"a": %s}\n' % ("[" * 100_000), "without end", "1"),
        ('{"a": "\\ud800"}\n', "surrogate", "1, a"),
        ('{"a": "%s"}\n' % ("x" * (2**20 + 1)), "a text of more than", "1, a"),
        ('{"": 1}\n', "a key without a name", "1"),
        ("{}\n", "without keys", "1"),
        (b'{"a": 1}\n{"a": "\xe9"}\n', "0xe9 is not UTF-8", "2"),
        (b'{"a": 1}\n{"a": "' + bytes(2**24), "a line of more than", "2"),
    ],
)
def test_broken_rows_are_named(write_csv: Write, text: str | bytes, message: str, row: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_source(write_csv(text, NAME))
    assert caught.value.where == f"{NAME}, row {row}"


def test_one_json_array_is_told_from_lines(write_csv: Write) -> None:
    with pytest.raises(DataError, match="one JSON array"):
        open_source(write_csv('[ {"a": 1} ]', NAME))


def test_ten_thousand_columns_are_read_and_more_refused(write_csv: Write) -> None:
    def row(columns: int) -> str:
        return json.dumps({f"c{column}": column % 7 for column in range(columns)}) + "\n"

    assert len(profile(open_source(write_csv(row(10_000) * 3, NAME)))["fields"]) == 10_000
    with pytest.raises(DataError, match="10,001 columns; a table may have 10,000"):
        open_source(write_csv(row(10_001), NAME))


def test_pictures_that_rows_name_are_found_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics/1.png").write_bytes(b"1")
    (tmp_path / "t.jsonl").write_text('{"file": "pics/1.png", "kind": "a"}\n', encoding="utf-8")
    source = open_source(pack(tmp_path / "t.jsonl", tmp_path / "t.zip"))
    assert source.kind == "jsonl"
    assert source.is_picture("file")
    assert source.column("file")[0].read() == b"1"


def test_a_broken_table_is_packed_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    for text in ("[1]\n", "{", '{"a": "x.png"}\n"y.png"\n'):
        path.write_text(text, encoding="utf-8")
        assert pack(path, tmp_path / "t.zip") == path
