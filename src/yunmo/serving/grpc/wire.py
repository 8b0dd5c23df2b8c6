"""Calls of gRPC on streams of HTTP/2: message and deadline of a request, the blocks of an answer.

Source: github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md and doc/compression.md.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Final
from urllib.parse import quote

from yunmo.core.errors import BodyTooLarge, InvalidInput, Malformed, UnsupportedMediaType
from yunmo.serving.grpc.status import Status
from yunmo.serving.http2.frames import header_block

PREFIX: Final = struct.Struct(">BI")
"""Before a message: whether it is compressed, and its length."""
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
_WINDOW_BITS = {"gzip": 31, "deflate": 15}
"""Of zlib, by name of the compression."""
_CONTENT_TYPE = ("content-type", "application/grpc")
_TEXT = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")

ANSWER: Final = header_block((_CONTENT_TYPE, ("grpc-accept-encoding", "identity,deflate,gzip")), status=200)
"""The headers of an answer with a message."""
GOOD: Final = header_block((("grpc-status", "0"),))
"""Its trailers."""
NO_GRPC: Final = header_block((), status=415)
"""The headers of an answer to a request that is none of gRPC."""


def timeout_of(value: str | None) -> float | None:
    """Return the seconds that the header ``grpc-timeout`` gives a call.

    Raises:
        InvalidInput: it is no time.
    """
    if value is None:
        return None
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise InvalidInput("not a time, such as 500m", where="metadata grpc-timeout")
    return int(match[1]) * _UNITS[match[2]]


def message_of(body: bytes, encoding: str | None, limit: int) -> bytes:
    """Return the one message of a request.

    Args:
        body: all of it.
        encoding: how a compressed message was compressed.
        limit: bytes that a message may have.

    Raises:
        Malformed: not one message.
        BodyTooLarge: more than ``limit`` bytes.
        UnsupportedMediaType: an unknown compression.
    """
    if len(body) < PREFIX.size:
        raise Malformed("the call ended before its message")
    compressed, length = PREFIX.unpack_from(body)
    if compressed > 1 or length != len(body) - PREFIX.size:
        raise Malformed("not one whole message")
    return _inflate(body[PREFIX.size :], encoding, limit) if compressed else body[PREFIX.size :]


def _inflate(data: bytes, encoding: str | None, limit: int) -> bytes:
    bits = _WINDOW_BITS.get(encoding or "")
    if bits is None:
        raise UnsupportedMediaType("an unknown compression; known: deflate, gzip", where="metadata grpc-encoding")
    inflater = zlib.decompressobj(bits)
    try:
        message = inflater.decompress(data, limit + 1)
    except zlib.error:
        raise Malformed("the message is not compressed as it says", where="metadata grpc-encoding") from None
    if len(message) > limit:
        raise message_too_large(limit)
    if not inflater.eof or inflater.unused_data:
        raise Malformed("the message is not compressed as it says", where="metadata grpc-encoding")
    return message


def message_too_large(limit: int) -> BodyTooLarge:
    """Make the error for a message over its limit."""
    return BodyTooLarge(f"the message has more than {limit} bytes", remedy="Send less, or raise the setting max_body")


def failure(status: Status, text: str, metadata: tuple[tuple[str, str], ...]) -> bytes:
    """Return the headers of an answer without a message.

    Args:
        status: how the call ended.
        text: says why; other than printable ASCII is written as %XX of UTF-8.
        metadata: sent with it; ASCII.
    """
    said = ("grpc-message", quote(text, safe=_TEXT))
    return header_block((_CONTENT_TYPE, ("grpc-status", str(int(status))), said, *metadata), status=200)
