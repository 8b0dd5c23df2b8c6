from __future__ import annotations

import stat
import struct
import zipfile
from pathlib import Path

import pytest

from yunmo.bundle.archive import export, unpack
from yunmo.bundle.files import GRAPH, MANIFEST
from yunmo.bundle.verify import verify
from yunmo.core.errors import BundleError, Conflict, UnsafeArchive


def test_an_exported_bundle_comes_back_signed(signed: Path, keys: tuple[Path, str], tmp_path: Path) -> None:
    export(signed, tmp_path / "pets.zip")
    unpack(tmp_path / "pets.zip", tmp_path / "back")
    assert verify(tmp_path / "back", keys[1]) == verify(signed, keys[1])


def test_the_file_is_the_same_for_the_same_bundle(signed: Path, tmp_path: Path) -> None:
    export(signed, tmp_path / "a.zip")
    for path in signed.iterdir():
        path.touch()
    export(signed, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_what_is_no_part_of_a_bundle_is_not_exported(signed: Path, tmp_path: Path) -> None:
    (signed / "secret").touch()
    with pytest.raises(BundleError) as caught:
        export(signed, tmp_path / "pets.zip")
    assert caught.value.where == str(signed / "secret")
    assert not (tmp_path / "pets.zip").exists()


def refused(tmp_path: Path, *entries: tuple[str, bytes, int], max_size: int = 2**20) -> BundleError | UnsafeArchive:
    """Pack entries of name, content and mode; return the error of unpacking, after checking that nothing is left."""
    file = tmp_path / "bad.zip"
    with pytest.MonkeyPatch.context() as patch, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # zipfile warns of the duplicate that is wanted here
        for name, content, mode in entries:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    before = set(tmp_path.iterdir())
    with pytest.raises((BundleError, UnsafeArchive)) as caught:
        unpack(file, tmp_path / "out", max_size=max_size)
    assert set(tmp_path.iterdir()) == before
    return caught.value


FILE = stat.S_IFREG | 0o644


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("../graph.onnx", FILE),
        ("/graph.onnx", FILE),
        ("folder/graph.onnx", FILE),
        ("other.bin", FILE),
        (GRAPH, stat.S_IFLNK | 0o777),
        (GRAPH, stat.S_IFDIR | 0o755),
    ],
)
def test_an_entry_that_is_no_plain_file_of_a_bundle_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    assert isinstance(refused(tmp_path, (name, b"x", mode)), UnsafeArchive)


def test_a_duplicate_is_refused(tmp_path: Path) -> None:
    assert "twice" in refused(tmp_path, (GRAPH, b"x", FILE), (GRAPH, b"y", FILE)).message


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(tmp_path: Path, kind: int) -> None:
    file = tmp_path / "bad.zip"
    with zipfile.ZipFile(file, "w", kind) as archive:
        archive.writestr(GRAPH, b"x")
    with pytest.raises(UnsafeArchive, match="deflate"):
        unpack(file, tmp_path / "out")


def test_an_entry_before_the_archive_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bad.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(GRAPH, b"x")
    whole = file.read_bytes()
    place = whole.rindex(b"PK\x05\x06") + 16  # where the directory begins, as the end of the archive has it
    file.write_bytes(whole[:place] + struct.pack("<I", 2**31) + whole[place + 4 :])
    with pytest.raises(BundleError) as caught:
        unpack(file, tmp_path / "out")
    assert str(tmp_path) not in str(caught.value)


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    assert "more than" in refused(tmp_path, (GRAPH, bytes(2**21), FILE)).message


def test_a_bomb_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bomb.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(GRAPH, bytes(2**21))
    data = file.read_bytes()
    file.write_bytes(data.replace(struct.pack("<I", 2**21), struct.pack("<I", 10)))
    with pytest.raises((BundleError, UnsafeArchive)):
        unpack(file, tmp_path / "out", max_size=2**20)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04"])
def test_no_zip_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.zip").write_bytes(content)
    with pytest.raises(BundleError, match="not an exported bundle"):
        unpack(tmp_path / "bad.zip", tmp_path / "out")


def test_a_truncated_and_a_damaged_file_are_refused(signed: Path, tmp_path: Path) -> None:
    export(signed, tmp_path / "pets.zip")
    data = (tmp_path / "pets.zip").read_bytes()
    (tmp_path / "half.zip").write_bytes(data[: len(data) // 2])
    (tmp_path / "changed.zip").write_bytes(data.replace(b"rows", b"ROWS"))
    for name in ("half.zip", "changed.zip"):
        with pytest.raises(BundleError):
            unpack(tmp_path / name, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_kept(signed: Path, tmp_path: Path) -> None:
    export(signed, tmp_path / "pets.zip")
    with pytest.raises(Conflict):
        unpack(tmp_path / "pets.zip", signed)
    assert (signed / MANIFEST).exists()
