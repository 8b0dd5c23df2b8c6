"""What a model looks like in the Open Inference Protocol: its fields as tensors, its answers as tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from yunmo.core.errors import InvalidInput
from yunmo.core.fields import CategoryOutput, LabelsOutput
from yunmo.data.fields.base import Wire
from yunmo.data.fields.labels import held_labels, join_labels
from yunmo.data.fields.registry import open_output
from yunmo.inference.compare import check_finite
from yunmo.protocol.tensors import Array, from_raw

if TYPE_CHECKING:
    from yunmo.inference.predictor import Predictor

PLATFORM = "onnxruntime_onnx"
"""The protocol's name for ONNX files in ONNX Runtime."""

_MANY_NAMES = 8

Columns = dict[str, Any]
"""Raw values by field: sequences and arrays."""


class Tensor(msgspec.Struct, frozen=True):
    """A named tensor, as it came or as it goes."""

    name: str
    datatype: str
    array: Array


class Output(msgspec.Struct, frozen=True):
    """One tensor that a model answers."""

    name: str
    wire: Wire
    source: str
    """The graph's output that it is made of."""
    texts: Callable[[Array], Array] | None = None
    """Of the best class, or the labels that hold: makes them of the probabilities."""
    finite: bool = True
    """Whether NaN and infinity are failures of the model; of an imported graph's tensors nothing is known."""


