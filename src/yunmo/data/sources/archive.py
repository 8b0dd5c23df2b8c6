"""Reading zip archives that may be hostile: everything is checked before anything is unpacked."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from yunmo.core.errors import DataError, InvalidInput, UnsafeArchive
from yunmo.data.limits import Limits
from yunmo.data.sources.base import Picture

_END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"
_ENTRY = b"PK\x01\x02"
_JUNK = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError)


class Archive:
    """An opened zip file whose members are safe to read.

    Args:
        path: the file.
        limits: how much it may hold.

    Raises:
        UnsafeArchive: absolute names or ``..``, links, encryption, two members of one name, too many or too large ones.
        DataError: no zip file, or a damaged one.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.limits = path, limits
        _check_directory(path, limits)
        try:
            self._zip = zipfile.ZipFile(path)
        except _UNREADABLE as error:
            raise DataError(
                f"a damaged zip file ({error})", where=path.name, remedy="Make or download the file again"
            ) from None
        try:
            self.members = self._checked()
        except BaseException:
            self._zip.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def open(self, name: str) -> IO[bytes]:
        """Open a member as a stream of at most its declared bytes.

        Raises:
            DataError: a damaged member.
        """
        try:
            return self._zip.open(self.members[name])
        except _UNREADABLE as error:
            raise DataError(f"damaged in the archive ({error})", where=f"{self.path.name}, {name}") from None

    def read(self, name: str) -> bytes:
        """Read a picture whole.

        Raises:
            InvalidInput: damaged, or over the limit of bytes.
        """
        info = self.members[name]
        if info.file_size > self.limits.picture:
            raise InvalidInput(f"a file of {info.file_size:,} bytes; a picture may have {self.limits.picture:,}")
        try:
            return self._zip.read(info)
        except _UNREADABLE as error:
            raise InvalidInput(f"damaged in the archive ({error})") from None

    def _checked(self) -> dict[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        total = 0
        for info in self._zip.infolist():
            self._check(info)
            if info.is_dir() or _is_junk(info.filename):
                continue
            if info.filename in members:
                raise self._unsafe("two members have this name", info.filename)
            total += info.file_size
            if total > self.limits.total:
                raise self._unsafe(f"more than {self.limits.total:,} bytes unpacked", info.filename)
            members[info.filename] = info
        return members

    def _check(self, info: zipfile.ZipInfo) -> None:
        # The name as it is in the file: zipfile cuts names at a NUL and turns other separators into '/'.
        name = info.orig_filename
        path = PurePosixPath(name)
        if "\0" in name or "\\" in name or path.is_absolute() or ".." in path.parts or name[1:2] == ":":
            raise self._unsafe("a name that leads out of the archive", name)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise self._unsafe("a link", name)
        if info.flag_bits & 0x1:
            raise self._unsafe("encrypted", name)
        if info.file_size > self.limits.small and info.file_size > self.limits.ratio * info.compress_size:
            raise self._unsafe(f"unpacks to {info.file_size:,} bytes from {info.compress_size:,}", name)

    def _unsafe(self, message: str, name: str) -> UnsafeArchive:
        shown = name.encode("unicode_escape").decode()[:200]
        return UnsafeArchive(
            message, where=f"{self.path.name}, {shown}", remedy="Make the archive anew, of plain files"
        )


class MemberPicture(Picture):
    """A picture in an archive. A member that is not there reads as an error.

    Args:
        archive: the archive.
        name: its path there.
        where: how a person finds it.
    """

    __slots__ = ("_archive", "name")

    def __init__(self, archive: Archive, name: str, where: str) -> None:
        self._archive, self.name, self.where = archive, name, where

    def read(self) -> bytes:
        """Return the file's bytes."""
        if self.name not in self._archive.members:
            raise InvalidInput(f"no file is called {self.name!r}")
        return self._archive.read(self.name)

    def hint(self) -> tuple[int, int]:
        """Return size and CRC-32 of the archive's directory."""
        info = self._archive.members.get(self.name)
        return (info.file_size, info.CRC) if info else (-1, hash(self.name))


def _is_junk(name: str) -> bool:
    return any(part in _JUNK or part.startswith(".") for part in PurePosixPath(name).parts)


def _check_directory(path: Path, limits: Limits) -> None:
    """Count the entries before zipfile makes an object of each (APPNOTE.TXT 4.3.16)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = max(0, size - 65_557)
        file.seek(start)
        tail = file.read()
        place = tail.rfind(_END)
        if place < 0 or len(tail) < place + 22:
            raise DataError("a damaged zip file (no directory)", where=path.name, remedy="Make the file again")
        (length,) = struct.unpack_from("<I", tail, place + 12)
        place64 = tail.rfind(_END64, 0, place)
        if length == 0xFFFFFFFF and place64 >= 0 and len(tail) >= place64 + 48:
            (length,) = struct.unpack_from("<Q", tail, place64 + 40)
        most = UnsafeArchive(
            f"more than {limits.entries:,} files", where=path.name, remedy="Split the data into several archives"
        )
        if length > min(size, limits.entries * 400):
            raise most
        file.seek(max(0, start + (place64 if place64 >= 0 else place) - length))
        if file.read(length).count(_ENTRY) > limits.entries:
            raise most
