from __future__ import annotations

import errno
import stat
from pathlib import Path

import pytest

from yunmo.bundle.files import full_disk, write_file
from yunmo.core.errors import StorageFull


def test_a_file_is_written_whole_and_can_be_read_by_others(tmp_path: Path) -> None:
    write_file(tmp_path / "a", b"old")
    write_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_file(tmp_path / "a", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_is_said_with_a_remedy() -> None:
    with (
        pytest.raises(StorageFull) as caught,
        full_disk("the graph"),
        Path("/dev/full").open("wb", buffering=0) as file,
    ):
        file.write(b"x")
    assert "no space left to write the graph" in str(caught.value)
    assert caught.value.remedy


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, full_disk("it"):
        (tmp_path / "none").read_bytes()
    assert caught.value.errno == errno.ENOENT
