from __future__ import annotations

from pathlib import Path

import pytest

from yunmo.core.errors import DataError, NotFound
from yunmo.data.sources.open import open_source


def test_files_that_are_not_there_empty_or_something_else(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_source(tmp_path / "gone.csv")
    with pytest.raises(DataError, match="a folder"):
        open_source(tmp_path)
    for data, message in ((b"", "empty"), (b"\x1f\x8b\x08", "gzip"), (b"\xff\xd8\xff\xe0", "one picture")):
        (tmp_path / "f.csv").write_bytes(data)
        with pytest.raises(DataError, match=message):
            open_source(tmp_path / "f.csv")


def test_the_content_decides_and_not_the_name(pets: Path) -> None:
    renamed = pets.rename(pets.with_suffix(".csv"))
    assert open_source(renamed).kind == "images"
