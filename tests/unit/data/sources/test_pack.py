from __future__ import annotations

import os
from pathlib import Path

import pytest

from yunmo.core.errors import DataError, NotFound
from yunmo.data.sources.open import open_source
from yunmo.data.sources.pack import pack


def _folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


FILES = {"dog/1.jpg": b"dog", "cat/1.jpg": b"cat", ".hidden": b"no", "cat/.DS_Store": b"no"}


def test_a_folder_becomes_the_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    one = pack(_folder(tmp_path / "one", FILES), tmp_path / "one.zip")
    other = _folder(tmp_path / "other", dict(reversed(FILES.items())))
    os.utime(other / "cat/1.jpg", (1e9, 1e9))
    assert one.read_bytes() == pack(other, tmp_path / "other.zip").read_bytes()
    assert open_source(one).column("label") == ["cat", "dog"]


def test_out_may_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert pack(_folder(tmp_path / "pets", FILES), tmp_path / "out") == tmp_path / "out/pets.zip"


def test_a_table_brings_the_pictures_it_names(tmp_path: Path) -> None:
    table = b"file,kind\npics/1.png,a\npics/gone.png,b\n../secret.png,c\n"
    _folder(tmp_path, {"secret.png": b"s", "d/t.csv": table, "d/pics/1.png": b"1", "d/pics/other.png": b"o"})
    source = open_source(pack(tmp_path / "d/t.csv", tmp_path / "t.zip"))
    assert source.kind == "csv"
    assert source.is_picture("file")


def test_single_files_stay_as_they_are(tmp_path: Path) -> None:
    _folder(tmp_path, {"t.csv": b"a,b\n1,2\n", "a.npz": b"x"})
    for name in ("t.csv", "a.npz"):
        assert pack(tmp_path / name, tmp_path / "out.zip") == tmp_path / name
    assert not (tmp_path / "out.zip").exists()


def test_empty_folders_links_and_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty folder"):
        pack(tmp_path / "empty", tmp_path / "out.zip")
    (tmp_path / "empty/link").symlink_to(tmp_path)
    with pytest.raises(DataError, match="a symbolic link"):
        pack(tmp_path / "empty", tmp_path / "out.zip")
    with pytest.raises(NotFound):
        pack(tmp_path / "gone", tmp_path / "out.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


@pytest.mark.parametrize("target", ["secret.png", "gone.png", "cat/1.jpg"])
def test_a_link_to_a_file_is_refused_by_its_name_wherever_it_leads(tmp_path: Path, target: str) -> None:
    folder = _folder(tmp_path / "pets", FILES)
    (tmp_path / "secret.png").write_bytes(b"secret")
    link = folder / "dog/2.jpg"
    link.symlink_to(folder / target if "/" in target else tmp_path / target)
    with pytest.raises(DataError, match="a symbolic link") as caught:
        pack(folder, tmp_path / "out.zip")
    assert caught.value.where == str(link)
    assert not (tmp_path / "out.zip").exists()


def test_a_table_may_not_name_links(tmp_path: Path) -> None:
    _folder(tmp_path, {"secret/1.png": b"s", "d/t.csv": b"file,kind\npics/1.png,a\n", "d/u.csv": b"file\n1.png\n"})
    (tmp_path / "d/pics").symlink_to(tmp_path / "secret")
    (tmp_path / "d/1.png").symlink_to(tmp_path / "secret/1.png")
    for table, link in (("t.csv", "pics"), ("u.csv", "1.png")):
        with pytest.raises(DataError, match="a symbolic link") as caught:
            pack(tmp_path / "d" / table, tmp_path / "out.zip")
        assert caught.value.where == str(tmp_path / "d" / link)
    assert not (tmp_path / "out.zip").exists()
