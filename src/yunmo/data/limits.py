"""How much a data file may hold, so that a hostile one cannot fill memory or disk."""

from __future__ import annotations

from dataclasses import dataclass

from yunmo.data.fields.pixels import MAX_PIXELS


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of reading; every one is checked before the memory is taken."""

    entries: int = 200_000
    """Files in an archive."""
    total: int = 16 * 2**30
    """Bytes of all files of an archive, unpacked."""
    ratio: int = 200
    """How many times its packed size a file in an archive may be, if it is over ``small``."""
    small: int = 2**20
    """Bytes below which the ratio does not matter."""
    picture: int = 256 * 2**20
    """Bytes of one picture's file."""
    pixels: int = MAX_PIXELS
    """Pixels of one picture."""
    cell: int = 2**20
    """Characters of one cell of a table."""
    columns: int = 10_000
    """Columns of a table."""
    memory: int = 2 * 2**30
    """Bytes of a table's cells, where a small file can hold very many."""


DEFAULT_LIMITS = Limits()
