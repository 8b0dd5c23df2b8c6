"""Load: the compiled generator (``load.c``), its request files, and what it found."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.serving.places import Failed, cache_folder

SOURCE = Path(__file__).with_name("load.c")
TIMEOUT = 60.0
"""Seconds after which a request counts as unanswered."""
EXTRA_SECONDS = 30.0


@dataclass(frozen=True)
class Variant:
    """One request, and the numbers that tell its answer from that to any other request.

    ``anchor`` None: the numbers are the last float32 values of the body; else they are in the text after the anchor.
    """

    request: bytes
    numbers: Sequence[float]
    anchor: bytes | None
    tolerance: float = 1e-3


@dataclass(frozen=True)
class Phase:
    """A part of a load: ``rate`` requests a second whatever the server does; 0: as fast as answers come."""

    rate: float
    seconds: float


@dataclass(frozen=True)
class Result:
    """What one phase came to. Latencies are in milliseconds."""

    seconds: float
    sent: int
    ok: int
    wrong: int
    refused: int
    failed: int
    broken: int
    unanswered: int
    unsent: int
    retry_after: int
    due: int
    cpu: float
    latency_ms: dict[str, float]
    from_due_ms: dict[str, float]
    refusal_ms: dict[str, float]
    status: dict[str, int] = field(default_factory=dict)
    rate: float = 0.0

    @property
    def per_second(self) -> float:
        """Right answers a second."""
        return self.ok / self.seconds if self.seconds else 0.0

    @property
    def bad(self) -> int:
        """Requests that got a wrong answer, an error that is no refusal, or none."""
        return self.wrong + self.failed + self.broken + self.unanswered


@dataclass(frozen=True)
class Load:
    """What a load came to: its phases, what came after the last, and right, refused and other answers by 0.1 s."""

    phases: list[Result]
    after: Result
    timeline: list[tuple[int, int, int, float]]
    sample: str


def request(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Return an HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if method != "GET":
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def compiled() -> Path:
    """Compile the generator, once for each state of its source, and return the program.

    Raises:
        Failed: there is no C compiler.
    """
    program = cache_folder() / f"load-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}"
    if not program.exists():
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise Failed("the load generator is in C and there is no C compiler; apt-get install gcc libc6-dev")
        partial = program.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, "-O2", "-o", str(partial), str(SOURCE), "-lm"], check=True)
        partial.replace(program)
    return program


def write_requests(variants: Sequence[Variant], path: Path) -> Path:
    """Write a file of requests in the generator's form (see ``load.c``)."""
    parts = [struct.pack("<I", len(variants))]
    for each in variants:
        kind = 2 if each.anchor is None else 1
        anchor = each.anchor or b""
        numbers = list(map(float, each.numbers))
        parts += [struct.pack("<I", len(each.request)), each.request]
        parts += [struct.pack("<II", kind if numbers else 0, len(anchor)), anchor]
        parts += [struct.pack(f"<I{len(numbers)}dd", len(numbers), *numbers, each.tolerance)]
    path.write_bytes(b"".join(parts))
    return path


def start(
    port: int,
    requests: Path,
    phases: Sequence[Phase],
    *,
    connections: int,
    fresh: bool = False,
    timeout: float = TIMEOUT,
) -> subprocess.Popen[bytes]:
    """Start a load against a local port; `finish` waits for it. ``fresh``: a new connection for each request."""
    spoken = ",".join(f"{phase.rate:g}:{phase.seconds:g}" for phase in phases)
    command = [str(compiled()), "127.0.0.1", str(port), str(requests), str(connections), spoken, f"{timeout:g}"]
    return subprocess.Popen([*command, *(["fresh"] if fresh else [])], stdout=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes], phases: Sequence[Phase], timeout: float = TIMEOUT) -> Load:
    """Wait for a load's end and return what it found.

    Raises:
        Failed: the generator ended badly.
    """
    limit = sum(phase.seconds for phase in phases) + timeout + EXTRA_SECONDS
    try:
        output, _ = process.communicate(timeout=limit)
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode:
        raise Failed(f"the load generator ended with status {process.returncode}")
    document: dict[str, Any] = json.loads(output)
    results = [Result(**each) for each in document["phases"]]
    timeline = [tuple(each) for each in document["timeline"]]
    return Load(results[:-1], results[-1], timeline, document["sample"])


def run(port: int, requests: Path, phases: Sequence[Phase], *, connections: int, fresh: bool = False) -> Load:
    """Load a local port to the end.

    Raises:
        Failed: the generator ended badly.
    """
    return finish(start(port, requests, phases, connections=connections, fresh=fresh), phases)
