"""Other servers with the echo model, to hold the same proof against them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.proof import echo
from benchmarks.proof.callers import Target
from benchmarks.serving import environments, processes
from benchmarks.serving.places import answers, free_port, wait_until
from benchmarks.serving.servers import write_mlserver

NAMES = ("mlserver", "litserve")
_LITSERVE = Path(__file__).with_name("litserve_echo.py")
_RUNTIMES = Path(__file__).resolve().parents[1] / "serving/peers"
_START_SECONDS = 90.0
_BATCH = {"max_batch_size": 8, "max_batch_time": 0.002}


@contextlib.contextmanager
def start(name: str) -> Iterator[list[Target]]:
    """Start a peer with batching on, and return where to ask."""
    python, port, grpc_port = environments.python(name), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="yunmo-proof-") as folder, open(f"{folder}/log", "wb") as log:
        file = echo.write(Path(folder, "echo.onnx"), echo.model(slow=True))
        environment = {**os.environ, "PYTHONPATH": str(_RUNTIMES), "ECHO": str(file)}
        if name == "mlserver":
            write_mlserver(Path(folder), {"echo": file}, port, grpc_port, **_BATCH)
            command, health = [str(python.with_name("mlserver")), "start", folder], "/v2/health/ready"
        else:
            command, health = [str(python), str(_LITSERVE), str(port)], "/health"
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}{health}"), _START_SECONDS, f"start of {name}")
            if name == "mlserver":
                yield [
                    Target("127.0.0.1", port, "oip-json", "echo"),
                    Target("127.0.0.1", grpc_port, "grpc", "echo"),
                ]
            else:
                yield [Target("127.0.0.1", port, "plain", "/predict", rows=1)]
        finally:
            processes.stop(process)
