"""The command line, its workspaces and the processes behind it, as a user has them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

SECONDS = 120.0
"""How long anything may take on a busy machine; nothing comes near it on a free one."""
CHILD, RUNNER, CONTROL, WORKER = "control.jobs.child", "app.runner_process", "app.control_process", "app.worker"


@dataclass(frozen=True)
class Answer:
    """What a command said and how it ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document that it wrote."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON documents that it wrote, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Home:
    """A workspace and the commands that work on it.

    Args:
        path: its folder.
        settings: environment variables beside those of this process.
    """

    def __init__(self, path: Path, settings: Mapping[str, str] | None = None) -> None:
        self.path = path
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("YUNMO_")}
        self._environment = {**inherited, "YUNMO_HOME": str(path), "COLUMNS": "200", **(settings or {})}

    def yunmo(self, *arguments: object, cwd: Path | None = None) -> Answer:
        """Run a command to its end."""
        done = subprocess.run(
            _command(arguments),
            capture_output=True,
            text=True,
            env=self._environment,
            cwd=cwd,
            timeout=SECONDS,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: object, cwd: Path | None = None) -> Answer:
        """Run a command that has to succeed."""
        answer = self.yunmo(*arguments, cwd=cwd)
        assert answer.status == 0, answer
        return answer

    def refused(self, *arguments: object, cwd: Path | None = None) -> str:
        """Run a command that has to fail as users may expect of it: with one line that begins with ``error:``."""
        answer = self.yunmo(*arguments, cwd=cwd)
        assert answer.status == 1, answer
        complaints = answer.err.splitlines()
        assert len(complaints) == 1, answer
        assert complaints[0].startswith("error: "), answer
        for word in ("Traceback", "a defect of Yunmo", "Error:", "np.float"):
            assert word not in answer.err + answer.out, answer
        return complaints[0]

    @contextlib.contextmanager
    def started(self, *arguments: object) -> Iterator[Process]:
        """Run a command beside the test; whatever is left of it and of what it started is killed at the end."""
        with Process(_command(arguments), self._environment) as process:
            yield process

    @contextlib.contextmanager
    def up(self, *arguments: object) -> Iterator[Service]:
        """Run the service."""
        with Process(_command(("up", "--port", "0", "--json", *arguments)), self._environment) as process:
            yield Service(self, process)

    def train(self, *arguments: object) -> dict[str, Any]:
        """Train, and return the run and its report as ``{"run": …, "report": …}``."""
        found: dict[str, Any] = self.ok("train", *arguments, "--json").lines[-1]
        return found

    def bundle(self, run: Mapping[str, Any]) -> Path:
        """Return the folder of the bundle that a run made."""
        version = self.ok("models", "show", f"{run['model']}:{run['version']}", "--json").json
        return self.path / "bundles" / str(version["digest"]).removeprefix("sha256:")

    def registered(self) -> tuple[list[str], list[str]]:
        """Return the model versions and the dataset versions of the workspace."""
        return _references(self.ok("models", "ls", "--json").json, self.ok("data", "ls", "--json").json)

    @property
    def key(self) -> str:
        """The workspace's own key."""
        return (self.path / "workspace.key").read_text().strip()


class Process:
    """A command that runs beside the test, in a session of its own; a context manager that leaves no process."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        # Not a pipe: nobody reads the log of a service, and a full pipe would stop it.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `kill`)
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=dict(environment),
            start_new_session=True,
        )
        self._seen: set[psutil.Process] = set()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def line(self) -> dict[str, Any]:
        """Return the next JSON document that it writes."""
        assert self._process.stdout is not None
        text = self._process.stdout.readline()
        assert text, self.end()
        found: dict[str, Any] = json.loads(text)
        return found

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first JSON document that is as wanted."""
        while not wanted(found := self.line()):
            pass
        return found

    def until_epoch(self, epoch: int) -> str:
        """Wait until a run has finished an epoch, and return the run's id."""
        found = self.until(lambda each: _tag(each) == "run.epoch" and each["event"]["epoch"] >= epoch)
        return str(found["subject"])

    def signal(self, number: int) -> None:
        """Send it a signal; Ctrl-C is SIGINT."""
        self._process.send_signal(number)

    def end(self) -> Answer:
        """Wait until it ends."""
        out, _ = self._process.communicate(timeout=SECONDS)
        self._errors.seek(0)
        return Answer(self._process.returncode, out, self._errors.read())

    def processes(self, module: str = "") -> list[psutil.Process]:
        """Return the processes that it started and that still run, those of a module of ours if one is named."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._seen |= set(psutil.Process(self.pid).children(recursive=True))
        return [each for each in self._seen if module in _words(each)]

    def one(self, module: str) -> psutil.Process:
        """Return the one process of a module."""
        found: list[psutil.Process] = []

        def there() -> bool:
            found[:] = self.processes(module)
            return bool(found)

        wait(there)
        assert len(found) == 1, [each.cmdline() for each in found]
        return found[0]

    def kill(self) -> None:
        """Kill -9 it and everything that it started, at once."""
        left = self.processes()
        if self._process.poll() is None:
            self._process.kill()
        for each in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self._process.wait()
        psutil.wait_procs(left, timeout=SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()


class Service:
    """A running ``yunmo up``."""

    def __init__(self, home: Home, process: Process) -> None:
        self.home = home
        self.process = process
        self.url = str(process.line()["url"])

    def stop(self) -> int:
        """End it as an operator does, and return its exit status."""
        self.process.signal(signal.SIGTERM)
        return self.process.end().status

    def registered(self) -> tuple[list[str], list[str]]:
        """Return the model versions and the dataset versions of the workspace, asked over HTTP (which is faster)."""
        return _references(self.curl("/api/v1/models"), self.curl("/api/v1/datasets"))

    def curl(self, path: str, *options: str) -> Any:
        """Call it with curl, and return the JSON that it answers."""
        command = ["curl", "-sS", "--max-time", "60", "-H", f"authorization: Bearer {self.home.key}", *options]
        done = subprocess.run([*command, self.url + path], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)


def _references(models: list[dict[str, Any]], datasets: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    return (
        [f"{each['model']}:{each['version']}" for each in models],
        [f"{each['name']}:{each['version']}" for each in datasets],
    )


def _command(arguments: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "yunmo.cli", *map(str, arguments)]


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def wait(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _tag(line: dict[str, Any]) -> str | None:
    event = line.get("event")
    return event.get("event") if isinstance(event, dict) else None
