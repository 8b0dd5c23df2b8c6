from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from yunmo.core.errors import DataError, UnsafeArchive
from yunmo.data.sources.open import open_source

Write = Callable[..., Path]


def test_cells_are_stripped_and_missing_ones_none(write_csv: Write) -> None:
    source = open_source(write_csv('a,b\n 1 ,"x, y"\n,NA\n\n3,"two\nlines"\n4,z\n'))
    assert source.names == ["a", "b"]
    assert source.column("a") == ["1", None, "3", "4"]
    assert source.column("b") == ["x, y", None, "two\nlines", "z"]


def test_rows_are_counted_as_an_editor_counts_lines(write_csv: Write) -> None:
    source = open_source(write_csv('a,b\n1,x\n\n3,"two\nlines"\n4,z\n'))
    assert [source.where(row) for row in range(3)] == ["table.csv, row 2", "table.csv, row 4", "table.csv, row 6"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_other_delimiters_are_told(write_csv: Write, delimiter: str) -> None:
    source = open_source(write_csv(f'a{delimiter}"b,;c"\n1{delimiter}2\n'))
    assert source.names == ["a", "b,;c"]


def test_a_byte_order_mark_and_chinese_are_read(write_csv: Write) -> None:
    assert open_source(write_csv("\ufeff名字,值\n猫,1\n")).column("名字") == ["猫"]


def test_without_a_header_columns_are_called_by_place(write_csv: Write) -> None:
    source = open_source(write_csv("0,1.5,x\n1,2.5,y\n"))
    assert source.names == ["c0", "c1", "c2"]
    assert len(source) == 2
    assert "no header row" in source.notes[0]


def test_a_row_with_an_expected_column_is_a_header(write_csv: Write) -> None:
    path = write_csv("2019,2020\n1,2\n3,4\n")
    assert open_source(path).names == ["c0", "c1"]
    assert open_source(path, expected={"2020"}).names == ["2019", "2020"]


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("", "empty", "table.csv"),
        ("\n\n", "empty", "table.csv"),
        ("a,b\n", "without rows", "table.csv"),
        ("a,b\n1,2\n3\n", "1 cells where the header has 2", "table.csv, row 3"),
        ("a,b\n1,2\n3,4,5\n", "3 cells where the header has 2", "table.csv, row 3"),
        ("a,a\n1,2\n", "2 columns are called 'a'", "table.csv, row 1"),
        ('a,b\n1,"2\n3,4\n', "never closed", "table.csv, row 2"),
        ('a,b\n1,"2"x\n', "expected after", "table.csv, row 2"),
        (b"a,b\n1,2\n\xe9,4\n", "0xe9 is not UTF-8", "table.csv, row 3"),
        (b"a,b\n" + b"1,2\n" * 50_000 + b"\xff,4\n", "0xff is not UTF-8", "table.csv, row 50002"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16", "table.csv"),
        (bytes(100), "neither text", "table.csv"),
        (b"a,b\n1,2\n" + bytes(2**24), "a line of more than", "table.csv, row 3"),
        (b"%PDF-1.7 x", "PDF", "table.csv"),
    ],
)
def test_broken_tables_name_the_row(write_csv: Write, text: str | bytes, message: str, place: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_source(write_csv(text))
    assert caught.value.where == place
    assert caught.value.remedy


def test_a_table_in_a_zip_finds_its_pictures(make_zip: Callable[..., Path]) -> None:
    table = b"file,kind\npics/1.png,a\npics/2.png,b\n,c\n"
    source = open_source(make_zip("t.zip", {"x/t.csv": table, "x/pics/1.png": b"1", "x/pics/2.png": b"2"}))
    assert source.is_picture("file")
    assert not source.is_picture("kind")
    first, second, third = source.column("file")
    assert (first.read(), second.read(), third) == (b"1", b"2", None)
    assert source.where(0) == "t.zip, x/t.csv, row 2"


def test_pictures_outside_of_the_archive_are_refused(make_zip: Callable[..., Path]) -> None:
    source = open_source(make_zip("t.zip", {"t.csv": b"file,kind\n../1.png,a\n2.png,b\n", "2.png": b"2"}))
    with pytest.raises(UnsafeArchive, match="outside"):
        source.column("file")


def test_several_tables_in_one_zip_are_refused(make_zip: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="several tables"):
        open_source(make_zip("t.zip", {"a.csv": b"a,b\n1,2\n", "b.csv": b"a,b\n1,2\n"}))
