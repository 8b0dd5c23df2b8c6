from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.contract.harness import Workers

from yunmo.core.settings import Settings


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """One data worker with the endpoints ``table`` and ``pictures``, and a limit of 200 kB a request."""
    with Workers(tmp_path_factory.mktemp("home"), settings=Settings(max_body=200_000)) as workers:
        workers.deploy("table", workers.bundle("table"))
        workers.deploy("pictures", workers.bundle("pictures", kind="image"))
        workers.apply()
        yield workers
