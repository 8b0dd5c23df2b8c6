from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from yunmo.data.duplicates import RowIndex
from yunmo.data.sources.open import open_source


def test_rows_are_equal_only_if_every_field_is() -> None:
    texts = ["1", "1", "1", "1", None]
    arrays = np.array([[1, 2], [1, 3], [1, 2], [1, 2], [1, 2]])
    numbers = np.array([1.0, 1.0, 2.0, 1.0, 1.0])
    index = RowIndex()
    assert index.add([texts, arrays, numbers], np.arange(5)).tolist() == [False, False, False, True, False]
    assert index.has([["1", "2"], arrays, numbers], np.arange(2)).tolist() == [True, False]


def test_only_the_rows_named_are_looked_at() -> None:
    assert RowIndex().add([["a", "a", "b", "a"]], np.array([0, 2, 3])).tolist() == [False, False, True]


def test_missing_numbers_are_equal() -> None:
    nan = float("nan")
    assert RowIndex().add([np.array([nan, 1.0, nan])], np.arange(3)).tolist() == [False, False, True]
    assert RowIndex().add([[nan, None]], np.arange(2)).tolist() == [False, True]


def test_pictures_are_compared_by_their_bytes(make_zip: Callable[..., Path]) -> None:
    same, other = b"\x00\x01" * 20, b"\x00\x02" * 20
    source = open_source(make_zip("p.zip", {"a/1.jpg": same, "a/2.jpg": other, "b/3.jpg": same}))
    pictures = [*source.column("image"), None]
    assert RowIndex().add([pictures], np.arange(4)).tolist() == [False, False, True, False]


def test_equal_checksums_alone_do_not_make_equal_pictures(make_zip: Callable[..., Path]) -> None:
    # Two texts of one length and one CRC-32.
    source = open_source(make_zip("p.zip", {"a/1.jpg": b"plumless", "a/2.jpg": b"buckeroo"}))
    pictures = source.column("image")
    assert pictures[0].hint() == pictures[1].hint()
    assert not RowIndex().add([pictures], np.arange(2)).any()
