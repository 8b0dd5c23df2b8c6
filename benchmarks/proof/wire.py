"""HTTP/1.1 on bare connections: whole requests or parts of them go out, answers are read in order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

_LIMIT = 1 << 22


@dataclass(frozen=True)
class Reply:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def last(self) -> bool:
        """Whether the server closes the connection after it (RFC 9112, 9.6)."""
        return self.headers.get("connection", "").lower() == "close"


class Gone(Exception):
    """The connection ended before the answer was whole."""


class Connection:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, host: str, port: int) -> Connection:
        """Connect."""
        reader, writer = await asyncio.open_connection(host, port, limit=_LIMIT)
        raw: socket.socket | None = writer.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(reader, writer)

    async def send(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            Gone: the other side has closed.
        """
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            raise Gone from None

    async def receive(self) -> Reply:
        """Read one answer.

        Raises:
            Gone: the connection ended before it was whole.
        """
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {}
            for line in lines:
                name, _, value = line.partition(":")
                headers[name.strip().lower()] = value.strip()
            return Reply(int(first.split(" ", 2)[1]), headers, await self._body(headers))
        except (asyncio.IncompleteReadError, OSError, ValueError, IndexError):
            raise Gone from None

    async def receive_some(self) -> None:
        """Read the first bytes of an answer, if any come."""
        with contextlib.suppress(OSError):
            await self._reader.read(20)

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    def close(self, *, hard: bool = False) -> None:
        """Close; ``hard``: with a reset instead of the usual goodbye."""
        raw: socket.socket | None = self._writer.get_extra_info("socket")
        if hard and raw is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
        else:
            self._writer.close()

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            parts = []
            while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
                parts.append(await self._reader.readexactly(size))
                await self._reader.readexactly(2)
            await self._reader.readuntil(b"\r\n")
            return b"".join(parts)
        return await self._reader.readexactly(int(headers.get("content-length", "0")))


def request(path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return a POST as bytes."""
    lines = [f"POST {path} HTTP/1.1", "host: proof", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body
