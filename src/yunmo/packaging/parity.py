"""Parity: the packed graph must answer what the trained network answers, at any batch size and sequence length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from yunmo.bundle.manifest import Tensors
from yunmo.core.errors import ModelFailed, ParityError
from yunmo.core.fields import FieldStatistics, NumberOutput, OutputField, SequenceField
from yunmo.inference.compare import TOLERANCE, difference
from yunmo.inference.predictor import Predictor
from yunmo.inference.session import Arrays, Session
from yunmo.models.answers import answer
from yunmo.models.network import Network

BATCHES = (1, 2, 3, 7)
"""Sizes of batch that are tried. None is that of the exporter's example alone."""
_LONGER = 3

Rows = Sequence[Mapping[str, Any]]


class Reference:
    """The trained network, as what everything else is compared with.

    Args:
        network: in evaluation mode.
        outputs: what it answers.
        statistics: of the outputs: numbers are compared relative to their size or deviation.
    """

    def __init__(
        self, network: Network, outputs: Sequence[OutputField], statistics: Mapping[str, FieldStatistics]
    ) -> None:
        self.network = network
        self.deviations: dict[str, float | None] = {
            output.name: _deviation(statistics[output.name]) if isinstance(output, NumberOutput) else None
            for output in outputs
        }

    def answer(self, tensors: Mapping[str, Any]) -> Arrays:
        """Return the network's answers to encoded rows.

        Raises:
            ParityError: an answer is NaN or infinite, which nothing can be held against.
        """
        answers = answer(self.network, tensors)
        arrays = {name: answers[name] for name in self.deviations}
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise ParityError(f"the trained network answers {name!r} with NaN or infinity")
        return arrays

    def compare(self, found: Mapping[str, Any], expected: Mapping[str, Any], what: str) -> None:
        """Hold answers against those expected.

        Raises:
            ParityError: they differ by more than the tolerance, or in shape.
        """
        for name, deviation in self.deviations.items():
            if np.shape(found[name]) != np.shape(expected[name]):
                shapes = f"{np.shape(found[name])} instead of {np.shape(expected[name])}"
                raise ParityError(f"{what} answers {name!r} in the shape {shapes}")
            off = difference(found[name], expected[name], deviation)
            if not (off <= TOLERANCE).all():
                raise ParityError(
                    f"{what} answers {name!r} of row {off.argmax()} off by {off.max():.2g}, more than {TOLERANCE:g}"
                )


def check_graph(reference: Reference, graph: bytes, tensors: Tensors, encoded: Arrays) -> None:
    """Compare a graph in ONNX Runtime with the network: golden rows, other batch sizes, other sequence lengths.

    Raises:
        ParityError: they differ, or the graph does not run at one of them.
    """
    session = Session(graph, tensors, threads=1)
    for what, batch in _variations(tensors, encoded):
        try:
            found = session.run(batch)
        except ModelFailed as error:
            raise ParityError(f"the graph does not run with {what}: {error.message}") from None
        reference.compare(found, reference.answer(batch), f"the graph with {what}")


def check_serving(reference: Reference, predictor: Predictor, rows: Rows) -> None:
    """Compare the serving path, from raw rows to predictions, with the network.

    Raises:
        ParityError: they differ.
    """
    for size in BATCHES:
        batch = [rows[index % len(rows)] for index in range(size)]
        for what, raw in (("", batch), (", shorter sequences", _shorter(predictor, batch))):
            expected = reference.answer(predictor.encode(raw))
            predictions = predictor.predict(raw)
            found = {
                name: [
                    row[name]["value"] if deviation is not None else list(row[name]["probabilities"].values())
                    for row in predictions
                ]
                for name, deviation in reference.deviations.items()
            }
            reference.compare(found, expected, f"serving with {size} rows{what}")


def _deviation(statistics: FieldStatistics) -> float:
    return statistics.deviation[0] if statistics.deviation else 0.0


def _variations(tensors: Tensors, encoded: Arrays) -> Iterator[tuple[str, Arrays]]:
    """Yield batches of golden rows in other sizes and, where a length is free, other lengths."""
    rows = len(next(iter(encoded.values())))
    free = {tensor.name for tensor in tensors.inputs if None in tensor.shape}
    for size in (rows, *BATCHES):
        picked = np.arange(size) % rows
        batch = {name: value[picked] for name, value in encoded.items()}
        yield f"{size} rows", batch
        if free:
            for change in (-1, _LONGER):
                yield f"{size} rows and sequences of {change:+d} steps", _other_length(batch, free, change)


def _other_length(batch: Arrays, free: set[str], change: int) -> Arrays:
    """Cut sequences, or pad them further."""
    changed = dict(batch)
    for name in free:
        steps = max(1, batch[name].shape[1] + change)
        room = np.zeros((len(batch[name]), steps, *batch[name].shape[2:]), batch[name].dtype)
        kept = min(steps, batch[name].shape[1])
        room[:, :kept] = batch[name][:, :kept]
        changed[name] = room
        # When padding grows, its end is also taken for real, so that the graph has to go that far.
        lengths = batch[f"{name}_length"]
        changed[f"{name}_length"] = np.minimum(lengths, steps) if change < 0 else lengths + steps - kept
    return changed


def _shorter(predictor: Predictor, rows: Rows) -> Rows:
    names = [field.name for field in predictor.inputs if isinstance(field, SequenceField)]
    return [{**row, **{name: row[name][: max(1, len(row[name]) // 2)] for name in names}} for row in rows]
