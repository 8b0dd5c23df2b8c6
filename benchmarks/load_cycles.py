"""What loading and unloading models leaves behind: resident memory of a service over many deployments.

Run it as ``python -m benchmarks.load_cycles [--cycles 500] [--megabytes 12]``. Two models take turns at one endpoint of
a real service that keeps no standby, so each deployment loads one and unloads the other in every worker; a request
after each sees that the right one answers. It prints resident megabytes of each process on the way.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.service import Yunmo
from benchmarks.serving import processes

WIDTH = 64
ENDPOINT = "turns"
WARM_CYCLES = 20
"""Cycles before the first measurement: allocators, threads and caches have then reached their size."""


def model(answer: float, megabytes: float) -> onnx.ModelProto:
    """Return a graph of so many megabytes of weights whose output is ``answer`` whatever comes in."""
    hidden = int(megabytes * 2**20 / 4 / WIDTH / 2)
    rng = np.random.default_rng(int(answer))
    weights = {
        "up": rng.normal(0, 0.01, (WIDTH, hidden)).astype(np.float32),
        "down": rng.normal(0, 0.01, (hidden, WIDTH)).astype(np.float32),
        "zero": np.zeros((WIDTH, 1), np.float32),
        "answer": np.array([answer], np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "up"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "down"], ["c"]),
        helper.make_node("MatMul", ["c", "zero"], ["d"]),
        helper.make_node("Add", ["d", "answer"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        ENDPOINT,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def resident(pid: int) -> float:
    """Return a process's resident megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def names(pid: int) -> dict[int, str]:
    """Return the processes below one, by what they are."""
    found = {}
    for each in processes.tree(pid)[1:]:
        words = Path(f"/proc/{each}/cmdline").read_bytes().decode().split("\0")
        if "-m" in words:
            found[each] = words[words.index("-m") + 1].rpartition(".")[2]
    return found


def cycles(count: int, megabytes: float) -> dict[str, list[float]]:
    """Deploy two models in turns and return resident megabytes of each process, first after `WARM_CYCLES`."""
    with tempfile.TemporaryDirectory() as folder, Yunmo(workers=2, settings={"YUNMO_STANDBY_SECONDS": "0"}) as service:
        references = []
        for answer in (1.0, 2.0):
            file = Path(folder) / f"model-{answer:.0f}.onnx"
            file.write_bytes(model(answer, megabytes).SerializeToString())
            references.append(service.import_onnx(file, f"model-{answer:.0f}"))
        watched = {pid: f"{name} {pid}" for pid, name in names(service.process.pid).items()}
        found: dict[str, list[float]] = {name: [] for name in watched.values()}
        began = time.monotonic()
        with service.client() as client:
            for number in range(count + WARM_CYCLES + 1):
                client.deploy(references[number % 2], ENDPOINT)
                [answer] = client.predict(ENDPOINT, [{"x": [0.0] * WIDTH}])
                if answer["y"]["value"] != [number % 2 + 1.0]:
                    raise SystemExit(f"cycle {number}: {answer}")
                if number >= WARM_CYCLES and (number - WARM_CYCLES) % max(1, count // 10) == 0:
                    time.sleep(1)  # the replaced version has drained by then
                    for pid, name in watched.items():
                        found[name].append(round(resident(pid), 1))
                    line = ", ".join(f"{name} {values[-1]:.1f} MB" for name, values in found.items())
                    sys.stderr.write(f"cycle {number - WARM_CYCLES}: {line} ({time.monotonic() - began:.0f} s)\n")
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cycles", type=int, default=500)
    parser.add_argument("--megabytes", type=float, default=12.0, help="weights of each model")
    arguments = parser.parse_args()
    found = cycles(arguments.cycles, arguments.megabytes)
    for name, values in found.items():
        json.dump({"process": name.split()[0], "first": values[0], "last": values[-1], "most": max(values)}, sys.stdout)
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
