"""Tensors of the Open Inference Protocol, to numpy and back: of JSON, of raw bytes and of protobuf's lists.

Numbers become arrays of their own type, BF16 (which numpy has not) float32. BYTES become arrays of objects, each bytes
or str. Raw numbers are not copied: their array looks at the message's bytes.

Source: github.com/kserve/open-inference-protocol, inference_rest.md and open_inference_grpc.proto; raw forms as in
Triton's binary tensor extension.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from yunmo.core.errors import InvalidInput

if TYPE_CHECKING:
    from yunmo.protocol.oip_pb2 import InferTensorContents

Array = np.ndarray[Any, np.dtype[Any]]
Buffer = bytes | bytearray | memoryview

RAW: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
    "BF16": np.dtype("<u2"),
}
"""Elements of each datatype as they are in raw bytes; BYTES has no fixed size."""

DATATYPES = (*RAW, "BYTES")

MAX_DIMENSIONS = 32
_MAX_ELEMENTS = 2**56
"""Their bytes are what numpy can still count, also where a shape with a zero holds none."""
_LENGTH = struct.Struct("<I")

_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Which list of `InferTensorContents` holds which datatype."""

_LEAVES: dict[str, tuple[frozenset[type], str]] = {
    "b": (frozenset({bool}), "true or false"),
    "u": (frozenset({int}), "whole numbers"),
    "i": (frozenset({int}), "whole numbers"),
    "f": (frozenset({int, float, type(None)}), "numbers"),
    "O": (frozenset({str}), "strings"),
}


def held(datatype: str) -> np.dtype[Any]:
    """Return the numpy type in which elements of a datatype are held.

    Raises:
        InvalidInput: there is no such datatype.
    """
    if datatype == "BYTES":
        return np.dtype(object)
    if datatype == "BF16":
        return np.dtype(np.float32)
    try:
        return RAW[datatype]
    except KeyError:
        raise InvalidInput(
            f"there is no datatype {datatype[:40]!r}", remedy=f"Datatypes are {', '.join(DATATYPES)}"
        ) from None


def elements(shape: Sequence[int]) -> int:
    """Return how many elements a shape has.

    Raises:
        InvalidInput: too many dimensions, a negative one, or more elements than can be counted.
    """
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidInput(f"a shape of {len(shape)} dimensions", remedy=f"At most {MAX_DIMENSIONS} are possible")
    total, largest = 1, 1
    for size in shape:
        if size < 0:
            raise InvalidInput(f"shape {list(shape)} has a negative dimension", remedy="Give the true size")
        total *= size
        largest *= size or 1
    # The product without zeros too: numpy refuses [0, 2**60, 8], though that holds nothing.
    if largest > _MAX_ELEMENTS:
        raise InvalidInput(f"shape {list(shape)} has more elements than can be counted")
    return total


def from_raw(datatype: str, shape: Sequence[int], data: Buffer) -> Array:
    """Read raw bytes: elements row by row, little-endian, without gaps; BYTES each behind a length of 4 bytes.

    Args:
        datatype: its name in the protocol.
        shape: all dimensions.
        data: the whole of the tensor; arrays of numbers keep looking at it.

    Raises:
        InvalidInput: unknown datatype, impossible shape, or data of another size.
    """
    kind, count = held(datatype), elements(shape)
    if datatype == "BYTES":
        return _read_texts(shape, count, data)
    raw = RAW[datatype]
    if len(data) != count * raw.itemsize:
        raise InvalidInput(
            f"{len(data)} bytes of data where {datatype} of shape {list(shape)} has {count * raw.itemsize}"
        )
    if not count:
        return np.empty(shape, kind)
    array: Array = np.frombuffer(data, raw)
    if not array.flags.aligned:
        array = array.copy()
    if datatype == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    elif datatype == "BOOL" and not (array.view(np.uint8) <= 1).all():
        raise InvalidInput("BOOL data has bytes other than 0 and 1")
    return array.reshape(shape)


