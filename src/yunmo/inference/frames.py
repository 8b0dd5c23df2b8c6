"""Messages between a worker and a model's process: a small header, and the bytes of arrays behind it.

The header is MessagePack, four bytes of its length before it (little-endian, as all numbers). Nothing is pickled.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping
from io import BufferedReader
from typing import Any, cast

import msgspec
import numpy as np

from yunmo.bundle.manifest import Tensors
from yunmo.inference.session import Arrays

_BUFFER = 1 << 16
_PARTS = 512  # of one sendmsg; Linux takes 1024
_STRINGS = "O"
_PLAIN_KINDS = "biuf"


class Order(msgspec.Struct, array_like=True):
    """What the process is to load; the graph comes beside it."""

    tensors: Tensors
    threads: int
    folder: str | None = None


class Array(msgspec.Struct, array_like=True):
    """An array whose bytes follow."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


class Head(msgspec.Struct, array_like=True):
    """What a message begins with."""

    arrays: list[Array] = []
    problem: dict[str, Any] | None = None
    order: Order | None = None
    said: list[str] = []
    """What the process logged meanwhile: its log is the worker's."""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Head)


def send(connection: socket.socket, head: Head, tensors: Mapping[str, Any]) -> None:
    """Write a message.

    Args:
        connection: a socket that blocks.
        head: its ``arrays`` are filled in here.
        tensors: arrays by name, of numbers, booleans or texts.

    Raises:
        OSError: nobody reads any more.
    """
    parts: list[Any] = []
    arrays = []
    for name, tensor in tensors.items():
        array = np.asarray(tensor)
        dtype, part = _pack(array)
        arrays.append(Array(name, dtype, array.shape, len(part)))
        if len(part):
            parts.append(part)
    head.arrays = arrays
    encoded = _ENCODER.encode(head)
    parts.insert(0, len(encoded).to_bytes(4, "little") + encoded)
    while parts:
        sent = connection.sendmsg(parts[:_PARTS])
        while parts and sent >= len(parts[0]):
            sent -= len(parts.pop(0))
        if sent:
            parts[0] = memoryview(parts[0])[sent:]


def receive(reader: BufferedReader) -> tuple[Head, Arrays]:
    """Read a message.

    Raises:
        EOFError: there is none, or only a part of one.
    """
    head = _DECODER.decode(_read(reader, int.from_bytes(_read(reader, 4), "little")))
    return head, {each.name: _unpack(each, reader) for each in head.arrays}


def open_reader(connection: socket.socket) -> BufferedReader:
    """Return what `receive` reads from."""
    return cast("BufferedReader", connection.makefile("rb", _BUFFER))


def _read(reader: BufferedReader, size: int) -> bytes:
    data = reader.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _pack(array: np.ndarray[Any, Any]) -> tuple[str, Any]:
    """Return an array's datatype and its bytes: texts as their lengths (int64), then all of them in UTF-8."""
    if array.dtype.kind in "OUS":
        texts = [
            each if isinstance(each, bytes) else str(each).encode("utf-8", "surrogatepass")
            for each in array.ravel().tolist()
        ]
        return _STRINGS, b"".join((np.array([len(each) for each in texts], "<i8").tobytes(), *texts))
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return plain.dtype.str, plain.reshape(-1).view(np.uint8).data


def _unpack(head: Array, reader: BufferedReader) -> np.ndarray[Any, Any]:
    count = math.prod(head.shape)
    if head.dtype == _STRINGS:
        data = _read(reader, head.size)
        texts = np.empty(count, object)
        at = 8 * count
        for index, size in enumerate(np.frombuffer(data, "<i8", count).tolist()):
            texts[index] = data[at : at + size].decode("utf-8", "surrogatepass")
            at += size
        return texts.reshape(head.shape)
    dtype = np.dtype(head.dtype)
    if dtype.kind not in _PLAIN_KINDS or count * dtype.itemsize != head.size:
        raise ValueError("not an array")
    array = np.empty(head.shape, dtype)
    if head.size and reader.readinto(array.reshape(-1).view(np.uint8).data) != head.size:
        raise EOFError
    return array
