from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from yunmo.app.sockets import MAX_SOCKET_PATH, private_socket, reserve_port
from yunmo.core.errors import InvalidInput, Unavailable


def test_port_0_is_a_free_one_that_workers_can_share() -> None:
    with reserve_port("127.0.0.1", 0) as listening:
        assert listening.url == f"http://127.0.0.1:{listening.port}"
        for _ in range(2):
            with socket.socket() as worker:
                worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                worker.bind((listening.address, listening.port))
                worker.listen()


def test_a_port_in_use_is_refused_even_if_its_user_would_share_it() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Unavailable, match=f"127.0.0.1:{port}: the port is in use"), reserve_port("127.0.0.1", port):
            pass


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7"])
def test_an_address_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(InvalidInput), reserve_port(host, 0):
        pass


def test_every_address_is_reached_by_loopback() -> None:
    with reserve_port("0.0.0.0", 0) as listening:  # noqa: S104 (what is tested)
        assert listening.url == f"http://127.0.0.1:{listening.port}"


def test_the_socket_lies_in_a_private_folder_and_a_stale_one_is_removed(tmp_path: Path) -> None:
    wanted = tmp_path / "run" / "control.sock"
    wanted.parent.mkdir(mode=0o755)
    wanted.write_bytes(b"stale")
    with private_socket(wanted) as path:
        assert path == wanted
        assert not path.exists()
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_path_too_long_for_a_socket_is_replaced_by_a_private_short_one(tmp_path: Path) -> None:
    with private_socket(tmp_path / ("x" * MAX_SOCKET_PATH) / "control.sock") as path:
        assert len(bytes(path)) <= MAX_SOCKET_PATH
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    assert not path.parent.exists()
