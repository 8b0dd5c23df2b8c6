"""Taking a share of a large file's rows, or of a folder's pictures, where reading all of them would take too long."""

from __future__ import annotations

import csv
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from yunmo.data.limits import DEFAULT_LIMITS
from yunmo.data.sources.csv_table import delimiter_of
from yunmo.data.sources.images import is_picture_name
from yunmo.data.sources.open import JSON_LINES

TABLE_BYTES = 4_000_000
"""Bytes of a table up to which it is read whole, and about what is kept of a larger one."""
FOLDER_BYTES = 200_000_000
"""The same of a folder of pictures, which are copied, not read."""
_TABLES = frozenset({".csv", ".tsv"}) | JSON_LINES
_HEAD = 64 * 1024


@dataclass(frozen=True, slots=True)
class Thinned:
    """What was taken."""

    path: Path
    ratio: float
    """How many times as many rows there are."""


def thin(path: Path, folder: Path, *, seed: int = 0) -> Thinned:
    """Take a share of a large table's rows or of a large folder's pictures, drawn at random.

    Args:
        path: what a user names as data.
        folder: where what is taken goes.
        seed: of the choice.

    Returns:
        What was taken; the data itself if it is not large, is in another form, or cannot be read as a table: whoever
        reads it then says what is wrong.

    Raises:
        StorageFull: no space for what is taken.
    """
    if path.is_dir():
        return _thin_folder(path, folder, random.Random(seed))  # noqa: S311  a sample, no secret
    if path.suffix.lower() not in _TABLES or not path.is_file() or path.stat().st_size <= TABLE_BYTES:
        return Thinned(path, 1.0)
    share = TABLE_BYTES / path.stat().st_size
    chance = random.Random(seed)  # noqa: S311  a sample, no secret
    out = folder / path.name
    try:
        with path.open(encoding="utf-8-sig", newline="") as file, out.open("w", encoding="utf-8", newline="") as kept:
            if path.suffix.lower() in JSON_LINES:
                rows, taken = _copy_lines(file, kept, share, chance)
            else:
                rows, taken = _copy_rows(file, kept, share, chance)
    except (csv.Error, UnicodeDecodeError):
        return Thinned(path, 1.0)
    return Thinned(out, rows / max(1, taken))


def _copy_rows(file: IO[str], kept: IO[str], share: float, chance: random.Random) -> tuple[int, int]:
    """Copy the first row, which may be a header, and some of the others."""
    csv.field_size_limit(DEFAULT_LIMITS.cell)
    delimiter = delimiter_of(file.read(_HEAD))
    file.seek(0)
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    writer = csv.writer(kept, delimiter=delimiter, lineterminator="\n")
    writer.writerows(row for _, row in zip(range(1), reader, strict=False))
    rows = taken = 0
    for row in reader:
        rows += 1
        if chance.random() < share:
            writer.writerow(row)
            taken += 1
    return rows, taken


def _copy_lines(file: IO[str], kept: IO[str], share: float, chance: random.Random) -> tuple[int, int]:
    rows = taken = 0
    for line in file:
        rows += 1
        if chance.random() < share:
            kept.write(line)
            taken += 1
    return rows, taken


def _thin_folder(path: Path, folder: Path, chance: random.Random) -> Thinned:
    """Link some of the pictures in a folder of the same form; a table that names pictures needs all of them."""
    files = [Path(place, name) for place, _, names in os.walk(path) for name in names]
    pictures = [file for file in files if is_picture_name(file.name) and not file.is_symlink()]
    size = sum(file.stat().st_size for file in pictures)
    if size <= FOLDER_BYTES or len(pictures) < len([file for file in files if not file.name.startswith(".")]):
        return Thinned(path, 1.0)
    share = FOLDER_BYTES / size
    kept = [file for file in sorted(pictures) if chance.random() < share]
    for file in kept:
        place = folder / path.name / file.relative_to(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        _copy(file, place)
    return Thinned(folder / path.name, len(pictures) / max(1, len(kept)))


def _copy(file: Path, place: Path) -> None:
    """Link a file, which costs nothing, or copy it to another disk."""
    try:
        os.link(file, place)
    except OSError:
        place.write_bytes(file.read_bytes())
