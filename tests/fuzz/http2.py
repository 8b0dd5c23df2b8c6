"""Fuzzes connections of HTTP/2: whatever comes, every request ends once, and what is said is frames."""

from __future__ import annotations

import struct

from tests.fuzz.driver import fuzz, watched

with watched("hpack"):
    from tests.unit.serving.http2.peer import Peer, Server

    from yunmo.serving.http2 import connection, frames
    from yunmo.serving.http2.frames import PREFACE, Setting, frame, header_block

BLOCK = header_block(((":method", "POST"), (":scheme", "http"), (":path", "/x"), ("a", "b")))
INDEXED = b"\x83\x86\x44\x02/x\x40\x01a\x01b"
END, OPEN = frames.END_HEADERS | frames.END_STREAM, frames.END_HEADERS


def check(data: bytes) -> None:
    """Send what is behind the first two bytes, in pieces, and let time pass between them."""
    server = Server(limit=3000)
    server.later = bool(data[:1] and data[0] & 1)
    step = (data[1] if len(data) > 1 else 0) * 16 + 1
    peer = Peer(server)
    conversation = PREFACE + frame(frames.SETTINGS, 0, 0) + data[2:]
    for at in range(0, len(conversation), step):
        if peer.transport.closed is not None:
            break
        peer.connection.data_received(conversation[at : at + step])
        server.tick += 1
        peer.connection.look(server.tick)
        for exchange in list(server.exchanges.values()):
            if server.later and exchange.ends == ["received"] and len(server.exchanges) > 2:
                exchange.answer()
    peer.connection.connection_lost(None)
    assert len(server.exchanges) <= len(data)
    for exchange in server.exchanges.values():
        received, *rest = exchange.ends
        assert received in ("received", "gone") or rest == [], exchange.ends
        assert rest in ([], ["gone"]), exchange.ends
    _frames(bytes(peer.transport.sent))


def _frames(said: bytes) -> None:
    """Hold what was said against the protocol: whole frames, and one end of each stream."""
    ended: set[int] = set()
    at = 0
    while at < len(said):
        high, low, kind, flags, stream = frames.HEAD.unpack_from(said, at)
        at += frames.HEAD.size + (high << 8 | low)
        assert at <= len(said)
        assert (high << 8 | low) <= frames.MAX_FRAME
        if kind in (frames.DATA, frames.HEADERS):
            assert stream not in ended
        if kind == frames.HEADERS and flags & frames.END_STREAM:
            ended.add(stream)


def seeds() -> list[bytes]:
    """Return conversations: whole requests, parts of them, and what surrounds them."""
    request = frame(frames.HEADERS, OPEN, 1, BLOCK) + frame(frames.DATA, frames.END_STREAM, 1, b"hello")
    parts = [
        request,
        frame(frames.HEADERS, END, 1, INDEXED) + frame(frames.HEADERS, END, 3, b"\x83\x86\xbf\xbe"),
        frame(frames.HEADERS, 0, 1, BLOCK[:5]) + frame(frames.CONTINUATION, END, 1, BLOCK[5:]),
        request + frame(frames.HEADERS, END, 3, INDEXED) + frame(frames.RST_STREAM, 0, 3, bytes(4)),
        frame(frames.HEADERS, OPEN, 1, BLOCK) + frame(frames.DATA, frames.PADDED, 1, b"\2abc\0\0") * 3,
        frame(frames.SETTINGS, 0, 0, struct.pack(">HI", Setting.INITIAL_WINDOW_SIZE, 3)) + request,
        request + frame(frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\1") + frame(frames.PING, 0, 0, b"12345678"),
        frame(frames.HEADERS, OPEN, 1, BLOCK) + frame(frames.DATA, 0, 1, bytes(3500)),
        request + frame(frames.GOAWAY, 0, 0, bytes(8)) + frame(frames.PRIORITY, 0, 5, bytes(5)),
    ]
    return [bytes([later, 255]) + part for part in parts for later in (0, 1)]


WORDS = [
    *(frame(kind, flags, stream) for kind in range(10) for flags in (0, 1, 4, 5, 8) for stream in (0, 1, 3)),
    BLOCK,
    INDEXED,
    struct.pack(">I", connection.WINDOW),
]

if __name__ == "__main__":
    fuzz(check, seeds(), WORDS)
