"""What it costs to run a model in a process of its own: microseconds a batch, and what marking each run costs besides.

Run it as ``python benchmarks/isolation.py``. The graph does nothing, so what is measured is the way there and back; the
shares say what that is of a model's own time. Rounds are interleaved, and the best of each is taken.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from yunmo.bundle.manifest import Tensor, Tensors
from yunmo.inference.isolated import IsolatedSession
from yunmo.inference.session import Session
from yunmo.serving.marks import Marks

SIZES = {
    "30 numbers": 30 * 4,
    "a picture, 3x32x32": 3 * 32 * 32 * 4,
    "16 of them": 16 * 3 * 32 * 32 * 4,
    "a picture, 3x224x224": 3 * 224 * 224 * 4,
    "16 of them ": 16 * 3 * 224 * 224 * 4,
}
ROUNDS = 7


def graph() -> bytes:
    """Return a graph that answers how many rows it was given numbers for, whatever they are."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], end=1),
        helper.make_node("ConstantOfShape", ["shape"], ["y"]),
    ]
    takes = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "width"])
    gives = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])
    made = helper.make_graph(nodes, "nothing", [takes], [gives])
    data: bytes = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()
    return data


def microseconds(call: Callable[[], object], seconds: float = 0.3) -> float:
    """Return the mean time of a call."""
    calls, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        for _ in range(10):
            call()
        calls += 10
    return took / calls * 1e6


def main() -> None:
    """Measure and print."""
    tensors = Tensors((Tensor("x", "float32", (None,)),), (Tensor("y", "float32", ()),))
    here, there = Session(graph(), tensors, threads=1), IsolatedSession(graph, tensors, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        watched = Marks(Path(folder) / "marks").watch("sha256:" + "00" * 32, Nothing())
        unwatched = Nothing()
        marks = min(
            microseconds(lambda: watched.run({})) - microseconds(lambda: unwatched.run({})) for _ in range(ROUNDS)
        )
        print(f"marking a run: {marks:.2f} us")
    print(f"{'batch':24}{'bytes':>12}{'here':>10}{'isolated':>10}{'more':>10}   us")
    for name, size in SIZES.items():
        batch = {"x": np.zeros((1, size // 4), np.float32)}
        runs = partial(here.run, batch), partial(there.run, batch)
        rounds = [tuple(microseconds(run) for run in runs) for _ in range(ROUNDS)]
        inside, outside = (min(column) for column in zip(*rounds, strict=True))
        print(f"{name:24}{size:>12}{inside:>10.1f}{outside:>10.1f}{outside - inside:>10.1f}")
    there.close()


class Nothing:
    """A model that does nothing."""

    run_seconds, batch_rows = 1.0, 1

    def run(self, tensors: object, stop: object = None) -> dict[str, np.ndarray]:
        """Answer at once."""
        del tensors, stop
        return {}

    def new_stop(self) -> None:
        """Not used here."""


if __name__ == "__main__":
    sys.exit(main())
