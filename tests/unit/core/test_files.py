import errno
import os
import stat
from pathlib import Path

import pytest

from yunmo.core.errors import StorageFull
from yunmo.core.files import create_once, open_atomic, storage_errors, write_atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_whole_and_can_be_read_by_others(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"old")
    write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644
    write_atomic(tmp_path / "key", b"secret", mode=0o600)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert names(tmp_path) == ["a", "key"]


def test_what_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path / "a", b"data")
    assert names(tmp_path) == ["a"]


def test_the_old_content_stays_until_the_new_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomic(path, b"old")
    with pytest.raises(ValueError, match="stop"), open_atomic(path) as file:  # noqa: PT012  both lines belong to it
        file.write(b"half of the n")
        raise ValueError("stop")
    assert path.read_bytes() == b"old"
    with open_atomic(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    def full(_: int) -> None:
        raise OSError(kind, os.strerror(kind))

    path = tmp_path / "a"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull) as caught:
        write_atomic(path, b"new")
    assert caught.value.where == str(path)
    assert caught.value.remedy
    with pytest.raises(StorageFull):
        create_once(tmp_path / "b", b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_no_space_while_writing_is_storage_full() -> None:
    with pytest.raises(StorageFull), storage_errors("x"), Path("/dev/full").open("wb") as full:
        full.write(b"x" * 100_000)


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), storage_errors("it"):
        (tmp_path / "none").read_bytes()
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "none" / "a", b"")


def test_what_is_made_once_is_never_replaced(tmp_path: Path) -> None:
    assert create_once(tmp_path / "key", b"first") == b"first"
    assert create_once(tmp_path / "key", b"second") == b"first"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert names(tmp_path) == ["key"]
