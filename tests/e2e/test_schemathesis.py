"""Schemathesis against the service's own descriptions: requests that fit them and requests that do not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.test_service_up import Service, deploy

from yunmo import protocol
from yunmo.store.workspace import Workspace

SECONDS = 30
"""For each description."""
OIP = Path(protocol.__file__).with_name("oip.yaml")
CHECKS = ",".join(
    (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "ignored_auth",
    )
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("up") / "home")
    deploy(service, "cat")
    yield service
    service.close()


@pytest.mark.parametrize("description", ["/openapi.json", "oip"])
def test_what_is_described_is_what_happens(service: Service, description: str, tmp_path: Path) -> None:
    """No 5xx, only documented answers in their documented shapes, and none without a key."""
    tool = shutil.which("schemathesis", path=Path(sys.executable).parent)
    assert tool, "it comes with the extra dev"
    key = Workspace(service.home).workspace_key()
    where = [str(OIP)] if description == "oip" else [service.url + description]
    command = [tool, "run", *where, "--url", service.url, "--header", f"Authorization: Bearer {key}"]
    # Streams of events do not end.
    command += ["--exclude-path-regex", "/events", "--phases", "examples,coverage,fuzzing", "--mode", "all"]
    command += ["--checks", CHECKS, "--max-time", str(SECONDS), "--request-timeout", "20", "--continue-on-failure"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, timeout=SECONDS + 200)
    assert done.returncode == 0, done.stdout[-15000:] + done.stderr[-3000:]
