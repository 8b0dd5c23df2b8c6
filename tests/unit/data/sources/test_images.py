from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from yunmo.core.errors import DataError
from yunmo.data.sources.open import open_source

Zip = Callable[[str, dict[str, bytes]], Path]


@pytest.mark.parametrize("top", ["", "pets/", "data/pets/"])
def test_the_folder_names_the_class(make_zip: Zip, top: str) -> None:
    members = {f"{top}dog/1.jpg": b"d", f"{top}cat/b.png": b"b", f"{top}cat/a.JPG": b"a"}
    source = open_source(make_zip("p.zip", members))
    assert source.kind == "images"
    assert source.column("label") == ["cat", "cat", "dog"]
    assert [picture.read() for picture in source.column("image")] == [b"a", b"b", b"d"]
    assert source.where(2) == f"p.zip, {top}dog/1.jpg"
    assert source.target == "label"


def test_one_class_folder_stays_the_class(make_zip: Zip) -> None:
    assert open_source(make_zip("p.zip", {"cat/1.jpg": b""})).column("label") == ["cat"]


def test_files_in_no_class_folder_are_left_out_and_named(make_zip: Zip) -> None:
    source = open_source(make_zip("p.zip", {"README.md": b"", "cat/1.jpg": b"", "dog/1.jpg": b""}))
    assert len(source) == 2
    assert "README.md" in source.notes[0]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.jpg": b"", "cat/1.jpg": b"", "dog/1.jpg": b""}, "outside of any class folder"),
        ({"README.md": b""}, "no pictures"),
        ({}, "empty archive"),
        ({"train/cat/1.jpg": b"", "train/dog/1.jpg": b"", "test/cat/1.jpg": b""}, "several splits: test, train"),
    ],
)
def test_other_layouts_say_what_is_wrong(make_zip: Zip, members: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_source(make_zip("p.zip", members))
    assert caught.value.remedy
