"""What holds for every test: no setting of the person who runs them leaks in, and time decides nothing."""

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("yunmo", deadline=None, suppress_health_check=[HealthCheck.too_slow])


def pytest_configure(config: pytest.Config) -> None:
    del config
    settings.load_profile("yunmo")
    for name in [name for name in os.environ if name.startswith("YUNMO_")]:
        del os.environ[name]
