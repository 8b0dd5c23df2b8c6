"""gRPC's ModelInfer as bytes: Protocol Buffers by hand, so that the load generators need no generated code.

Source: inference.proto of github.com/kserve/open-inference-protocol (field numbers), protobuf.dev/programming-guides/
encoding (wire format), grpc/grpc doc/PROTOCOL-HTTP2.md (the five bytes before a message).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

PATH = "/inference.GRPCInferenceService/ModelInfer"
_BYTES = 2
_NAMES = {"float32": "FP32", "int64": "INT64"}


def infer_request(model: str, name: str, tensor: Any, request_id: str = "") -> bytes:
    """Return a ModelInferRequest with one tensor, batch and all, as raw contents."""
    shape = b"".join(map(_varint, tensor.shape))
    described = _field(1, name.encode()) + _field(2, _NAMES[str(tensor.dtype)].encode()) + _field(3, shape)
    request = _field(1, model.encode())
    if request_id:
        request += _field(3, request_id.encode())
    return request + _field(5, described) + _field(7, tensor.tobytes())


def framed(message: bytes) -> bytes:
    """Return a message with gRPC's prefix: not compressed, and its length."""
    return struct.pack(">BI", 0, len(message)) + message


def read_response(message: bytes) -> tuple[str, list[Any]]:
    """Return the id of a ModelInferResponse and its raw output tensors (float32, flat)."""
    request_id, outputs = "", []
    for number, value in _fields(message):
        if number == 3:
            request_id = value.decode()
        elif number == 6:
            outputs.append(np.frombuffer(value, np.float32))
        elif number == 5:
            outputs += [np.frombuffer(part, np.float32) for part in _contents(value)]
    return request_id, outputs


def _contents(output: bytes) -> Iterator[bytes]:
    """Yield the fp32_contents (number 6 of InferTensorContents) of an output tensor that is not raw."""
    for number, value in _fields(output):
        if number == 5:
            yield from (part for inner, part in _fields(value) if inner == 6)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the length-delimited fields of a message."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == _BYTES:
            size, at = _read_varint(message, at)
            yield tag >> 3, message[at : at + size]
            at += size
        elif kind == 0:
            _, at = _read_varint(message, at)
        else:
            at += 8 if kind == 1 else 4


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
