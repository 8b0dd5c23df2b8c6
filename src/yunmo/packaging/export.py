"""From a trained network to an ONNX graph with a free batch size and, for sequences, a free length."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from yunmo.bundle.manifest import Tensors
from yunmo.core.errors import ParityError
from yunmo.models.network import Network

OPSET = 20
"""ONNX Runtime reads it since 1.17, so also the oldest one that Yunmo runs with."""

_LEAST_EXAMPLE = 2
"""The exporter takes a size of 1 in its example for a constant."""


class _Answers(nn.Module):
    """The network's `predict` with its tensors in order, which is how the exporter names them."""

    def __init__(self, network: Network, tensors: Tensors) -> None:
        super().__init__()
        self.network = network
        self.input_names = [tensor.name for tensor in tensors.inputs]
        self.output_names = [tensor.name for tensor in tensors.outputs]

    def forward(self, values: list[torch.Tensor]) -> list[torch.Tensor]:
        answers = self.network.predict(dict(zip(self.input_names, values, strict=True)))
        return [answers[name] for name in self.output_names]


def export_graph(network: Network, tensors: Tensors, example: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """Return the ONNX file of what a network answers.

    Args:
        network: trained; it is left in evaluation mode.
        tensors: names, types and shapes of the graph's inputs and outputs.
        example: encoded rows, at least one.

    Raises:
        ParityError: the exporter cannot express the network, or gave the graph another form.
    """
    values = [torch.from_numpy(_at_least_two(example[tensor.name], tensor.shape)) for tensor in tensors.inputs]
    batch = torch.export.Dim("batch", min=1)
    shapes = [
        {0: batch}
        | {
            axis: torch.export.Dim(f"{_identifier(index)}_{axis}", min=1)
            for axis, size in enumerate(tensor.shape, 1)
            if size is None
        }
        for index, tensor in enumerate(tensors.inputs)
    ]
    with _quiet():
        try:
            program = torch.onnx.export(
                _Answers(network, tensors).eval(),
                (values,),
                input_names=[tensor.name for tensor in tensors.inputs],
                output_names=[tensor.name for tensor in tensors.outputs],
                opset_version=OPSET,
                dynamic_shapes=([*shapes],),
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ParityError(f"the network cannot be exported: {_cause(error)}") from error
    if program is None:
        raise ParityError("the exporter gave no graph")
    model = program.model_proto
    _strip(model)
    _check_form(model, tensors)
    graph: bytes = model.SerializeToString(deterministic=True)
    return graph


def _at_least_two(array: np.ndarray[Any, Any], shape: Sequence[int | None]) -> np.ndarray[Any, Any]:
    """Repeat an example until no free axis has the size 1."""
    for axis, size in enumerate((None, *shape)):
        if size is None and array.shape[axis] < _LEAST_EXAMPLE:
            array = np.concatenate([array] * _LEAST_EXAMPLE, axis=axis)
    return np.ascontiguousarray(array)


def _identifier(index: int) -> str:
    return f"length_{index}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own notices from users, who can do nothing about them: its errors are raised."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch 2.13's exporter uses what torch 2.13 deprecates.
            warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)`", FutureWarning)
            # Every input has the same batch; that its name is then taken once is as wanted.
            warnings.filterwarnings("ignore", "# The axis name: \\w+ will not be used", UserWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes of the training machine (paths and source lines) from every part."""
    graph = model.graph
    parts: list[Any] = [model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""
    for function in model.functions:
        pieces: list[Any] = [function, *function.node, *function.value_info]
        for piece in pieces:
            del piece.metadata_props[:]
            piece.doc_string = ""


def _check_form(model: onnx.ModelProto, tensors: Tensors) -> None:
    """Hold the graph's inputs and outputs against what was asked for: names, and which sizes are free."""
    for nodes, wanted, what in (
        (model.graph.input, tensors.inputs, "inputs"),
        (model.graph.output, tensors.outputs, "outputs"),
    ):
        names = [node.name for node in nodes]
        if names != [tensor.name for tensor in wanted]:
            raise ParityError(f"the graph has the {what} {names}")
        for node, tensor in zip(nodes, wanted, strict=True):
            sizes = [dim.dim_value or None for dim in node.type.tensor_type.shape.dim]
            if sizes != [None, *tensor.shape]:
                raise ParityError(f"{tensor.name!r} has the sizes {sizes} in the graph, not {[None, *tensor.shape]}")
