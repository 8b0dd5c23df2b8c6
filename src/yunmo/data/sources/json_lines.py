"""JSON Lines: a JSON object on each line (jsonlines.org)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from yunmo.core.errors import DataError
from yunmo.data.sources.table import TableSource, Texts

_REMEDY = "Write a JSON object on each line, every one with the same keys: null for a missing value"
_FLAT = "Give plain values, or lists of numbers of one length; make what is within an object keys of their own"
_MOST_DIMENSIONS = 3


class JsonLinesSource(TableSource):
    """A JSON object on each line, all with the same keys. Values are plain, or lists of numbers of one shape.

    Raises:
        DataError: no UTF-8, a line that is no JSON object, one with other keys than the first, a key twice, objects
            within, lists that are none of numbers or of several shapes, no rows.
    """

    kind = "jsonl"

    def where(self, row: int) -> str:
        """Name the file and the line, as an editor counts them."""
        return f"{self._name}, row {self._lines[row]}"

    def _read(self, expected: Collection[str]) -> None:  # noqa: ARG002 - every row names its columns
        self._lines: list[int] = []
        cells: dict[str, list[Any]] = {}
        with self.text() as text:
            try:
                self._read_rows(text, cells)
            except UnicodeDecodeError:
                raise self.not_utf8() from None
        if not self._lines:
            raise DataError("no rows", where=self._name, remedy=_REMEDY)
        self._columns = [self._column(name, values) for name, values in cells.items()]

    def _read_rows(self, text: IO[str], cells: dict[str, list[Any]]) -> None:
        texts: dict[str, Texts] = {}
        decode = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant).decode
        for line, content in enumerate(self.bounded(text), 1):
            if not content.strip():
                continue
            where = f"{self._name}, row {line}"
            row = _decoded(decode, content, where)
            if not self._lines:
                self._begin(row, where)
                cells.update({name: [] for name in row})
                texts = {name: Texts() for name in row}
            elif row.keys() != cells.keys():
                raise _other_keys(row, cells, where)
            self._lines.append(line)
            for name, value in row.items():
                cells[name].append(texts[name][value] if type(value) is str else value)
                if type(value) is str:
                    self._check_text(value, where, name)
                elif type(value) is dict:
                    raise DataError("an object where a plain value is expected", where=f"{where}, {name}", remedy=_FLAT)

    def _begin(self, row: dict[str, Any], where: str) -> None:
        if not row or "" in row:
            raise DataError("an object without keys" if not row else "a key without a name", where=where)
        self.names = list(row)
        self.check_names(self.names, where)

    def _check_text(self, value: str, where: str, name: str) -> None:
        if len(value) > self._limits.cell:
            raise DataError(f"a text of more than {self._limits.cell:,} characters", where=f"{where}, {name}")
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise DataError("half of a surrogate pair, which is no character", where=f"{where}, {name}")

    def _column(self, name: str, values: list[Any]) -> list[Any] | NDArray[Any]:
        """Return plain values as they are, lists of numbers as one array."""
        nested = [type(value) is list for value in values]
        if not any(nested):
            return values
        if not all(nested):
            row = nested.index(not nested[0])
            has, others = ("a list", "a plain value") if nested[row] else ("a plain value", "a list")
            raise DataError(f"{has} where the first row has {others}", where=f"{self.where(row)}, {name}", remedy=_FLAT)
        arrays = [self._array(value, name, row) for row, value in enumerate(values)]
        for row, array in enumerate(arrays):
            if array.shape != arrays[0].shape:
                raise DataError(
                    f"a list of {_shape(array)} numbers where the first row has {_shape(arrays[0])}",
                    where=f"{self.where(row)}, {name}",
                    remedy="Give every row as many numbers",
                )
        return np.stack(arrays)

    def _array(self, value: list[Any], name: str, row: int) -> NDArray[Any]:
        try:
            array = np.asarray(value)
        except ValueError:
            array = np.empty(0, object)
        if array.dtype.kind not in "iuf" or array.ndim > _MOST_DIMENSIONS or not array.size:
            raise DataError("a list of something other than numbers", where=f"{self.where(row)}, {name}", remedy=_FLAT)
        return array


def _decoded(decode: Any, content: str, where: str) -> dict[str, Any]:
    try:
        row = decode(content)
    except RecursionError:
        raise DataError("lists within lists without end", where=where, remedy=_FLAT) from None
    except json.JSONDecodeError as error:
        raise DataError(f"not valid JSON: {error.msg} (character {error.colno})", where=where, remedy=_REMEDY) from None
    except ValueError as error:
        raise DataError(f"not valid JSON: {error}", where=where, remedy=_REMEDY) from None
    if not isinstance(row, dict):
        raise DataError("not an object", where=where, remedy=_REMEDY)
    return row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs; json.loads itself would take the last of two equal keys."""
    found = dict(pairs)
    if len(found) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {key!r} stands twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _other_keys(row: dict[str, Any], cells: dict[str, Any], where: str) -> DataError:
    missing = [name for name in cells if name not in row]
    extra = [name for name in row if name not in cells]
    parts = [f"lacks {', '.join(map(repr, missing[:5]))}"] if missing else []
    parts += [f"has {', '.join(map(repr, extra[:5]))}"] if extra else []
    return DataError(f"other keys than the first row: {' and '.join(parts)}", where=where, remedy=_REMEDY)


def _shape(array: NDArray[Any]) -> str:
    return " x ".join(map(str, array.shape))
