"""The tensors of an imported graph, as it tells them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnx import TensorProto

from yunmo.core.errors import BundleError
from yunmo.core.fields import Datatype
from yunmo.packaging.imported.graph import Graph, input_shape

DATATYPES: dict[int, Datatype] = {
    TensorProto.BOOL: "bool",
    TensorProto.INT8: "int8",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.UINT8: "uint8",
    TensorProto.UINT16: "uint16",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64",
    TensorProto.FLOAT16: "float16",
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.STRING: "string",
}
"""ONNX's element types that a request can carry."""
ELEMENTS = {name: number for number, name in DATATYPES.items()}
WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of the imported graph: datatype, and shape without the batch (None: not known)."""

    name: str
    datatype: Datatype
    shape: tuple[int | None, ...] | None


def describe_inputs(graph: Graph) -> dict[str, TensorInfo]:
    """Return the graph's inputs by name.

    Raises:
        BundleError: one is of a type that no request can carry, or has no batch axis.
    """
    found: dict[str, TensorInfo] = {}
    for value in graph.proto.input:
        datatype = _datatype(value.name, value.type.tensor_type.elem_type)
        shape = input_shape(value)
        if shape == ():
            raise BundleError(
                f"the input {value.name[:100]!r} has no batch axis",
                remedy="Export the model with a first axis for rows in every input, or make this input a constant",
            )
        found[value.name] = TensorInfo(value.name, datatype, None if shape is None else shape[1:])
    return found


def output_info(name: str, kind: str, shape: Sequence[Any] | None) -> TensorInfo:
    """Return what ONNX Runtime says of an output.

    Raises:
        BundleError: it is no tensor of a known type.
    """
    names = {"tensor(float)": "float32", "tensor(double)": "float64"}
    datatype = names.get(kind) or kind.removeprefix("tensor(").removesuffix(")")
    if datatype not in ELEMENTS:
        raise BundleError(
            f"the output {name[:100]!r} is {kind}", remedy="Export the model with tensors of plain numbers as outputs"
        )
    sizes = None if not shape else tuple(size if isinstance(size, int) else None for size in shape[1:])
    return TensorInfo(name, datatype, sizes)


def _datatype(name: str, element: int) -> Datatype:
    if element not in DATATYPES:
        known = TensorProto.DataType.Name(element).lower() if element in TensorProto.DataType.values() else element
        raise BundleError(
            f"the tensor {name[:100]!r} is of type {known}, which no request can carry",
            remedy="Export the model with float32, say, as the type of its inputs and outputs",
        )
    return DATATYPES[element]
