"""The graph of a bundle in ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types

from yunmo.bundle.files import GRAPH, GRAPH_WEIGHTS
from yunmo.bundle.manifest import Tensor, Tensors
from yunmo.core.errors import BundleError, ModelFailed

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]

_logger = logging.getLogger("yunmo.inference")

_ONLY_FATAL = 4
_LOCATION = b"\x0a\x08location\x12"
"""How an ONNX file says that a tensor's values are in a file: key (field 1) and value (field 2) of an entry, …"""
_ENTRY = b"\x6a"
"""… that is of a tensor's external data (field 13); its size comes between, one byte or two."""
_HERE = b"\x6a\x15\x0a\x08location\x12\x09" + GRAPH_WEIGHTS.encode()
_TYPES = {
    "bool": "tensor(bool)",
    **{f"{kind}{bits}": f"tensor({kind}{bits})" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    "float16": "tensor(float16)",
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    "string": "tensor(string)",
}


class Stop:
    """Ends the runs that were given it: ONNX Runtime looks at it between two nodes of the graph."""

    def __init__(self) -> None:
        self.options = ort.RunOptions()
        self.options.log_severity_level = _ONLY_FATAL  # as for the session

    def set(self) -> None:
        """Let the runs end with an error."""
        self.options.terminate = True


class Graph(Protocol):
    """A loaded graph, here (`Session`) or in a process of its own (`yunmo.inference.isolated.IsolatedSession`)."""

    def run(self, tensors: Mapping[str, Any], stop: Any = None) -> Arrays:
        """Return the outputs by name; ``stop`` is what `new_stop` made."""

    def new_stop(self) -> Any:
        """Return what can end a `run` from another thread, by its method ``set``."""

    def close(self) -> None:
        """Let go of it; a run in progress may end with an error."""


class Session:
    """A loaded graph. Threads may share it.

    Args:
        graph: the ONNX file's bytes.
        tensors: the inputs and outputs that it must have.
        threads: how many one call may use.
        folder: absolute; holds the weights' file (`GRAPH_WEIGHTS`), which is mapped; None: they are in the graph.

    Raises:
        BundleError: ONNX Runtime cannot load the graph, or its inputs or outputs are others, or it would read weights
            from anywhere else.
    """

    def __init__(self, graph: bytes, tensors: Tensors, *, threads: int, folder: Path | None = None) -> None:
        _check_locations(graph, folder)
        options = session_options(threads)
        if folder is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        try:
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own classes share no base but Exception
            raise BundleError(f"the graph cannot be loaded: {_first_line(error)}", where=GRAPH) from None
        _check(self._session.get_inputs(), tensors.inputs, "input")
        _check(self._session.get_outputs(), tensors.outputs, "output")
        self._outputs = [tensor.name for tensor in tensors.outputs]

    def new_stop(self) -> Stop:
        """Return what can end a `run` from another thread."""
        return Stop()

    def close(self) -> None:
        """Nothing is to be done: the memory goes with the last who knows this."""

    def run(self, tensors: Mapping[str, Any], stop: Stop | None = None) -> Arrays:
        """Return the graph's outputs by name.

        Args:
            tensors: inputs by name.
            stop: ends the run when it is set.

        Raises:
            ModelFailed: ONNX Runtime could not compute them, or was stopped.
        """
        try:
            answers = self._session.run(self._outputs, tensors, stop.options if stop is not None else None)
        except Exception as error:  # as above
            if stop is not None and stop.options.terminate:
                raise stopped() from None
            # What ONNX Runtime says names parts of the graph, which are no caller's business.
            _logger.error("the graph could not be run: %s", _first_line(error))
            raise ModelFailed("the model could not compute an answer for this input") from None
        return dict(zip(self._outputs, answers, strict=True))


def session_options(threads: int) -> Any:
    """Return ONNX Runtime's options for every graph here.

    Args:
        threads: how many one call may use.
    """
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
    return options


def stopped() -> ModelFailed:
    """Return the error of a run that was ended."""
    return ModelFailed("the model took too long and was stopped")


def _check_locations(graph: bytes, folder: Path | None) -> None:
    """Refuse a graph that names another file than the bundle's own.

    A second line: graphs are signed, and packing writes no other name. (So this need not know every way in which such
    an entry could be written, and `onnx`, which does, need not be in a worker's memory.)
    """
    at = graph.find(_LOCATION)
    while at >= 0:
        if _ENTRY in (graph[at - 2 : at - 1], graph[at - 3 : at - 2]) and (
            folder is None or not graph.startswith(_HERE, at - 2)
        ):
            raise BundleError("the graph has weights in a file that is not the bundle's", where=GRAPH)
        at = graph.find(_LOCATION, at + 1)


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
