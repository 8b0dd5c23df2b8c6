"""Changing an imported graph without changing what it answers: names, maps that no tensor is, a free batch axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from yunmo.core.errors import BundleError
from yunmo.packaging.imported.safety import DOMAINS, subgraphs

BATCH = "batch"
_OPSET = 20
_SHAPE_INPUT = 1


@dataclass
class Graph:
    """A graph that is being changed.

    Args:
        model: changed in place.
    """

    model: onnx.ModelProto
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By output: names of its columns, where the file itself tells them (ZipMap)."""
    notes: list[str] = field(default_factory=list)
    """What was changed, for the report."""

    def __post_init__(self) -> None:
        self._taken = set(_names(self.model.graph))
        self._fresh = 0

    @property
    def proto(self) -> onnx.GraphProto:
        """The graph itself."""
        return self.model.graph

    def fresh(self, hint: str) -> str:
        """Return a name that no value has."""
        while True:
            self._fresh += 1
            name = f"{hint}/{self._fresh}"
            if name not in self._taken:
                self._taken.add(name)
                return name

    def is_taken(self, name: str) -> bool:
        """Say whether a value has a name."""
        return name in self._taken

    def rename(self, names: Mapping[str, str]) -> None:
        """Give values other names, everywhere."""
        if names:
            _rename(self.proto, names)
            self._taken = {names.get(name, name) for name in self._taken}

    def constant(self, value: Any, hint: str = "yunmo") -> str:
        """Add an array and return its name."""
        name = self.fresh(hint)
        self.proto.initializer.append(numpy_helper.from_array(value, name))
        return name

    def tidy(self) -> None:
        """Take out what serving does not need: training graphs, notes of the exporter, inputs that have a value."""
        model, graph = self.model, self.proto
        del model.training_info[:]
        del model.metadata_props[:]
        model.doc_string = ""
        # Shapes noted within would contradict another batch size; ONNX Runtime infers them anew.
        del graph.value_info[:]
        given = {tensor.name for tensor in graph.initializer}
        given |= {sparse.values.name for sparse in graph.sparse_initializer}
        inputs = [value for value in graph.input if value.name not in given]
        del graph.input[:]
        graph.input.extend(inputs)
        parts: tuple[Any, ...] = (graph, *graph.node, *graph.input, *graph.output)
        for part in parts:
            part.doc_string = ""
        if not any(one.domain in DOMAINS[:2] for one in model.opset_import):
            model.opset_import.append(helper.make_opsetid("", _OPSET))
        self._drop_zip_maps()

    def free_batch(self, *, reshapes: bool) -> None:
        """Make the first axis of every input and output free.

        Args:
            reshapes: also where a Reshape within has the fixed size written into it.
        """
        sizes = set()
        for value in self.proto.input:
            first = value.type.tensor_type.shape.dim[0]
            sizes.add(first.dim_value)
            first.dim_param = BATCH
        for value in self.proto.output:
            value.type.tensor_type.ClearField("shape")
        if reshapes:
            self._free_reshapes(sizes)

    def surround(
        self,
        inputs: Sequence[onnx.ValueInfoProto],
        before: Sequence[onnx.NodeProto],
        after: Sequence[onnx.NodeProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> None:
        """Give the graph other inputs and outputs, and the nodes that lead from and to them."""
        nodes = [*before, *self.proto.node, *after]
        graph = self.proto
        del graph.input[:], graph.node[:], graph.output[:]
        graph.input.extend(inputs)
        graph.node.extend(nodes)
        graph.output.extend(outputs)

    def has_fixed_batch(self) -> bool:
        """Say whether an input's first axis has a fixed size."""
        return any(value.type.tensor_type.shape.dim[0].dim_value for value in self.proto.input)

    def _free_reshapes(self, sizes: set[int]) -> None:
        constants = {tensor.name: tensor for tensor in self.proto.initializer}
        made = {node.output[0]: node for node in self.proto.node if node.op_type == "Constant" and node.output}
        changed: dict[str, str] = {}
        for node in self.proto.node:
            if node.op_type != "Reshape" or len(node.input) <= _SHAPE_INPUT:
                continue
            name = node.input[_SHAPE_INPUT]
            if name not in changed:
                tensor = constants.get(name)
                if tensor is None and name in made:
                    tensor = next((one.t for one in made[name].attribute if one.name == "value"), None)
                if tensor is None:
                    continue
                shape = numpy_helper.to_array(tensor).astype(np.int64)
                if shape.ndim != 1 or not len(shape) or shape[0] not in sizes:
                    continue
                shape = shape.copy()
                shape[0] = 0 if -1 in shape else -1
                changed[name] = self.constant(shape, "shape")
            node.input[_SHAPE_INPUT] = changed[name]

    def _drop_zip_maps(self) -> None:
        """Put the tensor in the place of scikit-learn's list of maps from class to probability."""
        outputs = {value.name: value for value in self.proto.output}
        for node in [node for node in self.proto.node if node.op_type == "ZipMap"]:
            output = outputs.get(node.output[0])
            if output is None:
                raise BundleError(
                    "a map of probabilities (ZipMap) is used within the graph",
                    remedy="Export it with options={'zipmap': False}",
                )
            names: tuple[str, ...] = ()
            for attribute in node.attribute:
                if attribute.name == "classlabels_strings":
                    names = tuple(text.decode() for text in attribute.strings)
                elif attribute.name == "classlabels_int64s":
                    names = tuple(map(str, attribute.ints))
            self.proto.node.remove(node)
            self.proto.node.append(helper.make_node("Identity", [node.input[0]], [node.output[0]]))
            output.type.CopyFrom(helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None))
            self.labels[output.name] = names
            self.notes.append(f"{output.name}: the list of maps (ZipMap) became a tensor, one column a class")


def input_shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    """Return a tensor's declared shape with the batch, None where it has none."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim)


def _values(graph: onnx.GraphProto) -> tuple[Any, ...]:
    return (*graph.input, *graph.output, *graph.value_info, *graph.initializer)


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    for value in _values(graph):
        yield value.name
    for sparse in graph.sparse_initializer:
        yield sparse.values.name
    for node in graph.node:
        yield from node.input
        yield from node.output
        for inner in subgraphs(node):
            yield from _names(inner)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for value in _values(graph):
        value.name = names.get(value.name, value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
    for node in graph.node:
        for places in (node.input, node.output):
            for index, name in enumerate(places):
                if name in names:
                    places[index] = names[name]
        for inner in subgraphs(node):
            _rename(inner, names)
