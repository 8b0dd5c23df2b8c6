"""A Yunmo service of its own: an empty workspace in a temporary folder, two data workers, everything on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.serving import processes
from benchmarks.serving.places import Failed
from yunmo.client.client import Client

_START_SECONDS = 120.0


class Yunmo:
    """``yunmo up`` as a user starts it, with free ports and ``workers`` data workers. Use it as a context manager.

    Args:
        workers: data workers.
        settings: more ``YUNMO_*`` variables.
    """

    def __init__(self, *, workers: int = 2, settings: Mapping[str, str] | None = None) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="yunmo-bench-"))
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("YUNMO_")}
        self._environment |= {"YUNMO_HOME": str(self.home), "YUNMO_WORKERS": str(workers), **(settings or {})}
        self.process: subprocess.Popen[bytes]
        self.url = ""
        self.grpc_port = 0
        self.key = ""

    def __enter__(self) -> Yunmo:
        command = [sys.executable, "-m", "yunmo.cli", "up", "--port", "0", "--json"]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                command, env=self._environment, stdout=subprocess.PIPE, stderr=log, cwd=self.home
            )
        line = self.process.stdout.readline() if self.process.stdout else b""
        if not line:
            said_last = self.log[-2000:]
            self.__exit__(None, None, None)
            raise Failed(f"yunmo up did not start: {said_last}")
        said = json.loads(line)
        self.url, self.grpc_port, self.key = said["url"], said["grpc_port"], said["key"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        processes.stop(self.process)
        if self.process.stdout is not None:
            self.process.stdout.close()
        if error is not None:
            sys.stderr.write(self.log[-4000:])
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def log_path(self) -> Path:
        """Where the service's log goes."""
        return self.home / "service.log"

    @property
    def log(self) -> str:
        """All that the service has logged."""
        return self.log_path.read_text(errors="replace")

    @property
    def port(self) -> int:
        """Its HTTP port."""
        return int(self.url.rpartition(":")[2])

    def worker_pids(self) -> list[int]:
        """Return its data workers."""
        return [int(path.stem) for path in (self.home / "run/workers").glob("*.json")]

    def client(self) -> Client:
        """Return a client with the first key, which may do everything."""
        return Client(self.url, self.key)

    def import_onnx(self, file: Path, name: str, fields: Mapping[str, Any] | None = None) -> str:
        """Import an ONNX file as the next version of a model and return ``NAME:VERSION``.

        Args:
            file: the ONNX file.
            name: of the model.
            fields: how its tensors are fields; None: as they are.
        """
        with self.client() as client:
            found = client.import_model(file, name=name, fields=fields)
        return f"{found.model}:{found.version}"

    def deploy(self, reference: str, endpoint: str | None = None) -> None:
        """Let an endpoint answer with a model version."""
        with self.client() as client:
            client.deploy(reference, endpoint)

    def new_key(self) -> str:
        """Return a key that may only ask."""
        with self.client() as client:
            return client.create_key("benchmark", scopes=["predict"]).secret
