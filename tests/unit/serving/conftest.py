from __future__ import annotations

from pathlib import Path

import pytest
from tests.fixtures.bundles import key_files, make_bundle

from yunmo.bundle.files import bundle_digest
from yunmo.core.snapshot import Deployment, Variant


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A private key's path, and its public key in PEM."""
    return key_files(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, signer: tuple[Path, str]) -> dict[str, Deployment]:
    """Deployments of three small models: a table's that says cat, one that says dog, and a picture's."""
    folder = tmp_path_factory.mktemp("bundles")
    made = {}
    for name, kind, always in (("cat", "table", "cat"), ("dog", "table", "dog"), ("image", "image", None)):
        make_bundle(folder / name, kind=kind, private_key=signer[0], always=always)
        live = Variant("pets", 1, bundle_digest(folder / name), str(folder / name))
        made[name] = Deployment("pets", "p", (live,))
    return made
