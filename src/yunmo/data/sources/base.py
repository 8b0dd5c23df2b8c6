"""What every kind of data file offers: named columns of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Literal

from yunmo.data.fields.base import Values

Kind = Literal["csv", "jsonl", "parquet", "images", "arrays"]


class Picture(ABC):
    """A picture that is still in its file."""

    __slots__ = ("where",)

    where: str
    """How a person finds it."""

    @abstractmethod
    def read(self) -> bytes:
        """Return the file's bytes.

        Raises:
            InvalidInput: it is not there, or damaged.
        """

    @abstractmethod
    def hint(self) -> tuple[int, int]:
        """Return size and checksum as the archive has them; two equal pictures have equal hints."""


class Source(ABC):
    """One data file, opened: columns of equal length.

    Args:
        path: the file.
    """

    kind: ClassVar[Kind]
    names: list[str]
    """Columns in order."""
    notes: tuple[str, ...] = ()
    """What was guessed or left out while opening."""
    target: str | None = None
    """The column that names the answer by the file's own form, if there is one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def column(self, name: str) -> Values:
        """Return the raw values of a column: texts or None (tables), `Picture`, or a numpy array."""

    @abstractmethod
    def where(self, row: int) -> str:
        """Say how a person finds a row: ``train.csv, row 7``."""

    def is_picture(self, name: str) -> bool:  # noqa: ARG002
        """Say whether a column holds pictures in files."""
        return False

    def close(self) -> None:  # noqa: B027 - most keep nothing open
        """Close the file."""
