"""The graph of a bundle in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types

from yunmo.bundle.files import GRAPH
from yunmo.bundle.manifest import Tensor, Tensors
from yunmo.core.errors import BundleError, ModelFailed

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]

_ONLY_FATAL = 4
_TYPES = {
    "uint8": "tensor(uint8)",
    "int64": "tensor(int64)",
    "float32": "tensor(float)",
}


class Session:
    """A loaded graph. Threads may share it.

    Args:
        graph: the ONNX file's bytes.
        tensors: the inputs and outputs that it must have.
        threads: how many one call may use.

    Raises:
        BundleError: ONNX Runtime cannot load the graph, or its inputs or outputs are others.
    """

    def __init__(self, graph: bytes, tensors: Tensors, *, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ONLY_FATAL  # what goes wrong is raised
        # A waiting pool must not burn the cores that other workers need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        # Without both a call is as fast (measured: one row 4.2 ms with and without, 16 rows 55 ms) and a small residual
        # network takes 22 MB less of each worker.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        try:
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own classes share no base but Exception
            raise BundleError(f"the graph cannot be loaded: {_first_line(error)}", where=GRAPH) from None
        _check(self._session.get_inputs(), tensors.inputs, "input")
        _check(self._session.get_outputs(), tensors.outputs, "output")
        self._outputs = [tensor.name for tensor in tensors.outputs]

    def run(self, tensors: Mapping[str, Any]) -> Arrays:
        """Return the graph's outputs by name.

        Raises:
            ModelFailed: ONNX Runtime could not compute them.
        """
        try:
            answers = self._session.run(self._outputs, dict(tensors))
        except Exception as error:  # as above
            raise ModelFailed(f"the graph could not be run: {_first_line(error)}") from None
        return dict(zip(self._outputs, answers, strict=True))


def _check(found: Sequence[Any], expected: Sequence[Tensor], what: str) -> None:
    by_name = {node.name: node for node in found}
    if by_name.keys() != {tensor.name for tensor in expected}:
        raise BundleError(f"the graph has {what}s {sorted(by_name)}", where=GRAPH)
    for tensor in expected:
        node = by_name[tensor.name]
        if node.type != _TYPES.get(tensor.dtype):
            raise BundleError(f"{what} {tensor.name!r} is {node.type}, not {tensor.dtype}", where=GRAPH)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
