"""Load over gRPC: ``h2load`` (Debian package nghttp2-client), compiled as the HTTP generator is.

It sends one body again and again and sees no gRPC status, so the answers are checked in two ways: the bytes of data
that came must be just those of right answers (an error has none), and beside it a Python client asks for every sample
and compares the numbers.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.serving import grpc_body
from benchmarks.serving.cases import TOLERANCE, Sample
from benchmarks.serving.load import Load, Result
from benchmarks.serving.places import Failed

_CLIENTS, _STREAMS = 8, 8
"""Connections, and requests at a time on each: 64 in all, as in the other cases."""
_IN_FLIGHT = _CLIENTS * _STREAMS
_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


def available() -> bool:
    """Say whether ``h2load`` is installed."""
    return shutil.which("h2load") is not None


def check(port: int, key: str, samples: Sequence[Sample], times: int = 1) -> int:
    """Ask for every sample with a Python client and return the size of an answer's message in bytes.

    Raises:
        Failed: a wrong answer.
    """
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    size = 0
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(grpc_body.PATH)
        for sample in list(samples) * times:
            message = call(grpc_body.infer_request("cnn", "input", sample.tensor[None]), metadata=metadata, timeout=30)
            _, (answer,) = grpc_body.read_response(message)
            if not np.allclose(answer, sample.expected, atol=TOLERANCE):
                raise Failed(f"gRPC: the answer {answer.tolist()} where {sample.expected} is right")
            size = len(message)
    return size


def run(port: int, key: str, samples: Sequence[Sample], seconds: float, folder: Path) -> Load:
    """Load a gRPC port for some seconds.

    Raises:
        Failed: h2load failed.
    """
    size = check(port, key, samples) + 5
    body, log = folder / "grpc.body", folder / "grpc.log"
    body.write_bytes(grpc_body.framed(grpc_body.infer_request("cnn", "input", samples[0].tensor[None])))
    log.unlink(missing_ok=True)
    whole = max(1, round(seconds))
    command = ["h2load", "-D", str(whole), "-c", str(_CLIENTS), "-m", str(_STREAMS), "-d", str(body)]
    command += ["--warm-up-time=1", f"--log-file={log}", "-H", "content-type: application/grpc", "-H", "te: trailers"]
    if key:
        command += ["-H", f"authorization: Bearer {key}"]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{grpc_body.PATH}"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Failed(f"h2load: {done.stderr.strip()[-500:]}")
    check(port, key, samples)
    return Load([_result(done.stdout, size, whole, log)], _nothing(), [], "")


def _result(text: str, size: int, seconds: int, log: Path) -> Result:
    counts = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    data = re.search(r"traffic: .*\((\d+)\) data", text)
    if counts is None or data is None:
        raise Failed(f"h2load printed something else: {text[-500:]}")
    good, *bad = map(int, counts.groups())
    # Answers whose data came just outside of the measured time may make the sum a little less or more.
    missing = good - int(data[1]) // size
    failed = sum(bad) + (missing if missing > _IN_FLIGHT else 0)
    times = np.array([int(line.split()[2]) / 1000 for line in log.read_text().splitlines()] or [0.0])
    latency = {name: float(np.quantile(times, share)) for name, share in _SHARES.items()}
    latency |= {"n": float(len(times)), "mean": float(times.mean()), "max": float(times.max())}
    ok = good + sum(bad) - failed
    return replace(_nothing(), seconds=float(seconds), sent=good + sum(bad), ok=ok, failed=failed, latency_ms=latency)


def _nothing() -> Result:
    return Result(
        seconds=0.0, sent=0, ok=0, wrong=0, refused=0, failed=0, broken=0, unanswered=0, unsent=0, retry_after=0, due=0,
        cpu=0.0, latency_ms={}, from_due_ms={}, refusal_ms={},
    )  # fmt: skip
