"""ONNX Runtime alone: what the hardware can do with a model, without any server.

``python benchmarks/serving/raw.py FILE.onnx [--seconds S]`` prints rows a second for each of {1 process x 2 threads,
2 processes x 1 thread} x batches of {1, 4, 8, 16} as JSON. The best of them is the 100 % of the other figures.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from benchmarks.serving.models import open_session

LAYOUTS = ((1, 2), (2, 1))
"""Processes and threads of each."""
BATCHES = (1, 4, 8, 16)
WARM_UP = 0.3


def measure(file: str, threads: int, seconds: float, ready: Barrier) -> list[float]:
    """Return rows a second of this process for each batch; all processes begin a batch together."""
    session = open_session(file, threads)
    shape = session.get_inputs()[0].shape[1:]
    found = []
    for batch in BATCHES:
        feed = {"input": np.random.default_rng(0).random((batch, *shape), dtype=np.float32)}
        for part in (WARM_UP, seconds):
            ready.wait(60)
            began = time.perf_counter()
            runs = 0
            while (took := time.perf_counter() - began) < part:
                session.run(None, feed)
                runs += 1
        found.append(runs * batch / took)
    return found


def _child(file: str, threads: int, seconds: float, ready: Barrier, answers: multiprocessing.Queue) -> None:  # type: ignore[type-arg]  # only generic in stubs
    answers.put(measure(file, threads, seconds, ready))


def measure_all(file: Path, seconds: float) -> dict[str, float]:
    """Return rows a second by configuration, as ``"2 x 1, batch 8"`` (processes x threads)."""
    context = multiprocessing.get_context("spawn")
    found = {}
    for processes, threads in LAYOUTS:
        ready, answers = context.Barrier(processes), context.Queue()
        children = [
            context.Process(target=_child, args=(str(file), threads, seconds, ready, answers)) for _ in range(processes)
        ]
        for child in children:
            child.start()
        rates = [answers.get(timeout=120) for _ in children]
        for child in children:
            child.join()
        for batch, parts in zip(BATCHES, zip(*rates, strict=True), strict=True):
            found[f"{processes} x {threads}, batch {batch}"] = sum(parts)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each configuration")
    arguments = parser.parse_args()
    print(json.dumps(measure_all(arguments.file, arguments.seconds), indent=2))


if __name__ == "__main__":
    main()
