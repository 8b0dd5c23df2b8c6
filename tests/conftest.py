"""What holds for every test: no setting of the person who runs them leaks in."""

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    del config
    for name in [name for name in os.environ if name.startswith("YUNMO_")]:
        del os.environ[name]
