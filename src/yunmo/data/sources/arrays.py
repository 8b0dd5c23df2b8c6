"""Numpy arrays: .npz (each key a field) and .npy (a table, or a record array)."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from yunmo.core.errors import DataError
from yunmo.data.fields.base import Values
from yunmo.data.limits import Limits
from yunmo.data.sources.base import Source
from yunmo.data.sources.zip_archive import ZipArchive

_REMEDY = "Save plain arrays of numbers or texts: numpy.savez(file, x=..., y=...)"


class ArraysSource(Source):
    """Arrays whose first dimension is the row.

    Args:
        path: the .npz or .npy file.
        limits: how much it may hold.

    Raises:
        DataError: arrays of objects (they would need pickle), of different numbers of rows, or damaged.
    """

    kind = "arrays"

    def __init__(self, path: Path, limits: Limits) -> None:
        super().__init__(path)
        self._arrays = _read_npz(path, limits) if zipfile.is_zipfile(path) else _read_npy(path)
        self._leave_out_labels()
        lengths = {name: len(array) for name, array in self._arrays.items()}
        if len(set(lengths.values())) != 1:
            shown = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
            raise DataError(
                f"arrays of different numbers of rows: {shown}",
                where=path.name,
                remedy="Give every array one row for each example",
            )
        self.names = list(self._arrays)
        self._length = next(iter(lengths.values()))
        if not self._length:
            raise DataError("arrays without rows", where=path.name, remedy=_REMEDY)

    def __len__(self) -> int:
        return self._length

    def column(self, name: str) -> Values:
        """Return an array; texts as a list of strings."""
        array: Any = self._arrays[name]
        return list(array.tolist()) if array.dtype.kind in "US" else array

    def where(self, row: int) -> str:
        """Name the file and the row, counted from 0 as numpy does."""
        return f"{self.path.name}, row {row} (from 0)"

    def _leave_out_labels(self) -> None:
        """Leave out what does not have a value for each row, such as lists of class names."""
        rows = max((len(array) for array in self._arrays.values() if array.ndim), default=0)
        extra = [
            name
            for name, array in self._arrays.items()
            if array.ndim == 0 or (array.dtype.kind in "US" and array.ndim == 1 and len(array) < rows)
        ]
        self._arrays = {name: array for name, array in self._arrays.items() if name not in extra}
        if extra:
            self.notes = (f"left out, having no value for each row: {', '.join(extra)}",)
        if not self._arrays:
            raise DataError("no arrays", where=self.path.name, remedy=_REMEDY)


def _read_npz(path: Path, limits: Limits) -> dict[str, NDArray[Any]]:
    archive = ZipArchive(path, limits)
    try:
        return {
            name.removesuffix(".npy"): _read_member(path, archive, name, info)
            for name, info in archive.members.items()
            if name.endswith(".npy")
        }
    finally:
        archive.close()


def _read_member(path: Path, archive: ZipArchive, name: str, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Map a stored member into memory, or read a compressed one."""
    where = f"{path.name}, {name}"
    try:
        with archive.open(name) as member:
            shape, fortran, dtype = _header(member, where)
            start = member.tell()
            size = int(dtype.itemsize * np.prod(shape, dtype=np.int64))
            if start + size > info.file_size:
                raise DataError("a truncated array", where=where, remedy=_REMEDY)
            order: Any = "F" if fortran else "C"
            if info.compress_type == zipfile.ZIP_STORED and size:
                return np.memmap(path, dtype, "r", _data_offset(path, info) + start, shape, order)
            return np.frombuffer(member.read(size), dtype).reshape(shape, order=order)
    except (ValueError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(f"not a numpy array ({error})", where=where, remedy=_REMEDY) from None


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Return where a member's bytes begin: after its local header (APPNOTE.TXT 4.3.7)."""
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        lengths = file.read(4)
    name, extra = int.from_bytes(lengths[:2], "little"), int.from_bytes(lengths[2:], "little")
    return info.header_offset + 30 + name + extra


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise DataError(f"format version {version} of numpy arrays", where=where, remedy=_REMEDY)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise DataError("an array of Python objects, which could run code when read", where=where, remedy=_REMEDY)
    if dtype.kind not in "iufbUSV":
        raise DataError(f"an array of type {dtype}", where=where, remedy=_REMEDY)
    return shape, fortran, dtype


def _read_npy(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:
            _header(file, path.name)
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"not a numpy array ({error})", where=path.name, remedy=_REMEDY) from None
    if array.dtype.names:
        return {name: array[name] for name in array.dtype.names}
    if array.ndim != 2:
        raise DataError(
            f"one array of shape {list(array.shape)}",
            where=path.name,
            remedy="A .npy file holds a table (rows, columns); give pictures and labels as one .npz: " + _REMEDY,
        )
    return {f"c{index}": array[:, index] for index in range(array.shape[1])}
