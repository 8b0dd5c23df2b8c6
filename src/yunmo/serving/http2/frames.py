"""Frames of HTTP/2 and the headers of answers. Source: RFC 9113 (4, 6, 7) and RFC 7541 (5, 6.2)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client's connection begins with."""
HEAD: Final = struct.Struct(">HBBBI")
"""The nine bytes before a frame's payload: its length in two parts, type, flags, stream."""
MAX_FRAME: Final = 16384
"""Bytes of a payload that every peer must take, and that we take at most."""
MAX_WINDOW: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65535

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20


class Setting(IntEnum):
    """Settings that mean something here."""

    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Reason(IntEnum):
    """Why a connection or a stream ends: the error codes of RFC 9113, 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Http2Error(Exception):
    """The peer broke the protocol: its connection ends.

    Args:
        reason: that it is told.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.name)
        self.reason = reason


def frame_head(length: int, kind: int, flags: int, stream: int) -> bytes:
    """Return the nine bytes before a payload."""
    return HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a whole frame."""
    return frame_head(len(payload), kind, flags, stream) + payload


def settings(values: dict[Setting, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", name, value) for name, value in values.items()))


def reset(stream: int, reason: Reason) -> bytes:
    """Return the frame that ends a stream at once."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", reason))


def goaway(last: int, reason: Reason) -> bytes:
    """Return the frame that says which streams are still answered."""
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, reason))


def window_update(stream: int, more: int) -> bytes:
    """Return the frame that allows a peer to send more; stream 0: on the connection."""
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", more))


def header_block(headers: Iterable[tuple[str, str]], *, status: int | None = None) -> bytes:
    """Return headers as a block that no table remembers, so that it is the same on every connection.

    Args:
        headers: names in lower case and values, of ASCII.
        status: of HTTP; None: the block is one of trailers.
    """
    parts = []
    if status is not None:
        parts.append(b"\x88" if status == 200 else b"\x08" + _text(str(status)))
    parts += [b"\x00" + _text(name) + _text(value) for name, value in headers]
    return b"".join(parts)


def _text(text: str) -> bytes:
    """Return a string literal without Huffman coding."""
    data = text.encode("ascii")
    size = len(data)
    if size < 127:
        return bytes([size]) + data
    size -= 127
    length = bytearray([127])
    while size >= 128:
        length.append(size % 128 + 128)
        size //= 128
    length.append(size)
    return bytes(length) + data
