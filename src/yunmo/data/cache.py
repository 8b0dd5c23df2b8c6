"""Encoding rows into .npy files chunk by chunk, so that memory stays bounded whatever the data's size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yunmo.core.errors import BodyTooLarge, Cancelled, DataError, InvalidInput
from yunmo.core.fields import FieldStatistics
from yunmo.data.array_file import ArrayWriter
from yunmo.data.fields.base import EXAMPLES, Field, Issue, Values, Where
from yunmo.data.fields.image import ImageField, PixelStatistics, no_picture, stand_in
from yunmo.data.fields.text import TextField
from yunmo.data.splits import Rows

_CHUNK_BYTES = 4 * 2**20
_TEXTS = 4096

Check = Callable[[], None]
"""Raises `Cancelled` when someone asked to stop."""


def checker(cancelled: Callable[[], bool]) -> Check:
    """Return a check that raises `Cancelled` as soon as ``cancelled`` says so."""

    def check() -> None:
        if cancelled():
            raise Cancelled("stopped while preparing the data", remedy="Resume the run to go on")

    return check


def take(values: Values, rows: Rows) -> Any:
    """Return the values of some rows: an array of an array, else a list."""
    return values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]


def write_field(opened: Field, values: Values, rows: Rows, where: Where, files: dict[str, Path], check: Check) -> None:
    """Encode rows of one field into its files.

    Raises:
        DataError: a value that cannot be encoded; names its row.
        StorageFull: no space left.
    """
    tensors = opened.tensors()
    row_bytes = sum(_bytes(tensor.dtype, tensor.shape) for tensor in tensors)
    with ExitStack() as stack:
        writers = {
            tensor.name: stack.enter_context(
                ArrayWriter(files[tensor.name], np.dtype(tensor.dtype), _shape(tensor.shape), len(rows))
            )
            for tensor in tensors
        }
        for chunk in _chunks(rows, row_bytes):
            check()
            for name, batch in _encoded(opened, take(values, chunk), chunk, where).items():
                writers[name].append(batch)


def write_texts(opened: TextField, values: Values, rows: Rows, files: tuple[Path, Path], check: Check) -> None:
    """Write rows of a text field as they are: the UTF-8 of all of them one after the other, and where each ends.

    Raises:
        StorageFull: no space left.
    """
    texts = [(opened.raw(values[row]) or "").encode() for row in rows]
    ends = np.cumsum([0, *map(len, texts)])
    with (
        ArrayWriter(files[0], np.dtype(np.uint8), (), int(ends[-1])) as content,
        ArrayWriter(files[1], np.dtype(np.int64), (), len(ends)) as places,
    ):
        places.append(ends)
        for start in range(0, len(texts), _TEXTS):
            check()
            content.append(np.frombuffer(b"".join(texts[start : start + _TEXTS]), np.uint8))


@dataclass
class Unreadable:
    """Pictures that could not be decoded: how many, and the first few with the reason."""

    count: int = 0
    rows: list[str] = dataclasses.field(default_factory=list)

    def issue(self, name: str) -> tuple[Issue, ...]:
        """Return them as an issue of a field, none if there are none."""
        if not self.count:
            return ()
        return (Issue(name, "unreadable picture", "row dropped", self.count, tuple(self.rows)),)


@dataclass(frozen=True)
class PictureColumn:
    """A picture field and what is written of it."""

    field: ImageField
    values: Values
    file: Path
    statistics: PixelStatistics | None = None
    unreadable: Unreadable = dataclasses.field(default_factory=Unreadable)
    missing: list[int] = dataclasses.field(default_factory=list)
    """Rows of the file that have no picture, and wait for `fill_missing`."""


def write_pictures(columns: list[PictureColumn], rows: Rows, where: Where, *, drop: bool, check: Check) -> Rows:
    """Decode the pictures of some rows into their files, all picture fields of a row together.

    Args:
        columns: the fields; statistics are added to where asked for.
        rows: to decode.
        where: names a row.
        drop: leave out rows with a picture that cannot be decoded, instead of raising.
        check: called for every chunk.

    Returns:
        The rows that were written.

    Raises:
        DataError: an unreadable picture, unless ``drop``.
        StorageFull: no space left.
    """
    kept: list[NDArray[np.int64]] = []
    row_bytes = sum(_bytes("uint8", column.field.shape) for column in columns)
    with ExitStack() as stack:
        writers = [
            stack.enter_context(ArrayWriter(column.file, np.dtype(np.uint8), column.field.shape, len(rows)))
            for column in columns
        ]
        for chunk in _chunks(rows, row_bytes):
            check()
            good = np.ones(len(chunk), np.bool_)
            decoded = [_decoded(column, chunk, good, where, drop) for column in columns]
            for column, writer, (batch, there) in zip(columns, writers, decoded, strict=True):
                readable, present = (batch, there) if good.all() else (batch[good], there[good])
                column.missing.extend((writer.rows + np.flatnonzero(~present)).tolist())
                writer.append(readable)
                if column.statistics is not None:
                    column.statistics.add(readable if present.all() else readable[present])
                    column.statistics.missing += int((~present).sum())
            kept.append(chunk[good])
    return np.concatenate(kept) if kept else np.empty(0, np.int64)


def fill_missing(column: PictureColumn, statistics: FieldStatistics) -> None:
    """Write what stands for missing pictures: only once all training pictures were seen it is known."""
    if column.missing:
        pixels = np.load(column.file, mmap_mode="r+", allow_pickle=False)
        pixels[column.missing] = stand_in(statistics)
        pixels.flush()


def _decoded(
    column: PictureColumn, rows: Rows, good: NDArray[np.bool_], where: Where, drop: bool
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the pixels of some rows, 0 where there is no picture, and which rows have one."""
    batch = np.zeros((len(rows), *column.field.shape), np.uint8)
    there = np.ones(len(rows), np.bool_)
    picture, values = column.field.picture, column.values
    for index, row in enumerate(rows):
        value = values[row]
        there[index] = not no_picture(value)
        if not there[index]:
            continue
        try:
            batch[index] = picture(value)
        except (InvalidInput, BodyTooLarge) as error:
            if not drop:
                raise DataError(
                    f"unreadable picture: {error.message}",
                    where=f"{where(int(row))}, field {column.field.name}",
                    remedy="Replace or remove it, or set clean.unreadable: drop",
                ) from None
            good[index] = False
            column.unreadable.count += 1
            if len(column.unreadable.rows) < EXAMPLES:
                column.unreadable.rows.append(f"{where(int(row))} ({error.message})")
    return batch, there


def _encoded(opened: Field, values: Values, rows: Rows, where: Where) -> dict[str, NDArray[Any]]:
    try:
        return opened.encode(values)
    except InvalidInput:
        # Once more one by one: only then is it known which row of the file is wrong.
        for value, row in zip(values, rows, strict=True):
            try:
                opened.encode([value])
            except InvalidInput as error:
                raise DataError(
                    error.message, where=f"{where(int(row))}, field {opened.column}", remedy=error.remedy
                ) from None
        raise


def _chunks(rows: Rows, row_bytes: int) -> Iterator[Rows]:
    size = max(1, min(65_536, _CHUNK_BYTES // max(1, row_bytes)))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _shape(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    return tuple(size or 1 for size in shape)


def _bytes(dtype: str, shape: tuple[int | None, ...]) -> int:
    return int(np.dtype(dtype).itemsize * np.prod(_shape(shape), dtype=np.int64))
