"""A table of rows with their answers that grows portion by portion: whole under its name, or resumable beside it."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np

from yunmo.core.files import storage_errors, sync_folder, write_atomic
from yunmo.core.schema import Spec
from yunmo.data.sources.archive import MemberPicture
from yunmo.data.sources.base import Source

_SECONDS = 0.25
"""What is written is made to last about so often; a crash costs no more."""


class _State(Spec, frozen=True):
    """How far a file is: beside it as ``FILE.part.json``."""

    about: dict[str, Any]
    rows: int
    size: int


class AnswersFile:
    """A CSV file that is written to ``FILE.part`` and gets its name when `finish` is called.

    Whoever opens it again about the same goes on after the last portion that was kept. Use it as a context manager.

    Args:
        path: the file.
        names: its columns.
        about: what it is made of (data, model); plain JSON. If that has changed, it begins anew.

    Raises:
        StorageFull: no space left, now or in `add` and `finish`; what was kept before stays.
    """

    def __init__(self, path: Path, names: Sequence[str], about: Mapping[str, Any]) -> None:
        self.path = path
        self._about = {**about, "columns": list(names)}
        self._part, self._state = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
        state = self._kept_state()
        self.rows = state.rows if state else 0
        """Rows that are in it."""
        self.kept = self.rows
        """Rows that a crash does not cost."""
        self._changed = time.monotonic()
        with storage_errors(path):
            self._file = self._part.open("r+b" if state else "wb")
            self._file.truncate(state.size if state else 0)
            self._file.seek(0, os.SEEK_END)
            if not state:
                self._write([names])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._file.closed and not isinstance(error, OSError):
                self.keep()
        finally:
            self._file.close()

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Write rows: a value for each column; None is an empty cell, a list JSON."""
        with storage_errors(self.path):
            self.rows += self._write(rows)
            if time.monotonic() - self._changed > _SECONDS:
                self.keep()

    def keep(self) -> None:
        """Make what is written last."""
        with storage_errors(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            state = _State(about=self._about, rows=self.rows, size=self._file.tell())
            write_atomic(self._state, msgspec.json.encode(state))
        self.kept, self._changed = self.rows, time.monotonic()

    def finish(self) -> None:
        """Give the file its name, in place of an old one."""
        self.keep()
        self._file.close()
        os.replace(self._part, self.path)
        self._state.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def _kept_state(self) -> _State | None:
        try:
            state = msgspec.json.decode(self._state.read_bytes(), type=_State)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        same = state.about == self._about
        return state if same and self._part.is_file() and self._part.stat().st_size >= state.size else None

    def _write(self, rows: Iterable[Sequence[Any]]) -> int:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        count = 0
        for row in rows:
            writer.writerow([json.dumps(cell) if type(cell) is list else cell for cell in row])
            count += 1
        self._file.write(text.getvalue().encode())
        return count


def cells(source: Source) -> dict[str, Sequence[Any]]:
    """Return the columns of a source that have a cell for each row: pictures by their names, arrays left out."""
    found: dict[str, Sequence[Any]] = {}
    for name in source.names:
        column = source.column(name)
        if source.is_picture(name):
            found[name] = [picture.name if isinstance(picture, MemberPicture) else None for picture in column]
        elif not isinstance(column, np.ndarray):
            found[name] = column
        elif column.ndim == 1:
            found[name] = column.tolist()
    return found
