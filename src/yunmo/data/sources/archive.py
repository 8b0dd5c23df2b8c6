"""What zip and tar archives have in common: members that are checked before any of them is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from yunmo.core.errors import InvalidInput, UnsafeArchive
from yunmo.data.limits import Limits
from yunmo.data.sources.base import Picture

_JUNK = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


class Archive(ABC):
    """An opened archive whose members are safe to read.

    Args:
        path: the file.
        limits: how much it may hold.
    """

    members: Mapping[str, Any]
    """Plain files by name, as the format describes each; what systems leave in archives is not among them."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.limits = path, limits

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """Open a member as a stream of at most its declared bytes.

        Raises:
            DataError: a damaged member.
        """

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Read a picture whole.

        Raises:
            InvalidInput: damaged, or over the limit of bytes.
        """

    @abstractmethod
    def hint(self, name: str) -> tuple[int, int]:
        """Return size and CRC-32 of a member."""

    def check_name(self, name: str) -> None:
        """Refuse a name that leads out of the archive.

        Raises:
            UnsafeArchive: it does.
        """
        path = PurePosixPath(name)
        if "\0" in name or "\\" in name or path.is_absolute() or ".." in path.parts or name[1:2] == ":":
            raise self.unsafe("a name that leads out of the archive", name)

    def check_picture(self, size: int) -> None:
        """Refuse a file too large for a picture.

        Raises:
            InvalidInput: it is.
        """
        if size > self.limits.picture:
            raise InvalidInput(f"a file of {size:,} bytes; a picture may have {self.limits.picture:,}")

    def unsafe(self, message: str, name: str) -> UnsafeArchive:
        """Make the error for a member."""
        shown = name.encode("unicode_escape").decode()[:200]
        return UnsafeArchive(
            message, where=f"{self.path.name}, {shown}", remedy="Make the archive anew, of plain files"
        )

    def too_many(self) -> UnsafeArchive:
        """Make the error for an archive of too many files."""
        return UnsafeArchive(
            f"more than {self.limits.entries:,} files",
            where=self.path.name,
            remedy="Split the data into several archives",
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
        """Return the file's size and CRC-32."""
        return self._archive.hint(self.name) if self.name in self._archive.members else (-1, hash(self.name))


def is_junk(name: str) -> bool:
    """Say whether a member is what a system leaves in archives, or hidden."""
    return any(part in _JUNK or part.startswith(".") for part in PurePosixPath(name).parts)
