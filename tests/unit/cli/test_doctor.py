import json
import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from yunmo.cli import doctor

Yunmo = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    monkeypatch.setenv("YUNMO_HOME", str(home))
    monkeypatch.delenv("YUNMO_URL", raising=False)
    return home


def test_settings_say_where_they_come_from(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.mkdir()
    (workspace / "settings.yaml").write_text("jobs: 2\nport: 9000\n")
    monkeypatch.setenv("YUNMO_PORT", "9001")
    settings = doctor.examine()["settings"]
    assert settings["port"] == {"value": 9001, "from": "YUNMO_PORT"}
    assert settings["jobs"] == {"value": 2, "from": str(workspace / "settings.yaml")}
    assert settings["host"]["from"] == "default"


def test_broken_settings_spoil_nothing_else(yunmo: Yunmo, workspace: Path) -> None:
    workspace.mkdir()
    (workspace / "settings.yaml").write_text("prot: 1\n")
    status, out, err = yunmo("doctor")
    assert (status, err) == (0, "")
    assert "unknown key 'prot'" in out
    assert "httptools" in out


def test_a_workspace_is_not_made_by_looking(yunmo: Yunmo, workspace: Path) -> None:
    _, out, _ = yunmo("doctor", "--json")
    assert json.loads(out)["workspace"]["exists"] is False
    assert not workspace.exists()


def test_a_secret_that_others_can_read_is_said(workspace: Path) -> None:
    workspace.mkdir()
    (workspace / "signing.key").write_text("secret")
    (workspace / "signing.key").chmod(0o644)
    found = doctor.examine()
    assert found["workspace"]["signing_key"] == "open to others (mode 644)"
    assert any("chmod 600" in line and "signing.key" in line for line in found["advice"])
    (workspace / "signing.key").chmod(0o600)
    assert doctor.examine()["workspace"]["signing_key"].startswith("there")


def test_what_is_missing_comes_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "torch":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    assert "missing for the extra 'train': torch. Install: pip install 'yunmo[train]'" in doctor.examine()["advice"]


def test_the_extras_are_those_of_the_package() -> None:
    wanted: dict[str, set[str]] = {}
    for line in metadata.requires("yunmo") or ():
        name = re.match(r"[A-Za-z0-9._-]+", line)
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        if name and extra and extra[1] != "dev":
            wanted.setdefault(extra[1], set()).add(name[0].lower())
    assert {extra: set(names) for extra, names in doctor.EXTRAS.items()} == wanted


@pytest.mark.parametrize(
    ("flags", "answer"),
    [({"amx_bf16"}, "yes (AMX)"), ({"avx512_bf16"}, "yes"), ({"sse2"}, "no"), (set(), "unknown")],
)
def test_bf16(flags: set[str], answer: str) -> None:
    assert doctor.bf16(frozenset(flags)) == answer
