"""What the tests of the whole product share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.command import Home, Service


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A new workspace."""
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One running service for all tests that don't break it."""
    home = Home(tmp_path_factory.mktemp("live") / "home", {"YUNMO_WORKERS": "1"})
    with home.up() as service:
        yield service
        assert service.stop() == 0
