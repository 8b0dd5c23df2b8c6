"""Writing an array row by row, so that a full disk is an error and never half a file."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from yunmo.core.files import storage_errors

_HEADER = 256
"""Bytes kept for the .npy header, which is written last, when the number of rows is known."""


class ArrayWriter:
    """Writes an .npy file row by row; its space is taken first, so that later writes cannot fail for lack of it.

    Args:
        path: the file.
        dtype: of the values.
        shape: of one row.
        rows: the most rows that will come; fewer are fine.

    Raises:
        StorageFull: no space left.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], rows: int) -> None:
        self.path, self.dtype, self.shape, self.rows = path, dtype, shape, 0
        self._row_bytes = int(dtype.itemsize * np.prod(shape, dtype=np.int64))
        self._file: BinaryIO
        with storage_errors(path):
            self._file = path.open("wb")
            try:
                os.posix_fallocate(self._file.fileno(), 0, _HEADER + max(1, rows) * self._row_bytes)
                self._file.seek(_HEADER)
            except BaseException:
                self._file.close()
                path.unlink(missing_ok=True)
                raise

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()
            self.path.unlink(missing_ok=True)

    def append(self, batch: NDArray[Any]) -> None:
        """Add rows."""
        with storage_errors(self.path):
            self._file.write(np.ascontiguousarray(batch, self.dtype).data)
        self.rows += len(batch)

    def close(self) -> None:
        """Write the header, cut off what was not used, and sync."""
        with storage_errors(self.path):
            self._file.truncate(_HEADER + self.rows * self._row_bytes)
            self._file.seek(0)
            self._file.write(_header(self.dtype, (self.rows, *self.shape)))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return a version 1.0 .npy header of `_HEADER` bytes (numpy.lib.format)."""
    fields = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    text = repr(fields).encode()
    room = _HEADER - 10
    return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + text.ljust(room - 1) + b"\n"
