from __future__ import annotations

import contextlib
import csv
from pathlib import Path

import pytest

from yunmo.core.errors import Cancelled
from yunmo.data.answers import AnswersFile, cells
from yunmo.data.sources.open import open_source

ABOUT = {"data": "sha256:1", "model": "m:1"}


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_it_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")
    with AnswersFile(path, ["a", "b"], ABOUT) as file:
        file.add([(1, None), ('x,"y"', [1, 2])])
        assert path.read_text() == "old"
        file.finish()
    assert _rows(path) == [["a", "b"], ["1", ""], ['x,"y"', "[1, 2]"]]
    assert list(tmp_path.iterdir()) == [path]


def test_broken_off_it_goes_on_after_what_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with contextlib.suppress(Cancelled), AnswersFile(path, ["a"], ABOUT) as file:
        file.add([(1,), (2,)])
        raise Cancelled("stop")
    part = tmp_path / "a.csv.part"
    # A crash in the middle of the next portion.
    part.write_bytes(part.read_bytes() + b"3\r\n4")
    with AnswersFile(path, ["a"], ABOUT) as file:
        assert file.rows == 2
        file.add([(3,)])
        file.finish()
    assert _rows(path) == [["a"], ["1"], ["2"], ["3"]]


@pytest.mark.parametrize("change", ["about", "columns", "part", "state"])
def test_of_something_else_it_begins_anew(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.csv"
    with AnswersFile(path, ["a"], ABOUT) as file:
        file.add([(1,)])
    if change == "part":
        (tmp_path / "a.csv.part").write_bytes(b"a")
    elif change == "state":
        (tmp_path / "a.csv.part.json").write_bytes(b"{")
    about = {**ABOUT, "model": "m:2"} if change == "about" else ABOUT
    with AnswersFile(path, ["b"] if change == "columns" else ["a"], about) as file:
        assert file.rows == 0
        file.finish()
    assert _rows(path) == [["b" if change == "columns" else "a"]]


def test_cells_of_pictures_are_their_names_and_arrays_are_left_out(pets: Path, tmp_path: Path) -> None:
    source = open_source(pets)
    shown = cells(source)
    assert shown["image"][0] == "cat/00.png"
    assert shown["label"][0] == "cat"
    source.close()
    (tmp_path / "v.jsonl").write_text('{"v": [1, 2], "n": 3}\n')
    source = open_source(tmp_path / "v.jsonl")
    assert cells(source) == {"n": [3]}
