"""What two workers hold of one large model: its weights in the bundle's file that they share, or in the graph.

    python benchmarks/weights_sharing.py

The model is an embedding table (100 MB, read row by row) and two fully connected layers (100 MB together), imported as
`yunmo models import` does. Each worker is a process that opens the signed bundle as the service does
(`Predictor.open`: verify, load, golden examples) and runs it. Once as packed (``graph.bin`` beside ``graph.onnx``),
once with the same weights inside ``graph.onnx``, which is how smaller models are packed. Memory is the proportional set
size (PSS) of both processes, times are the shortest of many.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from yunmo.bundle.sign import new_key_pair, sign
from yunmo.inference.predictor import Predictor
from yunmo.packaging import weights
from yunmo.packaging.imported.description import description_from
from yunmo.packaging.imported.pack import pack_imported

ROWS = 10_000
WIDTH = 2_500
HIDDEN = 5_000
WORKERS = 2
RUNS = 60
BATCHES = (1, 4, 16)
WAYS = {"graph": "in the graph", "file": "in a file that is mapped"}


def main() -> None:
    """Measure both ways and print a table."""
    if len(sys.argv) > 1:
        _work(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = _make(folder)
        print(f"ONNX Runtime {ort.__version__}, {WORKERS} workers, weights {size / 1e6:.0f} MB\n")
        print("| weights | PSS, one worker | both workers | opening | of it loading | 1 row | 4 rows | 16 rows |")
        print("|---|---|---|---|---|---|---|---|")
        for way, name in WAYS.items():
            one, both = _measure(folder / way, 1), _measure(folder / way, WORKERS)
            runs = " | ".join(f"{both[str(rows)]:.2f} ms" for rows in BATCHES)
            times = f"{both['open']:.2f} s | {both['load']:.2f} s"
            print(f"| {name} | {one['pss']:.0f} MB | {both['pss']:.0f} MB | {times} | {runs} |")


def _make(folder: Path) -> int:
    """Write both bundles; return the bytes of the weights."""
    random = np.random.default_rng(0)
    shapes = {"table": (ROWS, WIDTH), "first": (HIDDEN, WIDTH), "second": (WIDTH, HIDDEN)}
    arrays = [
        numpy_helper.from_array((random.normal(size=shape) / shape[1] ** 0.5).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "x"], ["rows"]),
            helper.make_node("Gemm", ["rows", "first"], ["hidden"], transB=1),
            helper.make_node("Relu", ["hidden"], ["rectified"]),
            helper.make_node("Gemm", ["rectified", "second"], ["y"], transB=1),
        ],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", WIDTH])],
        arrays,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save_model(model, folder / "model.onnx")
    private, public = new_key_pair()
    (folder / "signing.key").write_text(private)
    (folder / "signing.pub").write_text(public)
    for way in WAYS:
        small = mock.patch.object(weights, "LARGE", sys.maxsize) if way == "graph" else contextlib.nullcontext()
        with small:
            pack_imported(folder / "model.onnx", folder / way, name="large", description=description_from({}))
        sign(folder / way, folder / "signing.key")
    return sum(len(array.raw_data) for array in arrays)


def _measure(bundle: Path, count: int) -> dict[str, float]:
    command = [sys.executable, __file__, str(bundle)]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    found = [_told(worker) for worker in workers]  # one after the other runs: they share the cores
    pss = sum(_pss(worker.pid) for worker in workers)
    for worker in workers:
        worker.communicate()
    return {**{key: min(one[key] for one in found) for key in found[0]}, "pss": pss}


def _told(worker: subprocess.Popen[str]) -> dict[str, float]:
    if worker.stdin is None or worker.stdout is None:
        raise RuntimeError("a worker without pipes")
    worker.stdin.write("run\n")
    worker.stdin.flush()
    told: dict[str, float] = json.loads(worker.stdout.readline())
    return told


def _work(bundle: Path) -> None:
    public = (bundle.parent / "signing.pub").read_text()
    sys.stdin.readline()
    loading = 0.0
    load = ort.InferenceSession

    def timed(*arguments: Any, **options: Any) -> Any:
        nonlocal loading
        began = time.perf_counter()
        session = load(*arguments, **options)
        loading += time.perf_counter() - began
        return session

    with mock.patch.object(ort, "InferenceSession", timed):
        began = time.perf_counter()
        predictor = Predictor.open(bundle, public_key_pem=public)
        found = {"open": time.perf_counter() - began, "load": loading}
    for rows in BATCHES:
        x = np.arange(rows, dtype=np.int64) * 17 % ROWS
        seconds = []
        for _ in range(RUNS):
            began = time.perf_counter()
            predictor.run({"x": x})
            seconds.append(time.perf_counter() - began)
        found[str(rows)] = min(seconds) * 1000
    print(json.dumps(found), flush=True)
    sys.stdin.readline()


def _pss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("no PSS")


if __name__ == "__main__":
    main()
