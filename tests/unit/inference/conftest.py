from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fixtures.bundles import Kind, key_files, make_bundle

from yunmo.inference.predictor import Predictor


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], Predictor]:
    """Return a function that opens the tiny model of a kind, once."""
    folder = tmp_path_factory.mktemp("bundles")
    key, public = key_files(folder)
    known: dict[Kind, Predictor] = {}

    def open_kind(kind: Kind) -> Predictor:
        if kind not in known:
            make_bundle(folder / kind, kind=kind, private_key=key)
            known[kind] = Predictor.open(folder / kind, public_key_pem=public)
        return known[kind]

    return open_kind


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, str]:
    return key_files(tmp_path)
