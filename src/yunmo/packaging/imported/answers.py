"""Nodes after an imported graph: they make answers of its tensors, in the form of a trained bundle's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from yunmo.core import fields as specs
from yunmo.core.errors import InvalidInput
from yunmo.core.fields import FieldStatistics, ModelOutput
from yunmo.packaging.imported import description as says
from yunmo.packaging.imported.description import WHAT
from yunmo.packaging.imported.graph import Graph
from yunmo.packaging.imported.tensors import ELEMENTS, WHOLE, TensorInfo

_ML = "ai.onnx.ml"


class Answers:
    """The fields of a graph's outputs, as they are joined.

    Args:
        graph: changed in place.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        """To come after the graph's own."""
        self.values: list[onnx.ValueInfoProto] = []
        """The graph's outputs from now on."""
        self.specs: list[ModelOutput] = []
        self.statistics: dict[str, FieldStatistics] = {}

    def join(self, tensor: TensorInfo, answer: says.Answer, source: str) -> None:
        """Join one answer.

        Args:
            tensor: of the imported graph.
            answer: what it becomes.
            source: what the tensor is called in the graph now.

        Raises:
            InvalidInput: they do not fit.
        """
        where = f"{WHAT}, outputs, {answer.name}"
        if isinstance(answer, says.TensorAnswer):
            if source != answer.name:
                self._then("Identity", [source], answer.name)
            self.specs.append(specs.TensorOutput(name=answer.name, datatype=tensor.datatype, shape=tensor.shape or ()))
            self._describe(answer.name, "tensor", ELEMENTS[tensor.datatype])
        elif isinstance(answer, says.NumberAnswer):
            self._number(tensor, answer, source, where)
        else:
            self._category(tensor, answer, source, where)

    def _then(self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        name = output or self.graph.fresh(kind.lower())
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def _number(self, tensor: TensorInfo, answer: says.NumberAnswer, source: str, where: str) -> None:
        if tensor.datatype in ("string", "bool"):
            raise InvalidInput(f"the tensor {tensor.name!r} is of {tensor.datatype}, and no number", where=where)
        value = self._then("Cast", [source], to=TensorProto.FLOAT)
        if answer.column is not None:
            value = self._then("Gather", [value, self.graph.constant(np.array([answer.column], np.int64))], axis=1)
        width = [size for size in tensor.shape or () if size != 1]
        if answer.column is None and width and width != [None]:
            raise InvalidInput(
                f"the tensor {tensor.name!r} has the shape {list(tensor.shape or ())} for each row, and is no number",
                where=where,
                remedy="Say which column: column: 0; or make it a tensor",
            )
        self._then("Reshape", [value, self.graph.constant(np.array([-1], np.int64))], answer.name)
        self.specs.append(specs.NumberOutput(name=answer.name, scale="none"))
        self._describe(answer.name, "number", TensorProto.FLOAT)

    def _describe(self, name: str, kind: str, element: int, categories: tuple[str, ...] = ()) -> None:
        self.values.append(helper.make_tensor_value_info(name, element, None))
        self.statistics[name] = FieldStatistics(
            name=name, type=kind, role="output", encode_version=1, count=0, categories=categories
        )

    def _category(self, tensor: TensorInfo, answer: says.CategoryAnswer, source: str, where: str) -> None:
        names = tuple(map(str, answer.categories or self.graph.labels.get(tensor.name, ())))
        if len(names) < 2 or len(set(names)) < len(names):
            raise InvalidInput(
                "categories are missing, only one, or one twice",
                where=where,
                remedy="List them in the graph's order: categories: [cat, dog]",
            )
        if answer.form in ("index", "label"):
            self._from_index(tensor, answer, source, names, where)
        else:
            self._from_scores(tensor, answer, source, names, where)
        self.specs.append(specs.CategoryOutput(name=answer.name, categories=names))
        self._describe(answer.name, "category", TensorProto.FLOAT, names)

    def _from_scores(
        self, tensor: TensorInfo, answer: says.CategoryAnswer, source: str, names: tuple[str, ...], where: str
    ) -> None:
        if tensor.datatype in ("string", "bool"):
            raise InvalidInput(
                f"the tensor {tensor.name!r} is of {tensor.datatype}", where=where, remedy="Write from: label"
            )
        sizes = [size for size in tensor.shape or () if size != 1]
        columns = sizes[0] if sizes else (1 if tensor.shape is not None else None)
        if columns not in (None, len(names)) and not (columns == 1 and len(names) == 2):
            raise InvalidInput(
                f"{len(names)} categories for the tensor {tensor.name!r}, which has {columns} columns",
                where=where,
                remedy="List one category for each column, in order",
            )
        value = self._then("Cast", [source], to=TensorProto.FLOAT)
        if columns == 1:
            value = self._then("Reshape", [value, self.graph.constant(np.array([-1, 1], np.int64))])
            if answer.form == "logits":
                value = self._then("Sigmoid", [value])
            other = self._then("Sub", [self.graph.constant(np.ones(1, np.float32)), value])
            self._then("Concat", [other, value], answer.name, axis=1)
            return
        value = self._then("Reshape", [value, self.graph.constant(np.array([-1, len(names)], np.int64))])
        if answer.form == "logits":
            self._then("Softmax", [value], answer.name, axis=1)
        else:
            self._then("Identity", [value], answer.name)

    def _from_index(
        self, tensor: TensorInfo, answer: says.CategoryAnswer, source: str, names: tuple[str, ...], where: str
    ) -> None:
        """Make 1 and 0 of the best class; what is no class becomes NaN, which serving reports as a failure."""
        places = list(range(len(names)))
        if tensor.datatype == "string" and answer.form == "label":
            value = self._numbered(source, names)
        elif tensor.datatype in WHOLE:
            value = self._then("Cast", [source], to=TensorProto.INT64)
            if answer.form == "label":
                places = _whole(names, where)
        else:
            remedy = "Write from: label" if tensor.datatype == "string" else "Say what it is: from: probabilities"
            raise InvalidInput(
                f"the tensor {tensor.name!r} is of {tensor.datatype}, and no {answer.form}", where=where, remedy=remedy
            )
        value = self._then("Reshape", [value, self.graph.constant(np.array([-1, 1], np.int64))])
        wanted = self.graph.constant(np.array([places], np.int64))
        same = self._then("Cast", [self._then("Equal", [value, wanted])], to=TensorProto.FLOAT)
        total = self._then("MatMul", [same, self.graph.constant(np.ones((len(names), 1), np.float32))])
        self._then("Div", [same, total], answer.name)

    def _numbered(self, source: str, names: tuple[str, ...]) -> str:
        """Turn the names of classes into their places, others into -1."""
        opsets = self.graph.model.opset_import
        version = next((one.version for one in opsets if one.domain == _ML), None)
        if version is None:
            opsets.append(helper.make_opsetid(_ML, 2))
        keys: dict[str, Any] = {"keys_strings": list(names), "values_int64s": list(range(len(names)))}
        if version == 1:
            keys = {"classes_strings": list(names)}
        return self._then("LabelEncoder", [source], domain=_ML, default_int64=-1, **keys)


def _whole(names: tuple[str, ...], where: str) -> list[int]:
    try:
        return [int(name) for name in names]
    except ValueError:
        raise InvalidInput(
            "the graph answers whole numbers, and the categories are none",
            where=where,
            remedy="Write from: index if it answers the place in categories",
        ) from None
