from __future__ import annotations

import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from yunmo.core.errors import DataError, InvalidInput, UnsafeArchive
from yunmo.data.limits import DEFAULT_LIMITS
from yunmo.data.sources.archive import MemberPicture
from yunmo.data.sources.zip_archive import ZipArchive

Zip = Callable[[str, dict[str, bytes]], Path]


@pytest.mark.parametrize("name", ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg", "C:/x.jpg", "a\\..\\..\\x.jpg"])
def test_names_that_lead_out_are_refused(make_zip: Zip, name: str) -> None:
    with pytest.raises(UnsafeArchive, match="leads out"):
        ZipArchive(make_zip("a.zip", {"ok/1.jpg": b"x", name: b"x"}), DEFAULT_LIMITS)


def test_links_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    info = zipfile.ZipInfo("cat/1.jpg")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UnsafeArchive, match="link"):
        ZipArchive(path, DEFAULT_LIMITS)


def test_zeros_that_unpack_to_far_more_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("zeros.csv", "w") as member:
        for _ in range(20):
            member.write(bytes(2**20))
    with pytest.raises(UnsafeArchive, match="unpacks to"):
        ZipArchive(path, DEFAULT_LIMITS)


def test_a_member_that_lies_about_its_size_gives_no_more_than_it_says(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/1.jpg", bytes(10_000_000))
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, directory + 24, 1000)
    struct.pack_into("<I", data, 22, 1000)
    path.write_bytes(data)
    archive = ZipArchive(path, DEFAULT_LIMITS)
    with pytest.raises(InvalidInput, match="damaged"):
        archive.read("cat/1.jpg")


def test_too_much_in_all_is_refused(make_zip: Zip) -> None:
    with pytest.raises(UnsafeArchive, match="more than 1,000 bytes"):
        ZipArchive(make_zip("a.zip", {"a": bytes(600), "b": bytes(600)}), replace(DEFAULT_LIMITS, total=1000))


def test_too_many_entries_are_refused_before_each_becomes_an_object(
    make_zip: Zip, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_zip("a.zip", {f"{index}": b"" for index in range(101)})
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(UnsafeArchive, match="more than 100 files"):
        ZipArchive(path, replace(DEFAULT_LIMITS, entries=100))


def test_a_million_entries_are_refused_fast(tmp_path: Path) -> None:
    entry = b"PK\x01\x02" + bytes(24) + struct.pack("<HHHHHII", 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = entry * 1_000_000
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(directory), 4, 0)
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK\x03\x04" + directory + end)
    with pytest.raises(UnsafeArchive, match="more than 200,000 files"):
        ZipArchive(path, DEFAULT_LIMITS)


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", b"1")
            archive.writestr("a", b"2")
    with pytest.raises(UnsafeArchive, match="two members"):
        ZipArchive(path, DEFAULT_LIMITS)


def test_encrypted_members_are_refused(make_zip: Zip) -> None:
    path = make_zip("a.zip", {"a": b"1"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(UnsafeArchive, match="encrypted"):
        ZipArchive(path, DEFAULT_LIMITS)


@pytest.mark.parametrize("cut", [10, 40, 100])
def test_truncated_archives_are_damaged(make_zip: Zip, cut: int) -> None:
    path = make_zip("a.zip", {"a": bytes(200)})
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match="damaged"):
        ZipArchive(path, DEFAULT_LIMITS)


def test_junk_of_systems_is_passed_over(make_zip: Zip) -> None:
    path = make_zip("a.zip", {"cat/1.jpg": b"", "__MACOSX/cat/._1.jpg": b"", "cat/.DS_Store": b"", "Thumbs.db": b""})
    assert list(ZipArchive(path, DEFAULT_LIMITS).members) == ["cat/1.jpg"]


def test_a_picture_that_is_not_there_is_an_error_when_read(make_zip: Zip) -> None:
    archive = ZipArchive(make_zip("a.zip", {"a": b"1"}), DEFAULT_LIMITS)
    assert MemberPicture(archive, "a", "here").read() == b"1"
    with pytest.raises(InvalidInput, match="no file is called 'b'"):
        MemberPicture(archive, "b", "there").read()