def _read_texts(shape: Sequence[int], count: int, data: Buffer) -> Array:
    size = len(data)
    if count * _LENGTH.size > size:
        raise InvalidInput(f"{size} bytes of data are too few for {count} BYTES elements behind their lengths")
    texts = np.empty(count, object)
    place = 0
    for index in range(count):
        if place + _LENGTH.size > size:
            raise InvalidInput(f"the data ends before BYTES element {index} of {count}")
        (length,) = _LENGTH.unpack_from(data, place)
        place += _LENGTH.size
        if place + length > size:
            raise InvalidInput(f"BYTES element {index} says it has {length} bytes; {size - place} are left")
        texts[index] = bytes(data[place : place + length])
        place += length
    if place != size:
        raise InvalidInput(f"{size - place} bytes of data are left over after {count} BYTES elements")
    return texts.reshape(shape)


def from_json(datatype: str, shape: Sequence[int], values: Sequence[Any]) -> Array:
    """Read what JSON holds: elements row by row, in one list or in lists nested as the shape is.

    Texts of BYTES stay str; null in a tensor of floats is NaN.

    Raises:
        InvalidInput: unknown datatype, impossible shape, another number of elements, or one of another type or range.
    """
    kind, count = held(datatype), elements(shape)
    flat = list(values)
    if any(type(value) is list for value in flat):
        flat = _flatten(flat, shape)
    if len(flat) != count:
        raise wrong_count(shape, count, len(flat))
    allowed, name = _LEAVES[kind.kind]
    found = set(map(type, flat))
    if not found <= allowed:
        wrong = next(value for value in flat if type(value) not in allowed)
        raise InvalidInput(f"{_shown(wrong)} in data of {datatype}", remedy=f"Its elements are {name}")
    if kind.kind in "bO":
        array = np.empty(count, kind)
        array[:] = flat
        return array.reshape(shape)
    if kind.kind == "f":
        return from_numbers(datatype, shape, _floats(flat, datatype))
    limits = np.iinfo(kind)
    if flat and (min(flat) < limits.min or max(flat) > limits.max):
        raise _out_of_range(datatype, kind)
    return np.array(flat, kind).reshape(shape)


def _floats(flat: list[Any], datatype: str) -> Array:
    try:
        return np.array([np.nan if value is None else value for value in flat], np.float64)
    except OverflowError:
        raise InvalidInput(f"a number beyond {datatype}") from None


def _flatten(values: list[Any], shape: Sequence[int]) -> list[Any]:
    """Return the leaves of lists that are nested exactly as a shape is."""
    level = [values]
    for depth, size in enumerate(shape):
        if any(type(each) is not list or len(each) != size for each in level):
            raise InvalidInput(f"data is not nested as its shape {list(shape)} is, in dimension {depth}")
        level = [leaf for each in level for leaf in each]
    return level


def wrong_count(shape: Sequence[int], count: int, found: int) -> InvalidInput:
    """Make the error for data of another number of elements than its shape has."""
    return InvalidInput(f"{found} elements of data where shape {list(shape)} has {count}")


def from_numbers(datatype: str, shape: Sequence[int], numbers: Array) -> Array:
    """Give numbers, read as 64 bits each, their own type and shape.

    Args:
        datatype: any but BOOL and BYTES.
        shape: all dimensions.
        numbers: one dimension: float64 for floats (no infinity), int64 or uint64 for integers.

    Raises:
        InvalidInput: another number of them, or some beyond the datatype.
    """
    kind, count = held(datatype), elements(shape)
    if len(numbers) != count:
        raise wrong_count(shape, count, len(numbers))
    if numbers.dtype == kind:
        return numbers.reshape(shape)
    if kind.kind == "f":
        if np.abs(numbers).max(initial=0.0) <= np.finfo(kind).max:  # NaN is not
            return numbers.astype(kind).reshape(shape)
        with np.errstate(over="ignore"):
            narrow = numbers.astype(kind)
        if np.isinf(narrow).any():
            raise InvalidInput(f"a number beyond {datatype}")
        return narrow.reshape(shape)
    limits = np.iinfo(kind)
    if count and (int(numbers.min()) < limits.min or int(numbers.max()) > limits.max):
        raise _out_of_range(datatype, kind)
    return numbers.astype(kind).reshape(shape)


