import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from yunmo.core.access import key_prefix
from yunmo.core.errors import InvalidInput, SettingsError, WorkspaceBusy
from yunmo.store.workspace import Workspace

HOLD = """
import sys, time
from pathlib import Path
from yunmo.store.workspace import Workspace
with Workspace(Path(sys.argv[1])).lock("http://127.0.0.1:9999"):
    print("held", flush=True)
    sys.stdin.read()
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_second_service_is_told_who_holds_the_workspace(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "home")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workspace.home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        holder.stdout.readline()
        with pytest.raises(WorkspaceBusy) as caught, workspace.lock():
            pass
        assert str(holder.pid) in caught.value.message
        assert "http://127.0.0.1:9999" in caught.value.message
        assert workspace.service_address() == "http://127.0.0.1:9999"
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert (workspace.home / "lock").read_bytes()
    assert workspace.service_address() is None
    with workspace.lock() as lock:
        lock.announce("http://127.0.0.1:1")
        assert workspace.service_address() == "http://127.0.0.1:1"
    assert workspace.holder() is None


def test_one_process_cannot_hold_a_workspace_twice(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.lock(), pytest.raises(WorkspaceBusy, match=str(os.getpid())), workspace.lock():
        pass


def test_keys_are_made_once_and_private(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "home")
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(workspace.workspace_key())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1
    assert key_prefix(made[0])
    assert Workspace(workspace.home).workspace_key() == made[0]
    assert mode(workspace.home / "workspace.key") == 0o600
    assert mode(workspace.home) == 0o700


def test_signing_keys_are_one_pair_under_concurrency(tmp_path: Path) -> None:
    calls: list[int] = []

    def make() -> tuple[str, str]:
        calls.append(1)
        return f"private {len(calls)}", f"public {len(calls)}"

    workspace = Workspace(tmp_path)
    threads = [threading.Thread(target=workspace.signing_keys, args=(make,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    private, public = workspace.signing_keys(make)
    assert (private.read_bytes(), public.read_bytes()) == (b"private 1", b"public 1")
    assert mode(private) == 0o600


def test_settings_name_the_file_of_a_misspelt_key(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.settings().jobs == 1
    (tmp_path / "settings.yaml").write_text("job: 2\n")
    with pytest.raises(SettingsError, match=r"settings\.yaml.*jobs"):
        workspace.settings()


def test_ids_that_are_paths_are_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for name in ("", "..", "a/b"):
        with pytest.raises(InvalidInput):
            workspace.runs_folder(name)


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="not a folder"):
        Workspace(tmp_path / "file")
