"""Reading tar archives, plain or packed with gzip, that may be hostile: everything is checked before it is read."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Any

from yunmo.core.errors import DataError, UnsafeArchive
from yunmo.core.files import storage_errors
from yunmo.data.limits import Limits
from yunmo.data.sources.archive import Archive, is_junk

GZIP = b"\x1f\x8b"
_MAGIC, _MAGIC_PLACE = b"ustar", 257
HEAD = _MAGIC_PLACE + len(_MAGIC)
"""Bytes that `is_tar` looks at."""
_BLOCK = 512
_CHUNK = 2**20
_LONGEST_HEADER = 2**20
"""Bytes of a header with a long name or extended attributes (pax)."""
_UNREADABLE = (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError, OSError)


class TarArchive(Archive):
    """An opened tar file whose members are safe to read. Safe for threads.

    One packed with gzip is unpacked to a nameless temporary file first, since pictures are read in any order.

    Args:
        path: the file.
        limits: how much it may hold.

    Raises:
        UnsafeArchive: absolute names or ``..``, links, devices, two members of one name, too many or too large ones.
        DataError: no tar file, or a damaged one.
        StorageFull: no space for the temporary file.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        super().__init__(path, limits)
        self._file = _opened(path, limits)
        self._checksums: dict[str, int] = {}
        try:
            self._length = self._file.seek(0, io.SEEK_END)
            if os.pread(self._file.fileno(), len(_MAGIC), _MAGIC_PLACE) != _MAGIC:
                raise self._damaged("no tar archive")
            self.members: dict[str, tarfile.TarInfo] = self._checked()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file; a temporary one is gone with that."""
        self._file.close()

    def open(self, name: str) -> IO[bytes]:
        """Open a member as a stream."""
        info = self.members[name]
        return io.BufferedReader(_Slice(self._file, info.offset_data, info.size))

    def read(self, name: str) -> bytes:
        """Read a picture whole.

        Raises:
            InvalidInput: over the limit of bytes.
        """
        info = self.members[name]
        self.check_picture(info.size)
        return os.pread(self._file.fileno(), info.size, info.offset_data)

    def hint(self, name: str) -> tuple[int, int]:
        """Return size and CRC-32; tar has no checksums, so it is computed when first asked for."""
        known = self._checksums.get(name)
        if known is None:
            known = 0
            with self.open(name) as member:
                while chunk := member.read(_CHUNK):
                    known = zlib.crc32(chunk, known)
            self._checksums[name] = known
        return self.members[name].size, known

    def _checked(self) -> dict[str, tarfile.TarInfo]:
        members: dict[str, tarfile.TarInfo] = {}
        total = entries = 0
        try:
            # Named encoding, so that names mean the same everywhere; bytes that are none of it are refused below.
            self._file.seek(0)
            with tarfile.TarFile(fileobj=_Headers(self._file), encoding="utf-8", errors="surrogateescape") as archive:
                while (info := archive.next()) is not None:
                    entries += 1
                    if entries > self.limits.entries:
                        raise self.too_many()
                    self._check(info)
                    # `tar -C FOLDER .` writes ./cat/1.jpg, which a table names cat/1.jpg.
                    name = str(PurePosixPath(info.name))
                    if info.isdir() or is_junk(name):
                        continue
                    if name in members:
                        raise self.unsafe("two members have this name", name)
                    total += info.size
                    if total > self.limits.total:
                        raise self.unsafe(f"more than {self.limits.total:,} bytes unpacked", info.name)
                    members[name] = info
                end = archive.offset
        except _UNREADABLE as error:
            raise self._damaged(f"a damaged tar file ({error})") from None
        # tarfile takes a header that it cannot read for the end; the end is a block of zeros (POSIX pax).
        if os.pread(self._file.fileno(), _BLOCK, end) != bytes(_BLOCK):
            raise self._damaged("a damaged tar file (it is cut off, or a header is broken)")
        return members

    def _check(self, info: tarfile.TarInfo) -> None:
        name = info.name
        self.check_name(name)
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise self.unsafe("a name that is not UTF-8", name)
        if info.issym() or info.islnk():
            raise self.unsafe("a link", name)
        if info.sparse is not None:
            raise self.unsafe("a sparse file", name)
        if not info.isfile() and not info.isdir():
            raise self.unsafe("neither a file nor a folder", name)
        if info.size < 0 or info.offset_data + info.size > self._length:
            raise self._damaged(f"a damaged tar file ({name!r} is cut off)")

    def _damaged(self, message: str) -> DataError:
        return DataError(message, where=self.path.name, remedy="Make or download the file again")


class _Headers:
    """The file as tarfile sees it while it reads headers: none may be so long that it fills the memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError("a header of a wrong length")
        return self._file.read(size)

    def seek(self, place: int) -> int:
        return self._file.seek(place)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        """Nothing: the file outlives the reading of its headers."""

    def write(self, data: Any) -> int:
        raise io.UnsupportedOperation(f"write {len(data)} bytes")


class _Slice(io.RawIOBase):
    """Some bytes of a file as a stream of their own."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        super().__init__()
        self._file, self._start, self._place, self._end = file, start, start, start + size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: self._start, io.SEEK_CUR: self._place, io.SEEK_END: self._end}[whence]
        self._place = min(max(self._start, origin + offset), self._end)
        return self._place - self._start

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._file.fileno(), min(len(buffer), self._end - self._place), self._place)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _opened(path: Path, limits: Limits) -> IO[bytes]:
    """Open the file, or what gzip packed in it.

    Raises:
        UnsafeArchive: it unpacks to more than the limits.
        DataError: damaged.
        StorageFull: no space to unpack it.
    """
    file = path.open("rb")
    if file.read(len(GZIP)) != GZIP:
        return file
    file.seek(0)
    packed = path.stat().st_size
    most = min(limits.total, max(limits.small, limits.ratio * packed))
    # Nameless: nothing is left of it, however this process ends.
    unpacked: IO[bytes] = tempfile.TemporaryFile(prefix="yunmo-")  # noqa: SIM115 - the archive closes it
    try:
        size = 0
        with storage_errors(path.name), file, gzip.GzipFile(fileobj=file) as stream:
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                if size > most:
                    raise UnsafeArchive(
                        f"unpacks to more than {most:,} bytes from {packed:,}",
                        where=path.name,
                        remedy="Make the archive anew, of plain files",
                    )
                unpacked.write(chunk)
            unpacked.flush()
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        unpacked.close()
        raise DataError(
            f"a damaged gzip file ({error})", where=path.name, remedy="Make or download the file again"
        ) from None
    except BaseException:
        unpacked.close()
        raise
    return unpacked


def is_tar(head: bytes) -> bool:
    """Say whether a file that begins with these bytes is a tar archive (POSIX ustar, pax, GNU)."""
    return head[_MAGIC_PLACE : _MAGIC_PLACE + len(_MAGIC)] == _MAGIC
