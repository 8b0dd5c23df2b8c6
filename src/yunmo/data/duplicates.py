"""Finding rows that are equal in every field."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from yunmo.core.errors import InvalidInput
from yunmo.data.fields.base import Values
from yunmo.data.sources.base import Picture
from yunmo.data.splits import Rows


class RowIndex:
    """Rows seen so far, by their content.

    Pictures are compared by size and checksum as the archive has them, and read only if those agree. Arrays are
    compared by a 128-bit hash of their bytes.
    """

    def __init__(self) -> None:
        self._seen: dict[Hashable, list[tuple[Picture, ...]]] = {}

    def add(self, columns: Sequence[Values], rows: Rows) -> NDArray[np.bool_]:
        """Add rows; say of each whether an equal one was there already."""
        return np.fromiter((self._add(*row) for row in _content(columns, rows)), np.bool_, len(rows))

    def has(self, columns: Sequence[Values], rows: Rows) -> NDArray[np.bool_]:
        """Say of each row whether an equal one was added."""
        return np.fromiter((self._has(*row) for row in _content(columns, rows)), np.bool_, len(rows))

    def _add(self, key: Hashable, pictures: tuple[Picture, ...]) -> bool:
        if self._has(key, pictures):
            return True
        self._seen.setdefault(key, []).append(pictures)
        return False

    def _has(self, key: Hashable, pictures: tuple[Picture, ...]) -> bool:
        return any(_equal(pictures, rival) for rival in self._seen.get(key, ()))


def _content(columns: Sequence[Values], rows: Rows) -> Iterator[tuple[Hashable, tuple[Picture, ...]]]:
    """Yield for each row a key (equal rows have equal keys) and its pictures (equal keys may have different ones)."""
    chosen = [_Column(column, rows) for column in columns]
    pictures = [column.pictures for column in chosen if column.pictures is not None]
    for index, key in enumerate(zip(*(column.keys for column in chosen), strict=True)):
        found = (column[index] for column in pictures)
        yield key, tuple(picture for picture in found if picture is not None)


class _Column:
    """The keys of some rows of a column, and the pictures if it holds them."""

    def __init__(self, values: Values, rows: Rows) -> None:
        self.pictures: list[Picture | None] | None = None
        self.keys: list[Hashable]
        if isinstance(values, np.ndarray) and values.ndim > 1:
            self.keys = [hashlib.blake2b(values[row].tobytes(), digest_size=16).digest() for row in rows.tolist()]
            return
        cells = values[rows].tolist() if isinstance(values, np.ndarray) else [values[row] for row in rows.tolist()]
        if any(isinstance(cell, Picture) for cell in cells):
            self.pictures = cells
            self.keys = [cell.hint() if cell is not None else None for cell in cells]
        else:
            # NaN, which equals nothing, stands for a missing cell like None.
            self.keys = [None if cell != cell else cell for cell in cells]


def _equal(pictures: tuple[Picture, ...], others: tuple[Picture, ...]) -> bool:
    return all(_bytes(picture) == _bytes(other) for picture, other in zip(pictures, others, strict=True))


def _bytes(picture: Picture) -> bytes:
    try:
        return picture.read()
    except InvalidInput:
        return picture.where.encode()
