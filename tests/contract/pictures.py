"""Pictures as an attacker makes them."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image


def jpeg(size: int = 64) -> bytes:
    """Return a good JPEG."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((size, size)).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def huge_png(side: int = 50_000) -> bytes:
    """Return a valid PNG of side x side black pixels, 1 bit each: 310 MB of rows deflated to a few kB, twice."""
    row = bytes(1 + (side + 7) // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row * 1000) for _ in range(side // 1000)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, (b"IHDR", b"IDAT", b"IEND"), (head, data, b"")))


def lying_png(side: int = 50_000) -> bytes:
    """Return 10 kB that say they were side x side pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    data = zlib.compress(bytes(10_000_000))[:10_000]
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, (b"IHDR", b"IDAT", b"IEND"), (head, data, b"")))


def text_bomb_png() -> bytes:
    """Return a small picture whose compressed text is 64 MB."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    good = buffer.getvalue()
    text = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(64_000_000), 9))
    return good[:33] + text + good[33:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
