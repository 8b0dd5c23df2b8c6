"""The headers of requests. Source: RFC 7541 (HPACK) and RFC 9113, 8.2 and 8.3."""

from __future__ import annotations

import logging

from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from yunmo.serving.http2.frames import Http2Error, Reason

MAX_HEADERS = 16 * 1024
"""Bytes of a request's headers, decoded, with 32 for each; and of the block that they came in."""
_REMEMBERED = 64
_REMEMBERED_BYTES = 1024
_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_CONNECTION = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})

logging.getLogger("hpack").setLevel(logging.WARNING)  # below, it writes headers to the log, and keys with them


class RequestHead:
    """The headers of a request; they are shared by requests that have the same, so nobody changes them.

    Args:
        headers: as they came, decoded.

    Raises:
        ValueError: they are no request's.
    """

    __slots__ = ("_fields", "method", "path")

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        pseudo: dict[bytes, bytes] = {}
        self._fields: list[tuple[str, str]] = []
        for name, value in headers:
            if name.startswith(b":"):
                if self._fields or name not in _PSEUDO or name in pseudo:
                    raise ValueError("pseudo-headers are known ones, each once, before all others")
                pseudo[name] = value
            elif not name or name != name.lower() or name in _CONNECTION:
                raise ValueError("no header of HTTP/2")
            else:
                self._fields.append((name.decode("latin-1"), value.decode("latin-1")))
        if not {b":method", b":scheme", b":path"} <= pseudo.keys():
            raise ValueError("a pseudo-header is missing")
        self.method = pseudo[b":method"].decode("latin-1")
        self.path = pseudo[b":path"].decode("latin-1")

    def values(self, name: str) -> list[str]:
        """Return every value that a header (lower case) was sent with."""
        return [value for key, value in self._fields if key == name]

    def value(self, name: str) -> str | None:
        """Return the first value of a header (lower case), None if there is none."""
        return next((value for key, value in self._fields if key == name), None)


class _Table(HeaderTable):
    """A table that tells whether something was added to it."""

    added = False

    def add(self, name: bytes, value: bytes) -> None:
        """See `HeaderTable.add`."""
        self.added = True
        super().add(name, value)


class HeaderReader:
    """Reads the blocks of one connection, in their order.

    A block that leaves the table as it is says the same as long as the table stays so: clients send the same few
    over and over, and those are not decoded again.
    """

    def __init__(self) -> None:
        self._decoder = Decoder(MAX_HEADERS)
        self._table = self._decoder.header_table = _Table()
        self._known: dict[bytes, RequestHead | None] = {}

    def read(self, block: bytes) -> RequestHead | None:
        """Return a request's head; None if it is no request's (trailers are none either).

        Args:
            block: all of it.

        Raises:
            Http2Error: it cannot be decoded, or says too much: those that follow cannot be read either.
        """
        try:
            return self._known[block]
        except KeyError:
            pass
        self._table.added = self._table.resized = False
        try:
            headers = list(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError:
            raise Http2Error(Reason.ENHANCE_YOUR_CALM) from None
        except HPACKError:
            raise Http2Error(Reason.COMPRESSION_ERROR) from None
        try:
            head = RequestHead([(bytes(name), bytes(value)) for name, value in headers])
        except ValueError:
            head = None
        if self._table.added or self._table.resized:
            self._known.clear()
        elif len(block) <= _REMEMBERED_BYTES and len(self._known) < _REMEMBERED:
            self._known[block] = head
        return head
