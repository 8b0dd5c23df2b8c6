from __future__ import annotations

import contextlib
import gzip
import io
import random
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from yunmo.core.errors import DataError, InvalidInput, UnsafeArchive
from yunmo.data.limits import DEFAULT_LIMITS
from yunmo.data.sources.archive import MemberPicture
from yunmo.data.sources.open import open_source
from yunmo.data.sources.tar_archive import TarArchive

Tar = Callable[..., Path]
PETS = {"pets/dog/1.jpg": b"d", "pets/cat/b.png": b"bb", "pets/cat/a.JPG": b"a", "pets/cat/._a.JPG": b"junk"}


@pytest.fixture
def make_tar(tmp_path: Path) -> Tar:
    def make(members: dict[str, bytes], name: str = "a.tar", mode: str = "w", form: int = tarfile.PAX_FORMAT) -> Path:
        path = tmp_path / name
        with tarfile.open(path, mode, format=form) as archive:  # type: ignore[call-overload]  # a mode of its own
            for member, data in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return path

    return make


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_the_folder_names_the_class(make_tar: Tar, mode: str, form: int) -> None:
    source = open_source(make_tar(PETS, mode=mode, form=form))
    assert source.kind == "images"
    assert source.column("label") == ["cat", "cat", "dog"]
    assert [picture.read() for picture in source.column("image")] == [b"a", b"bb", b"d"]
    assert source.where(2) == "a.tar, pets/dog/1.jpg"
    source.close()


def test_names_that_begin_with_a_dot_are_those_without(make_tar: Tar) -> None:
    path = make_tar({"./cat/1.png": b"1", "./dog/1.png": b"2", "./.hidden/1.png": b"3"})
    archive = TarArchive(path, DEFAULT_LIMITS)
    assert list(archive.members) == ["cat/1.png", "dog/1.png"]
    archive.close()
    with pytest.raises(UnsafeArchive, match="two members"):
        TarArchive(make_tar({"./a": b"1", "a": b"2"}), DEFAULT_LIMITS)


def test_long_and_chinese_names(make_tar: Tar) -> None:
    name = f"猫/{'很长' * 100}.png"
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        source = open_source(make_tar({name: b"1", "狗/1.png": b"2"}, form=form))
        assert source.column("label") == ["狗", "猫"]
        source.close()


@pytest.mark.parametrize("top", ["x/", "./"])
@pytest.mark.parametrize("table", ["t.csv", "t.jsonl"])
def test_a_table_finds_its_pictures(make_tar: Tar, table: str, top: str) -> None:
    rows = {"t.csv": b"file,kind\npics/1.png,a\n", "t.jsonl": b'{"file": "pics/1.png", "kind": "a"}\n'}[table]
    source = open_source(make_tar({f"{top}{table}": rows, f"{top}pics/1.png": b"1"}, mode="w:gz"))
    assert source.is_picture("file")
    assert source.column("file")[0].read() == b"1"
    source.close()


def test_equal_pictures_have_equal_hints(make_tar: Tar) -> None:
    archive = TarArchive(make_tar({"a": b"12", "b": b"12", "c": b"21"}), DEFAULT_LIMITS)
    one, same, other = (MemberPicture(archive, name, name) for name in "abc")
    assert one.hint() == same.hint() != other.hint()
    gone = MemberPicture(archive, "gone", "gone")
    assert gone.hint()[0] == -1
    with pytest.raises(InvalidInput, match="no file is called"):
        gone.read()
    small = TarArchive(archive.path, replace(DEFAULT_LIMITS, picture=1))
    with pytest.raises(InvalidInput, match="a file of 2 bytes; a picture may have 1"):
        small.read("a")
    small.close()
    archive.close()


@pytest.mark.parametrize("name", ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg", "C:/x.jpg", "a\\..\\..\\x.jpg"])
def test_names_that_lead_out_are_refused(make_tar: Tar, name: str) -> None:
    with pytest.raises(UnsafeArchive, match="leads out"):
        TarArchive(make_tar({"ok/1.jpg": b"x", name: b"x"}), DEFAULT_LIMITS)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "neither a file nor a folder"),
        (tarfile.BLKTYPE, "neither a file nor a folder"),
        (tarfile.FIFOTYPE, "neither a file nor a folder"),
    ],
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes, message: str) -> None:
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("cat/1.jpg")
    info.type, info.linkname = kind, "/etc/passwd"
    with tarfile.open(path, "w") as archive:
        archive.addfile(info)
    with pytest.raises(UnsafeArchive, match=message) as caught:
        TarArchive(path, DEFAULT_LIMITS)
    assert caught.value.where == "a.tar, cat/1.jpg"


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("cat/1.jpg")
    info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "1000000000000", "GNU.sparse.name": "cat/1.jpg"}
    info.size = 1
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(UnsafeArchive, match="a sparse file"):
        TarArchive(path, DEFAULT_LIMITS)


