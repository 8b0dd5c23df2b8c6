"""Parquet files, read by pyarrow: the extra ``parquet``."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from yunmo.core.errors import DataError, MissingExtra
from yunmo.data.fields.base import Values
from yunmo.data.sources.table import TableSource, Texts

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types

MAGIC = b"PAR1"
_CELLS = 2**19
"""Cells decoded at a time."""
_REMEDY = "Write plain columns: numbers, texts, booleans, dates, or lists of numbers of one length"


class ParquetSource(TableSource):
    """A Parquet file of plain columns: numbers, texts, booleans, dates and times, lists of numbers of one shape.

    Dates and times become texts as ISO 8601 has them, to the second (in UTC, if they name a zone); decimals become
    floating numbers.

    Raises:
        MissingExtra: pyarrow is not installed.
        DataError: damaged, encrypted, columns of other types, lists of several shapes, too many columns or far too
            many cells, no rows.
    """

    kind = "parquet"

    @property
    def longest_cell(self) -> int:
        """Bytes that a text may have."""
        return self._limits.cell

    def where(self, row: int) -> str:
        """Name the file and the row, counted from 0 as pandas does."""
        return f"{self._name}, row {row} (from 0)"

    def _read(self, expected: Collection[str]) -> None:  # noqa: ARG002 - the file names its columns
        try:
            import pyarrow as pa
        except ImportError:
            raise MissingExtra(
                "reading Parquet needs pyarrow", where=self._name, remedy="Install it: pip install 'yunmo[parquet]'"
            ) from None
        try:
            self._read_file()
        except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
            detail = (str(error).splitlines() or ["no memory"])[0][:200]
            raise DataError(
                f"a damaged Parquet file ({detail})", where=self._name, remedy="Make or download the file again"
            ) from None

    def _read_file(self) -> None:
        from pyarrow import parquet

        with self._bytes() as file:
            schema = parquet.read_schema(file)
            self.names = list(schema.names)
            self.check_names(self.names, self._name)
            for field in schema:
                _check_type(field.type, f"{self._name}, column {field.name}")
            # Texts stay as the file has them, each once: a small file may repeat a long one in millions of rows.
            texts = [field.name for field in schema if _is_text(field.type)]
            opened = parquet.ParquetFile(file, read_dictionary=texts)
            columns = [_Column(self, name) for name in self.names]
            rows = size = 0
            portion = max(64, min(8192, _CELLS // max(1, len(columns))))
            for batch in opened.iter_batches(portion, use_threads=False):
                size += batch.nbytes
                if size > self._limits.memory:
                    where, most = self.where(rows), self._limits.memory
                    raise DataError(f"more than {most:,} bytes of cells", where=where, remedy="Split the file")
                batch.validate(full=False)
                for column, cells in zip(columns, batch.columns, strict=True):
                    column.add(cells, rows)
                rows += batch.num_rows
        if not rows:
            raise DataError("no rows", where=self._name, remedy="Give a table with rows")
        self._columns = [column.values() for column in columns]


class _Column:
    """The values of a column, portion by portion.

    Args:
        source: the file, which says where a row is.
        name: of the column.
    """

    def __init__(self, source: ParquetSource, name: str) -> None:
        self._source, self._name = source, name
        self._parts: list[Values] = []
        self._texts = Texts()
        self._shape: list[int] = []

    def add(self, cells: pa.Array, first: int) -> None:
        """Add the cells of some rows.

        Args:
            cells: of one of the types that `_check_type` lets pass.
            first: the row of the first one.

        Raises:
            DataError: a text that is not UTF-8, or a list that does not fit; it names the row.
        """
        from pyarrow import types

        kind = cells.type
        if _is_list(kind):
            self._parts.append(self._array(cells, first))
        elif types.is_dictionary(kind):
            self._parts.append(self._categories(cells, first))
        elif cells.null_count == 0 and (types.is_integer(kind) or types.is_floating(kind)):
            self._parts.append(cells.to_numpy(zero_copy_only=False))
        else:
            self._parts.append(_plain(cells))

    def values(self) -> Values:
        """Return all cells: an array of numbers if none is missing, else a list."""
        if all(isinstance(part, np.ndarray) for part in self._parts):
            return np.concatenate(self._parts)
        return [value for part in self._parts for value in (part.tolist() if isinstance(part, np.ndarray) else part)]

    def _categories(self, cells: pa.Array, first: int) -> list[Any]:
        """Return texts, or whatever else a dictionary holds, by their places in it.

        Raises:
            DataError: a text that is not UTF-8.
        """
        cells.indices.validate(full=True)
        places = cells.indices.to_pylist()
        self._refuse_long(cells, places, first)
        try:
            values = _plain(cells.dictionary)
        except UnicodeDecodeError:
            # A dictionary is that of many rows: the one at fault may come later, and is to be named.
            self._find_not_utf8(places, cells.dictionary, first)
            return [cells[row].as_py() for row in range(len(cells))]
        if _is_text(cells.type.value_type):
            values = [self._texts[value] if value is not None else None for value in values]
        if any(place is not None and not 0 <= place < len(values) for place in places):
            raise ValueError("a place beyond the dictionary")
        return [values[place] if place is not None else None for place in places]

    def _refuse_long(self, cells: pa.Array, places: list[int | None], first: int) -> None:
        """Refuse a text over the limit before it becomes one of Python's.

        Raises:
            DataError: names the row, if it is among these.
        """
        import pyarrow.compute as pc  # type: ignore[import-untyped]  # it ships no types

        most = self._source.longest_cell
        if not _is_text(cells.type.value_type) or not len(cells.dictionary):
            return
        lengths = pc.binary_length(cells.dictionary).fill_null(0).to_numpy(zero_copy_only=False)
        if lengths.max() > most:
            place = int(lengths.argmax())
            row = first + (places.index(place) if place in places else 0)
            raise self._error(f"a text of more than {most:,} bytes", row, "Leave it out, or shorten it")

    def _find_not_utf8(self, places: list[int | None], dictionary: pa.Array, first: int) -> None:
        for row, place in enumerate(places):
            try:
                if place is not None:
                    dictionary[place].as_py()
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                raise self._error(f"byte {byte:#04x} is not UTF-8", first + row, "Write texts in UTF-8") from None

    def _array(self, cells: pa.Array, first: int) -> NDArray[Any]:
        """Return lists of numbers as an array.

        Raises:
            DataError: a missing list or number, or lists of several lengths.
        """
        import pyarrow.compute as pc

        cells.validate(full=True)
        rows, shape = len(cells), [len(cells)]
        while _is_list(cells.type):
            lengths = pc.list_value_length(cells).fill_null(-1).to_numpy(zero_copy_only=False)
            if len(self._shape) < len(shape):
                self._shape.append(int(lengths[0]) if len(lengths) else 0)
            expected = self._shape[len(shape) - 1]
            wrong = np.flatnonzero((lengths != expected) | (lengths < 1))
            if len(wrong):
                length, row = int(lengths[wrong[0]]), first + int(wrong[0]) * rows // len(cells)
                has = "a missing list" if length < 0 else f"a list of {length}"
                raise self._error(f"{has} where the first row has {expected}" if length > 0 else has, row)
            shape.append(expected)
            cells = cells.flatten()
        if cells.null_count:
            missing = int(cells.is_null().to_numpy(zero_copy_only=False).argmax())
            raise self._error("a list with a missing number", first + missing * rows // len(cells))
        return np.asarray(cells.to_numpy(zero_copy_only=False)).reshape(shape)

    def _error(self, message: str, row: int, remedy: str = _REMEDY) -> DataError:
        return DataError(message, where=f"{self._source.where(row)}, {self._name}", remedy=remedy)


def _is_list(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_plain(kind: pa.DataType) -> bool:
    from pyarrow import types

    return (
        _is_text(kind)
        or types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or types.is_timestamp(kind)
        or types.is_date(kind)
        or types.is_null(kind)
    )


def _check_type(kind: pa.DataType, where: str) -> None:
    """Refuse a type that is no cell.

    Raises:
        DataError: names the column and its type.
    """
    from pyarrow import types

    found = kind.value_type if types.is_dictionary(kind) else kind
    while _is_list(found):
        found = found.value_type
        if not (_is_list(found) or types.is_integer(found) or types.is_floating(found)):
            raise DataError(f"lists of {str(found)[:100]}", where=where, remedy=_REMEDY)
    if not _is_plain(found):
        raise DataError(f"values of the type {str(found)[:100]}", where=where, remedy=_REMEDY)


def _plain(cells: pa.Array) -> list[Any]:
    """Return cells as Python's texts, numbers and booleans, None for missing ones."""
    import pyarrow as pa
    from pyarrow import types

    kind = cells.type
    if types.is_timestamp(kind):
        cells = cells.cast(pa.timestamp("s"), safe=False).cast(pa.string())
    elif types.is_date(kind):
        cells = cells.cast(pa.date32()).cast(pa.string())
    elif types.is_decimal(kind):
        cells = cells.cast(pa.float64())
    plain: list[Any] = cells.to_pylist()
    return plain