def _out_of_range(datatype: str, kind: np.dtype[Any]) -> InvalidInput:
    limits = np.iinfo(kind)
    return InvalidInput(f"a number beyond {datatype}, which goes from {limits.min} to {limits.max}")


def from_contents(datatype: str, shape: Sequence[int], contents: InferTensorContents) -> Array:
    """Read protobuf's list of a datatype.

    Raises:
        InvalidInput: unknown datatype, impossible shape, another number of elements, elements out of range or in
            another list, or a datatype that has no list (FP16, BF16).
    """
    kind, count = held(datatype), elements(shape)
    name = _CONTENTS.get(datatype)
    if name is None:
        raise InvalidInput(f"{datatype} has no contents of its own", remedy="Send it in raw_input_contents")
    for field, _ in contents.ListFields():
        if field.name != name:
            raise InvalidInput(f"contents of {datatype} in {field.name}", remedy=f"They belong in {name}")
    values = getattr(contents, name)
    if len(values) != count:
        raise wrong_count(shape, count, len(values))
    if kind.kind == "O":
        array = np.empty(count, kind)
        array[:] = list(values)
        return array.reshape(shape)
    if kind.kind in "iu":
        return from_numbers(datatype, shape, np.fromiter(values, f"{kind.kind}8", count))
    return np.fromiter(values, kind, count).reshape(shape)


def to_raw(datatype: str, array: Array) -> bytes:
    """Write an array as raw bytes; the inverse of `from_raw`. BF16 rounds to the nearest, ties to even."""
    if datatype == "BYTES":
        parts: list[bytes] = []
        for element in array.ravel().tolist():
            text = element.encode() if isinstance(element, str) else bytes(element)
            parts += (_LENGTH.pack(len(text)), text)
        return b"".join(parts)
    if datatype == "BF16":
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
        rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
        # Rounding would carry the bits of some NaN over into infinity.
        return np.where(np.isnan(array), 0x7FC0, rounded).astype("<u2").tobytes()
    return np.ascontiguousarray(array, RAW[datatype]).tobytes()


def to_json(datatype: str, array: Array) -> list[Any]:
    """Write an array as one list of JSON-able elements; NaN and infinity are left to be written as null.

    Raises:
        InvalidInput: bytes that are no text.
    """
    flat: list[Any] = array.ravel().tolist()
    if datatype != "BYTES":
        return flat
    try:
        return [element if isinstance(element, str) else bytes(element).decode() for element in flat]
    except UnicodeDecodeError:
        raise InvalidInput("the answer has bytes that are no text", remedy="Ask for it as binary data") from None


def to_contents(datatype: str, array: Array, contents: InferTensorContents) -> None:
    """Write an array into protobuf's list of its datatype.

    Raises:
        InvalidInput: the datatype has no list (FP16, BF16).
    """
    name = _CONTENTS.get(datatype)
    if name is None:
        raise InvalidInput(f"{datatype} has no contents of its own", remedy="Ask for it raw")
    flat = array.ravel().tolist()
    if datatype == "BYTES":
        flat = [element.encode() if isinstance(element, str) else bytes(element) for element in flat]
    getattr(contents, name).extend(flat)


def _shown(value: object) -> str:
    names: dict[type, str] = {bool: "a boolean", int: "a whole number", float: "a fraction", str: "a string"}
    return names.get(type(value), "null" if value is None else "an object" if isinstance(value, dict) else "a list")
