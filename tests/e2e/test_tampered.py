"""A bundle that is not what was signed is refused wherever it is opened, and what served before goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.command import Home, Service
from tests.fixtures.bundles import make_bundle, writable

from yunmo.bundle.archive import export
from yunmo.bundle.sign import sign

PATH = "/api/v1/endpoints/guarded/predict"
ROW = '{"age": 30, "city": "Berlin"}'


def bundle(home: Home, folder: Path, always: str) -> Path:
    """Write a signed bundle that always answers one category."""
    make_bundle(folder, name="guarded", private_key=home.path / "signing.key", always=always)
    return folder


def packed(folder: Path) -> Path:
    file = folder.with_suffix(".zip")
    export(folder, file)
    return file


def imported(home: Home, folder: Path) -> tuple[str, Path]:
    """Import a bundle; return its reference, and the folder that it is served from."""
    version: dict[str, Any] = home.ok("models", "import", packed(folder), "--json").json
    served = home.path / "bundles" / version["digest"].removeprefix("sha256:")
    return f"{version['model']}:{version['version']}", served


def answer(live: Service) -> tuple[str, str]:
    """Return what the endpoint answers, and which version of the model it says that is."""
    reply = live.curl(PATH, "-H", "content-type: application/json", "-d", ROW)
    return reply["predictions"][0]["label"]["value"], f"{reply['model']}:{reply['version']}"


@pytest.fixture(scope="module")
def good(live: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Deploy a bundle that always answers "cat"; return its reference."""
    live.home.ok("models", "ls")  # the workspace has its keys from here on
    reference, _ = imported(live.home, bundle(live.home, tmp_path_factory.mktemp("good") / "good", "cat"))
    live.home.ok("deploy", reference)
    assert answer(live) == ("cat", reference)
    return reference


def change_a_byte(folder: Path) -> str:
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(content)
    return "weights.safetensors"


def change_the_manifest(folder: Path) -> str:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["name"] = "mine"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return "manifest.json"


def change_the_card(folder: Path) -> str:
    with (folder / "README.md").open("a") as file:
        file.write("\nThe best model in the world.\n")
    return "README.md"


def remove_a_file(folder: Path) -> str:
    (folder / "report.html").unlink()
    return "report.html"


def add_a_file(folder: Path) -> str:
    (folder / "extra.py").write_text("print('here')")
    return "extra.py"


def add_a_hidden_file(folder: Path) -> str:
    (folder / ".gitignore").write_text("*")
    return ".gitignore"


def add_an_empty_folder(folder: Path) -> str:
    (folder / "more").mkdir()
    return "more"


def remove_the_signature(folder: Path) -> str:
    (folder / "signature.json").unlink()
    return "signature.json"


@pytest.mark.parametrize(
    "tamper",
    [
        change_a_byte,
        change_the_manifest,
        change_the_card,
        remove_a_file,
        add_a_file,
        add_a_hidden_file,
        add_an_empty_folder,
        remove_the_signature,
    ],
    ids=lambda it: it.__name__,
)
def test_a_bundle_that_was_touched_is_not_deployed_and_the_old_one_answers(
    live: Service, good: str, tmp_path: Path, tamper: Callable[[Path], str]
) -> None:
    home = live.home
    # Seeds differ, so every case has versions of its own.
    folder = tmp_path / "bad"
    seed = sum(tamper.__name__.encode())
    make_bundle(folder, name="guarded", private_key=home.path / "signing.key", always="dog", seed=seed)
    bad, served = imported(home, folder)
    touched = tamper(writable(served))
    assert touched in home.refused("models", "verify", bad)
    assert touched in home.refused("deploy", bad)
    assert answer(live) == ("cat", good)


def test_a_bundle_of_a_newer_yunmo_says_so_and_a_forged_one_does_not(live: Service, tmp_path: Path) -> None:
    home = live.home
    home.ok("models", "ls")
    before = live.registered()
    folder = bundle(home, tmp_path / "newer", "fish")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format_version": 99}))
    assert "manifest.json" in (forged := home.refused("models", "import", packed(folder)))
    assert "upgrade" not in forged.lower()
    (folder / "signature.json").unlink()
    sign(folder, home.path / "signing.key")
    newer = home.refused("models", "import", packed(folder))
    assert "bundle format 99" in newer
    assert "Upgrade Yunmo" in newer
    assert live.registered() == before


def test_a_bundle_that_another_workspace_signed_is_refused(live: Service, home: Home, tmp_path: Path) -> None:
    home.ok("models", "ls")
    live.home.ok("models", "ls")
    before = live.registered()
    make_key(home)
    file = packed(bundle(home, tmp_path / "foreign", "cat"))
    assert "sign" in live.home.refused("models", "import", file)
    assert live.registered() == before


def make_key(home: Home) -> None:
    from yunmo.bundle.sign import new_key_pair
    from yunmo.store.workspace import Workspace

    Workspace(home.path).signing_keys(new_key_pair)
