from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file
from tests.unit.packaging.conftest import BOTH, Trained, steps, table

from yunmo.bundle.manifest import Tensor, Tensors
from yunmo.core.encoders import RnnEncoder
from yunmo.core.errors import ParityError
from yunmo.core.fields import SequenceField
from yunmo.data.fields.registry import open_field
from yunmo.inference.session import Arrays
from yunmo.models.network import Network
from yunmo.packaging.export import export_graph
from yunmo.packaging.parity import Reference, check_graph

Make = Callable[..., Trained]


def parts(trained: Trained) -> tuple[Network, Reference, Tensors, Arrays]:
    network = Network(trained.recipe, trained.statistics).eval()
    network.load_state_dict(load_file(trained.weights))
    outputs = trained.recipe.outputs or ()
    encoded: Arrays = {}
    inputs = []
    for spec in trained.recipe.inputs or ():
        field = open_field(spec, trained.statistics[spec.name])
        encoded |= field.encode([row[spec.name] for row in trained.examples])
        for tensor in field.tensors():
            free = isinstance(spec, SequenceField) and tensor.name == spec.name
            shape = (None, *tensor.shape[1:]) if free else tensor.shape
            inputs.append(Tensor(name=tensor.name, dtype=tensor.dtype, shape=shape))
    shapes = [(len(output.categories or ()),) if output is BOTH[0] else () for output in outputs]
    answers = [
        Tensor(name=output.name, dtype="float32", shape=shape) for output, shape in zip(outputs, shapes, strict=True)
    ]
    tensors = Tensors(inputs=tuple(inputs), outputs=tuple(answers))
    return network, Reference(network, outputs, trained.statistics), tensors, encoded


def changed(graph: bytes, name: str, change: Callable[[Any], Any]) -> bytes:
    """Change one of the graph's constants."""
    model = onnx.load_from_string(graph)
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name.endswith(name)]
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))
    return bytes(model.SerializeToString())


def noisy(value: Any) -> Any:
    return value + np.random.default_rng(0).normal(size=value.shape).astype(value.dtype)


def test_a_graph_with_other_weights_is_refused(make: Make) -> None:
    network, reference, tensors, encoded = parts(make(*table(), outputs=BOTH))
    graph = export_graph(network, tensors, encoded)
    check_graph(reference, graph, tensors, encoded)
    model = onnx.load_from_string(graph)
    weights = [one.name for one in model.graph.initializer if one.data_type == TensorProto.FLOAT and len(one.dims) > 1]
    for name in weights:
        with pytest.raises(ParityError, match="off by"):
            check_graph(reference, changed(graph, name, noisy), tensors, encoded)


def test_a_frozen_length_is_caught(make: Make) -> None:
    """What torch's exporter makes of a plain RNN: a graph that unrolls the steps of its example."""
    trained = make(steps(RnnEncoder(cell="rnn", hidden=4)))
    network, reference, tensors, encoded = parts(trained)

    class Unrolled(torch.nn.Module):
        def forward(self, values: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
            return network.predict({"steps": values[:, :5], "steps_length": length.clamp(max=5)})["label"]

    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own notices
        program = torch.onnx.export(
            Unrolled().eval(),
            (torch.zeros(2, 8, 2), torch.ones(2, dtype=torch.int64)),
            input_names=["steps", "steps_length"],
            output_names=["label"],
            dynamic_shapes=({0: batch, 1: length}, {0: batch}),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto.SerializeToString()
    with pytest.raises(ParityError, match=r"sequences of [-+]\d steps"):
        check_graph(reference, graph, tensors, encoded)


def test_a_frozen_batch_is_caught(make: Make) -> None:
    trained = make(*table())
    _, reference, tensors, encoded = parts(trained)
    answer = reference.answer(encoded)["label"]
    nodes = [helper.make_node("Identity", ["constant"], ["label"])]
    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    graph = helper.make_graph(
        nodes,
        "frozen",
        [helper.make_tensor_value_info(one.name, kinds[one.dtype], ["batch", *one.shape]) for one in tensors.inputs],
        [helper.make_tensor_value_info("label", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(answer, "constant")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(ParityError, match="the graph with 1 rows answers 'label' in the shape"):
        check_graph(reference, model.SerializeToString(), tensors, encoded)


def test_numbers_may_differ_by_what_their_size_allows(make: Make) -> None:
    _, reference, _, encoded = parts(make(*table(), outputs=BOTH))
    expected = reference.answer(encoded)
    near = expected | {"price": expected["price"] + np.float32(0.01)}
    reference.compare(near, expected, "this")
    with pytest.raises(ParityError, match="'price'"):
        reference.compare(expected | {"price": expected["price"] + np.float32(1)}, expected, "this")
    with pytest.raises(ParityError, match="shape"):
        reference.compare(expected | {"label": expected["label"][:1]}, expected, "this")
