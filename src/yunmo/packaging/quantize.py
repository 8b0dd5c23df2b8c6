"""Dynamic int8 quantisation: matrices of weights as 8-bit integers, what goes into them rounded at each run.

ONNX Runtime's quantiser does it (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html). What
goes into a matrix is rounded in steps that depend on the largest value of the whole tensor. So in a batch, an answer
would depend on who else is in it: by up to 0.06 of a probability with MiniLM (measured). Serving therefore runs a
quantised graph row by row, which is no slower: of MiniLM, on a busy machine and with 27 tokens, one row took 3.5 ms and
16 rows as a batch 81 ms (in float 16 and 215 ms).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]  # it ships no types

from yunmo.bundle.manifest import Tensors
from yunmo.core.errors import ParityError
from yunmo.core.fields import CategoryOutput, FieldStatistics, LabelsOutput, OutputField
from yunmo.core.recipe import METRICS, Recipe
from yunmo.data.fields.labels import held_labels
from yunmo.data.fields.number import join_numbers
from yunmo.inference.session import Arrays, Session
from yunmo.packaging.parity import Reference
from yunmo.training.evaluate import evaluate

_INTEGER = frozenset({"MatMulInteger", "DynamicQuantizeMatMul"})
_ROWS = 1000
"""Validation rows that the cost is measured with, at most: each is a run."""


def quantize_graph(graph: bytes) -> bytes:
    """Return a graph whose products with weights are computed in int8.

    Weights have 7 bits: with 8, processors without VNNI would add up beyond 16 bits and answer something else.

    Raises:
        ParityError: it has no product with weights, or ONNX Runtime cannot quantise it.
    """
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        model = onnx.load_from_string(graph)
        # The exporter's notes on shapes are not all those that the quantiser infers, and it refuses to go on then.
        del model.graph.value_info[:]
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "graph.onnx"
            quantize_dynamic(
                model,
                path,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
            )
            found: bytes = path.read_bytes()
    except Exception as error:  # the quantiser raises what its parts raise, of no common class
        raise ParityError(f"the graph cannot be quantised: {str(error)[:200]}") from error
    finally:
        logger.setLevel(level)
    if not any(node.op_type in _INTEGER for node in onnx.load_from_string(found).graph.node):
        raise ParityError(
            "the graph has no product with weights that could be quantised", remedy="Leave out pack.precision"
        )
    return found


class QuantizedReference(Reference):
    """The quantised graph, row by row, as what serving it is compared with.

    Args:
        graph: quantised.
        tensors: its inputs and outputs.
        reference: of the network, whose outputs it has.
    """

    def __init__(self, graph: bytes, tensors: Tensors, reference: Reference) -> None:
        self.network, self.deviations = reference.network, reference.deviations
        self.tensors = tensors
        self._session = Session(graph, tensors, threads=1)
        self._free = [tensor.name for tensor in tensors.inputs if tensor.shape == (None,)]

    def answer(self, tensors: Mapping[str, Any]) -> Arrays:
        """Return the graph's answers to encoded rows, each computed alone and without padding.

        Raises:
            ParityError: an answer is NaN or infinite.
        """
        rows = len(next(iter(tensors.values())))
        parts = [self._session.run(self._row(tensors, row)) for row in range(rows)]
        answers = {name: np.concatenate([part[name] for part in parts]) for name in self.deviations}
        for name, array in answers.items():
            if not np.isfinite(array).all():
                raise ParityError(f"the quantised graph answers {name!r} with NaN or infinity")
        return answers

    def _row(self, tensors: Mapping[str, Any], row: int) -> dict[str, Any]:
        one = {name: values[row : row + 1] for name, values in tensors.items()}
        for name in self._free:
            one[name] = one[name][:, : max(1, int(one[f"{name}_length"][0]))]
        return one


def note_cost(
    report: dict[str, Any],
    recipe: Recipe,
    statistics: Mapping[str, FieldStatistics],
    validation: tuple[Mapping[str, Any], Mapping[str, Any]] | None,
    network: Reference,
    quantized: QuantizedReference,
    sizes: tuple[int, int],
) -> None:
    """Note in a report, as ``quantized`` and among its decisions, what int8 costs on rows that were not trained on.

    Args:
        report: as JSON; it gets ``rows``, ``bytes`` before and after, and for each output its first ``metric`` in
            ``fp32`` and ``int8``, and the share of rows ``changed`` in their class or labels (of a number: None).
        recipe: resolved.
        statistics: of every field.
        validation: encoded inputs and outputs; None: nothing is measured.
        network: the trained one.
        quantized: its quantised graph.
        sizes: bytes of both graphs.
    """
    found: dict[str, Any] = {"rows": 0, "bytes": list(sizes), "outputs": {}}
    if validation is not None:
        inputs, truth = ({name: np.array(values[:_ROWS]) for name, values in part.items()} for part in validation)
        answers = {"fp32": network.answer(inputs), "int8": quantized.answer(_joined(inputs, quantized))}
        outputs = recipe.outputs or ()
        measured = {key: evaluate(outputs, statistics, truth, each) for key, each in answers.items()}
        found["rows"] = len(next(iter(truth.values())))
        found["outputs"] = {
            output.name: _beside(output, measured, [each[output.name] for each in answers.values()])
            for output in outputs
        }
    report["quantized"] = found
    rows = f"on {found['rows']:,} validation rows"
    told = [
        f"{name}: {values['metric']} {values['int8']:.4g} {rows}, {values['fp32']:.4g} in fp32"
        for name, values in found["outputs"].items()
    ]
    reason = "; ".join([*told, f"a graph of {sizes[1] / 1e6:.1f} MB, {sizes[0] / 1e6:.1f} MB before"])
    report["decisions"] = [*report["decisions"], {"key": "pack.precision", "value": "int8", "reason": reason}]


def _joined(inputs: Mapping[str, Any], quantized: QuantizedReference) -> Mapping[str, Any]:
    return join_numbers(dict(inputs), quantized.tensors.joined)


def _beside(output: OutputField, measured: Mapping[str, Any], answers: Sequence[Any]) -> dict[str, Any]:
    metrics = {precision: found[output.name] for precision, found in measured.items()}
    metric = METRICS[metrics["fp32"]["type"]][0]
    before, after = answers
    changed = None
    if isinstance(output, CategoryOutput):
        changed = float((before.argmax(1) != after.argmax(1)).mean())
    elif isinstance(output, LabelsOutput):
        pairs = zip(held_labels(before, output), held_labels(after, output), strict=True)
        changed = sum(old != new for old, new in pairs) / len(before)
    return {"metric": metric, **{key: found[metric] for key, found in metrics.items()}, "changed": changed}
