"""Where the service listens: a TCP port that all data workers share, and a private Unix socket for control."""

from __future__ import annotations

import contextlib
import errno
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from yunmo.core.errors import InvalidInput, Unavailable

MAX_SOCKET_PATH = 107
"""Bytes that the path of a Unix socket may have (Linux has room for 108, one ends it)."""

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (recognized here, not bound)


@dataclass(frozen=True, slots=True)
class Listening:
    """A reserved port."""

    address: str
    """IP address."""
    port: int

    @property
    def url(self) -> str:
        """Where a client on this machine finds the service."""
        host = _ANY.get(self.address, self.address)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def accepts(self) -> bool:
        """Say whether a process accepts connections there."""
        try:
            with socket.create_connection((_ANY.get(self.address, self.address), self.port), timeout=1.0):
                return True
        except OSError:
            return False


@contextlib.contextmanager
def reserve_port(host: str, port: int, *, option: str = "--port") -> Iterator[Listening]:
    """Hold a port for the data workers, which bind it too (SO_REUSEPORT); nobody connects to this socket.

    Args:
        host: name or address to listen on.
        port: 0 for any free one.
        option: of the command line, by which another can be chosen.

    Raises:
        Unavailable: the port is in use.
        InvalidInput: this machine has no such address, or the port is not ours to open.
    """
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise InvalidInput(f"{host!r} is no address to listen on: {error.strerror}", where="setting host") from None
    with socket.socket(family, kind, protocol) as held:
        try:
            # Without SO_REUSEPORT, so that a second service does not slip in beside a first one.
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(target)
                probe.listen(1)
                target = probe.getsockname()
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(target)
        except OSError as error:
            raise _cannot_bind(host, port, option, error) from None
        address, bound = held.getsockname()[:2]
        yield Listening(address, bound)


def _cannot_bind(host: str, port: int, option: str, error: OSError) -> InvalidInput | Unavailable:
    where = f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return Unavailable(
            "the port is in use",
            where=where,
            remedy=f"Stop what uses it, or choose another with {option} (0: any free)",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return InvalidInput("this port may not be opened", where=where, remedy="Choose a port of 1024 or more")
    return InvalidInput(f"cannot listen there: {error.strerror}", where=where)


@contextlib.contextmanager
def private_socket(wanted: Path) -> Iterator[Path]:
    """Give a path for a Unix socket in a folder of mode 0700, and remove it at the end.

    Args:
        wanted: where it belongs; if that is too long for a socket, a private folder for temporary files is used.
    """
    if len(bytes(wanted)) <= MAX_SOCKET_PATH:
        wanted.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        wanted.parent.chmod(0o700)
        wanted.unlink(missing_ok=True)
        try:
            yield wanted
        finally:
            wanted.unlink(missing_ok=True)
        return
    with tempfile.TemporaryDirectory(prefix="yunmo-") as folder:  # mode 0700
        yield Path(folder) / wanted.name