def test_two_members_of_one_name_too_many_and_too_much_are_refused(make_tar: Tar) -> None:
    path = make_tar({"a": b"1"})
    with tarfile.open(path, "a") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    with pytest.raises(UnsafeArchive, match="two members"):
        TarArchive(path, DEFAULT_LIMITS)
    path = make_tar({str(index): bytes(600) for index in range(3)})
    with pytest.raises(UnsafeArchive, match="more than 2 files"):
        TarArchive(path, replace(DEFAULT_LIMITS, entries=2))
    with pytest.raises(UnsafeArchive, match="more than 1,000 bytes"):
        TarArchive(path, replace(DEFAULT_LIMITS, total=1000))


def test_zeros_that_unpack_to_far_more_are_refused(make_tar: Tar) -> None:
    with pytest.raises(UnsafeArchive, match="unpacks to more than"):
        TarArchive(make_tar({"cat/1.png": bytes(20 * 2**20)}, mode="w:gz"), DEFAULT_LIMITS)


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**33
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(DataError, match="a header of a wrong length"):
        TarArchive(path, DEFAULT_LIMITS)


def test_a_size_below_zero_ends_the_reading(tmp_path: Path) -> None:
    """Python's tarfile would read the same header for ever (CVE-2025-8194)."""
    for kind in (tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        header = tarfile.TarInfo("a")
        header.type = kind
        block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
        block[124:136] = b"\xff" * 10 + b"\xfe\x00"
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        path = tmp_path / "a.tar"
        path.write_bytes(bytes(block) + bytes(1024))
        with pytest.raises(DataError, match="damaged"):
            TarArchive(path, DEFAULT_LIMITS)


@pytest.mark.parametrize("cut", [300, 512, 1200, 1536, 2600, 3072])
def test_truncated_archives_are_damaged(make_tar: Tar, cut: int) -> None:
    path = make_tar({"cat/1.png": bytes(700), "cat/2.png": bytes(700)})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="damaged"):
        TarArchive(path, DEFAULT_LIMITS)


def test_a_broken_header_is_not_taken_for_the_end(make_tar: Tar) -> None:
    path = make_tar({"cat/1.png": bytes(700), "cat/2.png": bytes(700)})
    data = bytearray(path.read_bytes())
    data[1536 + 150] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="a header is broken"):
        TarArchive(path, DEFAULT_LIMITS)


@pytest.mark.parametrize("change", ["cut", "flip", "text"])
def test_damaged_gzip_and_what_is_no_tar_within_are_refused(make_tar: Tar, change: str) -> None:
    path = make_tar({"cat/1.png": random.Random(0).randbytes(5000)}, "a.tar.gz", "w:gz")  # noqa: S311 - test data
    data = bytearray(path.read_bytes())
    if change == "cut":
        del data[-2000:]
    elif change == "flip":
        data[len(data) // 2] ^= 0xFF
    path.write_bytes(gzip.compress(b"a,b\n1,2\n") if change == "text" else bytes(data))
    with pytest.raises(DataError, match="no tar archive" if change == "text" else "a damaged gzip file"):
        TarArchive(path, DEFAULT_LIMITS)


def test_names_that_are_not_utf8_are_refused(make_tar: Tar) -> None:
    path = make_tar({"cat/\udcff.png": b"1"}, form=tarfile.GNU_FORMAT)
    with pytest.raises(UnsafeArchive, match="a name that is not UTF-8"):
        TarArchive(path, DEFAULT_LIMITS)


def test_changed_bytes_are_read_or_refused(make_tar: Tar) -> None:
    path = make_tar(PETS)
    data = path.read_bytes()
    generator = random.Random(0)  # noqa: S311 - it makes test data
    for _ in range(500):
        changed = bytearray(data)
        for _ in range(generator.randint(1, 4)):
            changed[generator.randrange(8192)] = generator.randrange(256)
        path.write_bytes(changed)
        # Whatever else is raised fails the test.
        with contextlib.suppress(DataError):
            TarArchive(path, DEFAULT_LIMITS).close()
