"""Reading zip archives that may be hostile: everything is checked before anything is unpacked."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

from yunmo.core.errors import DataError, InvalidInput
from yunmo.data.limits import Limits
from yunmo.data.sources.archive import Archive, is_junk

_END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"
_ENTRY = b"PK\x01\x02"
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError)


class ZipArchive(Archive):
    """An opened zip file whose members are safe to read.

    Args:
        path: the file.
        limits: how much it may hold.

    Raises:
        UnsafeArchive: absolute names or ``..``, links, encryption, two members of one name, too many or too large ones.
        DataError: no zip file, or a damaged one.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        super().__init__(path, limits)
        self._check_directory()
        try:
            self._zip = zipfile.ZipFile(path)
        except _UNREADABLE as error:
            raise DataError(
                f"a damaged zip file ({error})", where=path.name, remedy="Make or download the file again"
            ) from None
        try:
            self.members: dict[str, zipfile.ZipInfo] = self._checked()
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
        self.check_picture(info.file_size)
        try:
            return self._zip.read(info)
        except _UNREADABLE as error:
            raise InvalidInput(f"damaged in the archive ({error})") from None

    def hint(self, name: str) -> tuple[int, int]:
        """Return size and CRC-32 as the archive's directory has them."""
        info = self.members[name]
        return info.file_size, info.CRC

    def _checked(self) -> dict[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        total = 0
        for info in self._zip.infolist():
            self._check(info)
            if info.is_dir() or is_junk(info.filename):
                continue
            if info.filename in members:
                raise self.unsafe("two members have this name", info.filename)
            total += info.file_size
            if total > self.limits.total:
                raise self.unsafe(f"more than {self.limits.total:,} bytes unpacked", info.filename)
            members[info.filename] = info
        return members

    def _check(self, info: zipfile.ZipInfo) -> None:
        # The name as it is in the file: zipfile cuts names at a NUL and turns other separators into '/'.
        name = info.orig_filename
        self.check_name(name)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise self.unsafe("a link", name)
        if info.flag_bits & 0x1:
            raise self.unsafe("encrypted", name)
        if info.file_size > self.limits.small and info.file_size > self.limits.ratio * info.compress_size:
            raise self.unsafe(f"unpacks to {info.file_size:,} bytes from {info.compress_size:,}", name)

    def _check_directory(self) -> None:
        """Count the entries before zipfile makes an object of each (APPNOTE.TXT 4.3.16)."""
        path, limits = self.path, self.limits
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
            if length > min(size, limits.entries * 400):
                raise self.too_many()
            file.seek(max(0, start + (place64 if place64 >= 0 else place) - length))
            if file.read(length).count(_ENTRY) > limits.entries:
                raise self.too_many()
