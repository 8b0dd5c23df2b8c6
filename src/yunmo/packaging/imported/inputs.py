"""Nodes before an imported graph: they make its tensors of the encoded fields."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from yunmo.core import fields as specs
from yunmo.core.errors import InvalidInput
from yunmo.core.fields import JOINED_NUMBERS, Datatype, FieldStatistics, ModelInput
from yunmo.packaging.imported import description as says
from yunmo.packaging.imported.columns import category_table, column_order
from yunmo.packaging.imported.description import WHAT
from yunmo.packaging.imported.graph import BATCH, Graph
from yunmo.packaging.imported.picture import affine, picture_plan
from yunmo.packaging.imported.tensors import ELEMENTS, TensorInfo


class Inputs:
    """The fields of a graph's inputs, as they are joined.

    Args:
        graph: changed in place.
        numbers: names of the number fields that come in one tensor; none: each comes in its own.
    """

    def __init__(self, graph: Graph, numbers: tuple[str, ...]) -> None:
        self.graph = graph
        self._numbers = {name: index for index, name in enumerate(numbers)}
        self.nodes: list[onnx.NodeProto] = []
        """To come before the graph's own."""
        self.values: list[onnx.ValueInfoProto] = []
        """The graph's inputs from now on."""
        if numbers:
            self.values.append(helper.make_tensor_value_info(JOINED_NUMBERS, TensorProto.FLOAT, [BATCH, len(numbers)]))
        self.specs: dict[str, ModelInput] = {}
        self.statistics: dict[str, FieldStatistics] = {}

    def join(self, tensor: TensorInfo, fields: Sequence[says.Input], target: str) -> None:
        """Join the fields of one tensor.

        Args:
            tensor: of the imported graph.
            fields: that fill it.
            target: what it is called in the graph now.

        Raises:
            InvalidInput: they do not fit.
        """
        first = fields[0]
        if isinstance(first, says.TensorInput):
            self._pass_through(tensor, first)
        elif isinstance(first, says.ImageInput):
            self._image(tensor, first, target)
        else:
            self._columns(tensor, [field for field in fields if isinstance(field, says.Column_)], target)

    def _pass_through(self, tensor: TensorInfo, field: says.TensorInput) -> None:
        shape = _known_shape(tensor, field)
        self._add(
            specs.TensorField(name=field.name, datatype=tensor.datatype, shape=shape),
            "tensor",
            tensor.datatype,
            shape,
        )

    def _add(
        self, spec: ModelInput, kind: str, datatype: Datatype, sizes: Sequence[int | None], **learned: Any
    ) -> None:
        """Add a field, and a graph input for its encoded tensor if it has one of its own."""
        if spec.name not in self._numbers:
            self.values.append(helper.make_tensor_value_info(spec.name, ELEMENTS[datatype], [BATCH, *sizes]))
        self.specs[spec.name] = spec
        self.statistics[spec.name] = FieldStatistics(
            name=spec.name, type=kind, role="input", encode_version=0, count=0, **learned
        )

    def _node(self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        name = output or self.graph.fresh(kind.lower())
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def _image(self, tensor: TensorInfo, field: says.ImageInput, target: str) -> None:
        where = f"{WHAT}, inputs, {field.name}"
        plan = picture_plan(tensor, field, where)
        height, width, channels = plan.shape
        value = field.name
        if field.color == "bgr":
            value = self._node("Gather", [value, self.graph.constant(np.array([2, 1, 0], np.int64))], axis=3)
        if plan.layout == "NCHW":
            value = self._node("Transpose", [value], perm=[0, 3, 1, 2])
        factor, shift = affine(field.scale, channels, where)
        if tensor.datatype == "string" or tensor.datatype == "bool":
            raise InvalidInput(f"the tensor {tensor.name!r} is of {tensor.datatype}", where=where)
        if (factor != 1).any() or (shift != 0).any():
            value = self._node("Cast", [value], to=TensorProto.FLOAT)
            sizes = (channels, 1, 1) if plan.layout == "NCHW" else (channels,)
            if (factor != 1).any():
                value = self._node("Mul", [value, self.graph.constant(factor.astype(np.float32).reshape(sizes))])
            if (shift != 0).any():
                value = self._node("Add", [value, self.graph.constant(shift.astype(np.float32).reshape(sizes))])
        if plan.flat is not None:
            value = self._node("Reshape", [value, self.graph.constant(np.array([-1, *plan.flat], np.int64))])
        self._node("Cast", [value], target, to=ELEMENTS[tensor.datatype])
        spec = specs.ImageField(
            name=field.name,
            size=(height, width),
            color="gray" if channels == 1 else "rgb",
            resize=field.resize,
            scale="none",
        )
        self._add(spec, "image", "uint8", plan.shape, shape=plan.shape)

    def _columns(self, tensor: TensorInfo, fields: Sequence[says.Column_], target: str) -> None:
        parts: list[str] = []
        widths: list[int] = []
        for numbers, group in itertools.groupby(fields, lambda field: field.name in self._numbers):
            if numbers:
                names = [self._number(tensor, field) for field in group]
                parts.append(self._joined_part(tensor, names))
                widths += [1] * len(names)
            else:
                for field in group:
                    name, width = self._part(tensor, field)
                    parts.append(name)
                    widths.append(width)
        total = sum(widths)
        shape = tensor.shape
        known = None if shape is None or None in shape else int(np.prod([size for size in shape if size], initial=1))
        if known is not None and known != total:
            raise InvalidInput(
                f"the fields fill {total} columns of the tensor {tensor.name!r}, which has {known}",
                where=f"{WHAT}, inputs",
                remedy="List every column of it",
            )
        value = parts[0]
        if len(parts) > 1:
            value = self._node("Concat", parts, axis=1)
        order = column_order(fields, widths)
        if order is not None:
            value = self._node("Gather", [value, self.graph.constant(order)], axis=1)
        sizes = [total] if shape is None or None in shape else [int(size or 0) for size in shape]
        self._node("Reshape", [value, self.graph.constant(np.array([-1, *sizes], np.int64))], target)

    def _part(self, tensor: TensorInfo, field: says.Column_) -> tuple[str, int]:
        """Add a field; return the name of its columns, [rows, width] in the tensor's datatype, and their number."""
        where = f"{WHAT}, inputs, {field.name}"
        element = ELEMENTS[tensor.datatype]
        if isinstance(field, says.CategoryInput):
            table = category_table(field, tensor, where)
            names = tuple(map(str, field.categories))
            self._add(specs.CategoryField(name=field.name, categories=names), "category", "int64", (), categories=names)
            return self._node("Gather", [self.graph.constant(table), field.name]), table.shape[1]
        if isinstance(field, says.VectorInput):
            _require_numbers(tensor, field)
            self._add(
                specs.VectorField(name=field.name, scale="none"),
                "vector",
                "float32",
                (field.length,),
                shape=(field.length,),
            )
            return self._node("Cast", [field.name], to=element), field.length
        self._number(tensor, field)
        column = self._node("Reshape", [field.name, self.graph.constant(np.array([-1, 1], np.int64))])
        return self._node("Cast", [column], to=element), 1

    def _number(self, tensor: TensorInfo, field: says.Column_) -> str:
        """Add a number; return its name."""
        _require_numbers(tensor, field)
        if not isinstance(field, says.NumberInput):
            raise TypeError(f"{type(field).__name__} is no number")
        spec = specs.NumberField(name=field.name, scale="none", missing="drop")
        if field.missing is not None:
            spec = specs.NumberField(name=field.name, scale="none", missing="constant", constant=field.missing)
        self._add(spec, "number", "float32", (), fill=field.missing)
        return field.name

    def _joined_part(self, tensor: TensorInfo, names: Sequence[str]) -> str:
        """Return the name of the columns of number fields, [rows, fields] in the tensor's datatype."""
        value = JOINED_NUMBERS
        places = [self._numbers[name] for name in names]
        if places != list(range(len(self._numbers))):
            value = self._node("Gather", [value, self.graph.constant(np.array(places, np.int64))], axis=1)
        return self._node("Cast", [value], to=ELEMENTS[tensor.datatype])


def _require_numbers(tensor: TensorInfo, field: says.Column_) -> None:
    if tensor.datatype in ("string", "bool"):
        raise InvalidInput(
            f"the tensor {tensor.name!r} is of {tensor.datatype}, and no number",
            where=f"{WHAT}, inputs, {field.name}",
        )


def _known_shape(tensor: TensorInfo, field: says.TensorInput) -> tuple[int | None, ...]:
    where = f"{WHAT}, inputs, {field.name}, shape"
    if field.shape is None:
        if tensor.shape is None:
            raise InvalidInput(
                f"the graph does not tell the shape of {tensor.name!r}",
                where=where,
                remedy="Say it without the batch: shape: [3, null]",
            )
        return tensor.shape
    if tensor.shape is not None and (
        len(tensor.shape) != len(field.shape)
        or any(found not in (None, said) for found, said in zip(tensor.shape, field.shape, strict=True))
    ):
        raise InvalidInput(
            f"shape {list(field.shape)} where the tensor {tensor.name!r} has {list(tensor.shape)}", where=where
        )
    return field.shape