class Signature:
    """Inputs and outputs of one model.

    Args:
        predictor: the model; it is not kept.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.inputs: dict[str, tuple[Wire, ...]] = {name: field.wire() for name, field in predictor.fields.items()}
        """By field, the tensors as which it may come; the preferred one first."""
        self.outputs: dict[str, Output] = {
            each.name: each for spec in predictor.manifest.outputs for each in _outputs(spec)
        }

    def columns(self, tensors: Iterable[Tensor]) -> Columns:
        """Hold tensors against the inputs, and return them as raw values by field.

        Raises:
            InvalidInput: a missing, unknown or repeated name, or another datatype or shape than the model takes.
        """
        columns: Columns = {}
        for tensor in tensors:
            name = tensor.name
            wires = self.inputs.get(name)
            if wires is None:
                raise InvalidInput(f"unknown input {name[:100]!r}", remedy=f"The model has: {_some(self.inputs)}")
            if name in columns:
                raise InvalidInput("the input comes twice", where=f"input {name}")
            _check(tensor, wires)
            text = tensor.datatype == "BYTES" and tensor.array.ndim == 1
            columns[name] = tensor.array.tolist() if text else tensor.array
        for name in self.inputs:
            if name not in columns:
                raise InvalidInput(f"missing input {name!r}", remedy=f"The model needs: {_some(self.inputs)}")
        return columns

    def single(self, data: memoryview) -> Columns:
        """Return a body that is nothing but the one row of the model's one input.

        Raises:
            InvalidInput: the model has more inputs, or the body has another size.
        """
        if len(self.inputs) != 1:
            raise InvalidInput(
                f"a body without a document is for models of one input; this one has {len(self.inputs)}",
                remedy="Name the inputs in JSON before the data",
            )
        name, wires = next(iter(self.inputs.items()))
        if any(wire.datatype == "BYTES" for wire in wires):
            return {name: [bytes(data)]}
        shape = tuple(1 if size is None else size for size in wires[0].shape)
        if None in wires[0].shape:
            raise InvalidInput("the input has no fixed shape", where=f"input {name}", remedy="Say it in JSON")
        return {name: from_raw(wires[0].datatype, (1, *shape), data)}

    def choose(self, names: Sequence[str] | None) -> list[Output]:
        """Return the outputs that are asked for; None: all.

        Raises:
            InvalidInput: an unknown output, or one asked for twice.
        """
        if not names:
            return list(self.outputs.values())
        chosen = {}
        for name in names:
            output = self.outputs.get(name)
            if output is None:
                raise InvalidInput(f"unknown output {name[:100]!r}", remedy=f"The model has: {_some(self.outputs)}")
            if name in chosen:
                raise InvalidInput(f"the output {name!r} is asked for twice")
            chosen[name] = output
        return list(chosen.values())


_signatures: weakref.WeakKeyDictionary[Predictor, Signature] = weakref.WeakKeyDictionary()


def signature(predictor: Predictor) -> Signature:
    """Return the signature of a loaded model; it is made once."""
    found = _signatures.get(predictor)
    if found is None:
        found = _signatures[predictor] = Signature(predictor)
    return found


def named_columns(tensors: Sequence[Tensor], outputs: Sequence[str], predictor: Predictor) -> Columns:
    """Return the tensors of a request as raw values by field, after a look at the outputs that it asks for.

    Raises:
        InvalidInput: as `Signature.choose` and `Signature.columns`.
    """
    form = signature(predictor)
    form.choose(outputs)
    return form.columns(tensors)


def single_column(body: memoryview, predictor: Predictor) -> Columns:
    """Return a body that is nothing but data as raw values by field; as `Signature.single`."""
    return signature(predictor).single(body)


def answer(output: Output, tensors: Mapping[str, Array]) -> Tensor:
    """Make one answer of the graph's outputs.

    Raises:
        ModelFailed: it is NaN or infinite where that cannot be.
    """
    array = tensors[output.source]
    if output.finite:
        check_finite(output.source, array)
    if output.texts is not None:
        array = output.texts(array)
    return Tensor(output.name, output.wire.datatype, array)


def dimensions(wire: Wire) -> list[int]:
    """Return a shape as the protocol writes it: with the rows in front, -1 for any size."""
    return [-1, *(-1 if size is None else size for size in wire.shape)]


def row_count(tensors: Sequence[Tensor]) -> int:
    """Return how many rows inputs have.

    Raises:
        InvalidInput: there are none, or they do not agree.
    """
    if not tensors:
        raise InvalidInput("there are no inputs", remedy="Send every input of the model")
    first = tensors[0]
    for tensor in tensors:
        if not tensor.array.ndim:
            raise InvalidInput(
                "a tensor without dimensions", where=f"input {tensor.name}", remedy="The first one is the rows"
            )
        if len(tensor.array) != len(first.array):
            raise InvalidInput(
                f"{len(tensor.array)} rows where input {first.name!r} has {len(first.array)}",
                where=f"input {tensor.name}",
                remedy="The first dimension of every input is the rows",
            )
    return len(first.array)


def _outputs(spec: Any) -> list[Output]:
    (wire, *_) = open_output(spec).wire()
    if not isinstance(spec, (CategoryOutput, LabelsOutput)):
        return [Output(spec.name, wire, spec.name, finite=spec.__struct_config__.tag != "tensor")]
    names = np.array(spec.categories or (), object)
    probabilities = Wire("FP32", (len(names),))

    def texts(array: Array) -> Array:
        if isinstance(spec, CategoryOutput):
            best: Array = names[array.argmax(axis=1)]
            return best
        return np.array([join_labels(held, spec.separator) for held in held_labels(array, spec)], object)

    return [
        Output(spec.name, wire, spec.name, texts=texts),
        Output(f"{spec.name}.probabilities", probabilities, spec.name),
    ]


def _check(tensor: Tensor, wires: Sequence[Wire]) -> None:
    shape = tensor.array.shape[1:]
    for wire in wires:
        if wire.datatype == tensor.datatype:
            wanted = wire.shape
            if len(shape) == len(wanted) and all(
                size is None or size == found for size, found in zip(wanted, shape, strict=True)
            ):
                return
            raise InvalidInput(
                f"shape {list(tensor.array.shape)} where {dimensions(wire)} is needed",
                where=f"input {tensor.name}",
                remedy="The first dimension is the rows, -1 is any size",
            )
    raise InvalidInput(
        f"datatype {tensor.datatype}",
        where=f"input {tensor.name}",
        remedy=f"It takes {' or '.join(dict.fromkeys(wire.datatype for wire in wires))}",
    )


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_MANY_NAMES]) + (", …" if len(listed) > _MANY_NAMES else "")
