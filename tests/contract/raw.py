"""Bare HTTP/1.1 and HTTP/2 on sockets, as no client library would send it."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from tests.contract.harness import Workers
from tests.contract.watch import PREDICT

BODY = b'{"age": 3, "city": "Berlin"}'
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Answer(NamedTuple):
    """One answer of HTTP/1.1."""

    status: int
    head: bytes
    body: bytes


def request(workers: Workers, *lines: str, body: bytes = BODY, target: str = PREDICT, length: bool = True) -> bytes:
    """Return a POST with a valid key; ``lines`` are more headers."""
    said = [f"content-length: {len(body)}"] if length else []
    always = [f"POST {target} HTTP/1.1", "host: x", f"authorization: Bearer {workers.key}"]
    return "\r\n".join([*always, "content-type: application/json", *lines, *said, "", ""]).encode() + body


def talk(workers: Workers, data: bytes, *, half: bool = False, timeout: float = 60) -> bytes:
    """Send bytes and return everything that comes until the server closes; a reset ends it too.

    Args:
        workers: to whom.
        data: what is sent.
        half: close the sending side behind it.
        timeout: seconds after which a server that neither answers nor closes has failed.
    """
    got = bytearray()
    with workers.connect(timeout) as connection:
        try:
            connection.sendall(data)
            if half:
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                got += piece
        except ConnectionError:
            pass  # it was closed while more was being sent
    return bytes(got)


def answers(data: bytes) -> list[Answer]:
    """Take apart what came on a connection; the last answer may not be cut off."""
    found = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, head
        status = int(head.split(b" ", 2)[1])
        length = next(
            (int(x.split(b":")[1]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")), 0
        )
        assert len(data) >= length
        found.append(Answer(status, head, data[:length]))
        data = data[length:]
    return found


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Return a frame of HTTP/2 (RFC 9113, 4.1); ``length`` is what it says of itself instead of the truth."""
    return (
        struct.pack(">I", len(payload) if length is None else length)[1:]
        + struct.pack(">BBI", kind, flags, stream)
        + payload
    )


def headers(*pairs: tuple[str, str]) -> bytes:
    """Return headers as literals that no table keeps (RFC 7541, 6.2.2)."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in pairs)


def _text(text: str) -> bytes:
    assert len(text) < 127
    return bytes([len(text)]) + text.encode()
