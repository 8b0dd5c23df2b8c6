from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from tests.contract.harness import Workers
from tests.contract.watch import Watch
from tests.fixtures.tensors import make_tensor_bundle

from yunmo.core.settings import Settings


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """One data worker with the endpoints ``table`` and ``pictures``, and a limit of 200 kB a request."""
    with Workers(tmp_path_factory.mktemp("home"), settings=Settings(max_body=200_000)) as workers:
        workers.deploy("table", workers.bundle("table"))
        workers.deploy("pictures", workers.bundle("pictures", kind="image"))
        workers.apply()
        yield workers


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """As ``workers``, with the endpoint ``tensors`` of an imported graph beside them."""
    with Workers(tmp_path_factory.mktemp("home"), settings=Settings(max_body=200_000)) as workers:
        tensors = workers.workspace.home / "made" / "tensors"
        tensors.parent.mkdir()
        make_tensor_bundle(tensors, workers.private)
        workers.deploy("tensors", tensors)
        workers.deploy("table", workers.bundle("table"))
        workers.deploy("pictures", workers.bundle("pictures", kind="image"))
        workers.apply()
        yield workers


@pytest.fixture(scope="module")
def client(attacked: Workers) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=attacked.url, headers=attacked.headers, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def survived(attacked: Workers) -> Iterator[None]:
    """After all of it the worker is the same, and no larger."""
    watch = Watch(attacked)
    yield
    watch.settled()
