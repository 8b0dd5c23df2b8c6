"""Models whose answer proves whose it is: a row is eight whole numbers, and each comes back as twice itself plus one.

Whole numbers below 2^24 are exact in float32 (IEEE 754), so an answer is right to the last digit or it is another's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

WIDTH = 8
"""Numbers in a row: process, caller, request, row, and four at random."""
LIMIT = 1 << 20
"""Numbers are below; twice one plus a version's offset is far below 2^24."""
INPUT, OUTPUT = "marker", "echo"
_SLOW_WIDTH, _SLOW_LAYERS = 256, 12
_OPSET, _IR_VERSION = 20, 10

Rows = NDArray[np.float32]


def expected(rows: Rows, offset: int = 1) -> Rows:
    """Return what a model answers to rows [N, `WIDTH`]."""
    return 2 * rows + np.float32(offset)


def model(*, offset: int = 1, slow: bool = False, fails_from: int | None = None) -> onnx.ModelProto:
    """Return an echo as ONNX: ``marker`` float32 [batch, 8] to ``echo`` float32 [batch, 8].

    Args:
        offset: what is added; by it an answer shows which version gave it.
        slow: whether it has some hundred microseconds of work to do, so that requests queue and form batches.
        fails_from: it fails at run time where the first number of a row is this or more.
    """
    weights: dict[str, Any] = {"two": np.float32(2), "offset": np.float32(offset)}
    nodes = [helper.make_node("Mul", [INPUT, "two"], ["doubled"])]
    last = "doubled"
    if slow:
        nodes += _work(weights)
        nodes.append(helper.make_node("Add", [last, "nothing"], ["worked"]))
        last = "worked"
    if fails_from is not None:
        nodes += _trap(weights, fails_from)
        nodes.append(helper.make_node("Add", [last, "trap"], ["trapped"]))
        last = "trapped"
    nodes.append(helper.make_node("Add", [last, "offset"], [OUTPUT]))
    graph = helper.make_graph(
        nodes,
        "echo",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", WIDTH])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(made)
    return made


def write(path: Path, made: onnx.ModelProto) -> Path:
    """Write a model and return its path."""
    path.write_bytes(made.SerializeToString(deterministic=True))
    return path


def _work(weights: dict[str, Any]) -> list[onnx.NodeProto]:
    """Layers of tanh, of whose result nothing is kept: ``nothing`` is 0 times it, which is not known beforehand."""
    rng = np.random.default_rng(0)
    weights["zero"] = np.float32(0)
    nodes, value, width = [], INPUT, WIDTH
    for layer in range(_SLOW_LAYERS):
        weights[f"work{layer}"] = rng.normal(0, 0.05, (width, _SLOW_WIDTH)).astype(np.float32)
        nodes.append(helper.make_node("MatMul", [value, f"work{layer}"], [f"sum{layer}"]))
        nodes.append(helper.make_node("Tanh", [f"sum{layer}"], [f"bent{layer}"]))
        value, width = f"bent{layer}", _SLOW_WIDTH
    weights["work_out"] = rng.normal(0, 0.05, (width, WIDTH)).astype(np.float32)
    nodes.append(helper.make_node("MatMul", [value, "work_out"], ["work_done"]))
    return [*nodes, helper.make_node("Mul", ["work_done", "zero"], ["nothing"])]


def _trap(weights: dict[str, Any], fails_from: int) -> list[onnx.NodeProto]:
    """Look up a table of one entry, at place 0 or, for a row that is to fail, beyond its end."""
    weights |= {
        "limit": np.float32(fails_from),
        "table": np.zeros(1, np.float32),
        "first": np.array([0], np.int64),
        "beyond": np.int64(1000),
    }
    return [
        helper.make_node("Gather", [INPUT, "first"], ["first_number"], axis=1),
        helper.make_node("GreaterOrEqual", ["first_number", "limit"], ["fails"]),
        helper.make_node("Cast", ["fails"], ["fails_number"], to=TensorProto.INT64),
        helper.make_node("Mul", ["fails_number", "beyond"], ["place"]),
        helper.make_node("Gather", ["table", "place"], ["trap"]),
    ]
