from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from yunmo.app.session import open_session
from yunmo.core.errors import SettingsError, Unavailable
from yunmo.store.workspace import Workspace


def test_without_a_service_this_process_serves_itself_and_others_find_it(tmp_path: Path) -> None:
    threads = threading.active_count()
    with open_session(tmp_path / "home", {}) as client:
        assert client.models() == []
        holder = Workspace(tmp_path / "home").holder()
        assert holder is not None
        assert holder.address is not None
        socket = Path(holder.address.removeprefix("unix:"))
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        with open_session(tmp_path / "home", {}) as other:
            assert other.runs() == []
        assert client.runs() == []
    assert Workspace(tmp_path / "home").holder() is None
    assert not socket.exists()
    assert threading.active_count() <= threads + 1  # the default pool of the loop may linger


def test_looking_does_not_start_the_runner(tmp_path: Path) -> None:
    with open_session(tmp_path / "home", {}) as client:
        client.runs()
    assert not (tmp_path / "home" / "dbos.sqlite").exists()


def test_a_session_opens_again_and_again(tmp_path: Path) -> None:
    for _ in range(2):
        with open_session(tmp_path / "home", {}) as client:
            listed = client.keys()
            assert [key.name for key in listed] == ["workspace"]


def test_a_url_wins_over_the_workspace(tmp_path: Path) -> None:
    environment = {"YUNMO_URL": "http://127.0.0.1:9", "YUNMO_API_KEY": "ym_x"}
    with open_session(tmp_path / "home", environment) as client, pytest.raises(Unavailable):
        client.models()
    assert not (tmp_path / "home").exists()


def test_what_keeps_the_services_from_starting_is_said(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "settings.yaml").write_text("prot: 80")
    with pytest.raises(SettingsError, match="prot"), open_session(home, {}):
        pass
    assert Workspace(home).holder() is None


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    home = tmp_path / ("x" * 120)
    with open_session(home, {}) as client:
        assert client.models() == []
