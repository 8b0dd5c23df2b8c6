"""The two models: ResNet-20 for pictures of 32x32 (He et al. 2015, section 4.2) and an MLP 30-128-128-2.

Random weights with a fixed seed, as ONNX with float32 inputs, a free batch and softmax outputs. What they answer means
nothing, but differs clearly between inputs, so that another's answer shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FEATURES = 30
OPSET, IR_VERSION = 20, 10
SPREAD = 2.0
"""Standard deviation of the logits over random inputs: probabilities are neither all alike nor all 0 or 1."""

Array = NDArray[Any]


class Graph:
    """An ONNX graph under construction."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Array] = {}

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, name: str, value: Array) -> str:
        """Add an initializer and return its name."""
        self.weights[name] = value
        return name

    def model(self, shape: tuple[int, ...], output: str, width: int) -> onnx.ModelProto:
        """Return the model: ``input`` float32 [batch, *shape] to ``probabilities`` float32 [batch, width]."""
        graph = helper.make_graph(
            [*self.nodes, helper.make_node("Softmax", [output], ["probabilities"], axis=1)],
            "benchmark",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *shape])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", width])],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model

    def spread(self, shape: tuple[int, ...], output: str, weight: str, bias: str) -> None:
        """Scale the last layer so that its outputs have mean 0 and deviation `SPREAD` over random inputs."""
        probe = self.model(shape, output, len(self.weights[bias]))
        probe.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
        session = open_session(probe.SerializeToString())
        inputs = np.stack([tensor(picture(self.rng)) for _ in range(256)]) if len(shape) == 3 else None
        if inputs is None:
            inputs = self.rng.normal(size=(256, *shape)).astype(np.float32)
        (logits,) = session.run([output], {"input": inputs})
        scale = (SPREAD / logits.std(axis=0)).astype(np.float32)
        self.weights[weight] *= scale
        self.weights[bias] = -(logits.mean(axis=0) * scale).astype(np.float32)


def resnet20(seed: int = 0) -> onnx.ModelProto:
    """Return ResNet-20: 3x3 convolutions of 16, 32 and 64 channels, three blocks each, and shortcuts without weights.

    Batch normalization is folded into the convolutions, as every exporter does.
    """
    graph = Graph(np.random.default_rng(seed))
    value = graph.add("Relu", _convolution(graph, "input", 3, 16, 1, 1.0))
    channels = 16
    for width in (16, 32, 64):
        for block in range(3):
            stride = 2 if width != 16 and block == 0 else 1
            inner = graph.add("Relu", _convolution(graph, value, channels, width, stride, 1.0))
            inner = _convolution(graph, inner, width, width, 1, 0.5)
            value = graph.add("Relu", graph.add("Add", inner, _shortcut(graph, value, channels, width, stride)))
            channels = width
    pooled = graph.add("Flatten", graph.add("GlobalAveragePool", value))
    logits = _dense(graph, pooled, 64, len(CLASSES), "head")
    graph.spread((3, 32, 32), logits, "head.weight", "head.bias")
    return graph.model((3, 32, 32), logits, len(CLASSES))


def mlp(seed: int = 0) -> onnx.ModelProto:
    """Return the MLP: 30 numbers, two layers of 128 with ReLU, 2 classes."""
    graph = Graph(np.random.default_rng(seed))
    value = "input"
    for place, (inputs, outputs) in enumerate(((FEATURES, 128), (128, 128))):
        value = graph.add("Relu", _dense(graph, value, inputs, outputs, f"layer{place}"))
    logits = _dense(graph, value, 128, 2, "head")
    graph.spread((FEATURES,), logits, "head.weight", "head.bias")
    return graph.model((FEATURES,), logits, 2)


def parameters(model: onnx.ModelProto) -> int:
    """Return the number of learnt values."""
    return sum(int(np.prod(one.dims)) for one in model.graph.initializer if one.data_type == TensorProto.FLOAT)


def picture(rng: np.random.Generator) -> Array:
    """Return a random smooth picture, uint8 [32, 32, 3]."""
    coarse = rng.uniform(0, 255, (4, 4, 3))
    smooth = np.kron(coarse, np.ones((8, 8, 1))) + rng.normal(0, 12, (32, 32, 3))
    return np.clip(smooth, 0, 255).astype(np.uint8)


def tensor(pixels: Array) -> Array:
    """Return pixels [32, 32, 3] as the model takes them: float32 [3, 32, 32] from 0 to 1."""
    return np.ascontiguousarray((pixels.astype(np.float32) / 255).transpose(2, 0, 1))


def open_session(model: bytes | str, threads: int = 1) -> ort.InferenceSession:
    """Open a model as every server here does: on the CPU, without spinning threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def build(folder: Path) -> dict[str, Path]:
    """Write both models into a folder and return their files by name (``cnn``, ``mlp``)."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, make in (("cnn", resnet20), ("mlp", mlp)):
        files[name] = folder / f"{name}.onnx"
        files[name].write_bytes(make().SerializeToString(deterministic=True))
    return files


def _convolution(graph: Graph, value: str, inputs: int, outputs: int, stride: int, scale: float) -> str:
    name = f"conv{len(graph.weights)}"
    deviation = scale * np.sqrt(2 / (inputs * 9))
    weight = graph.rng.normal(0, deviation, (outputs, inputs, 3, 3)).astype(np.float32)
    bias = graph.rng.normal(0, 0.05, outputs).astype(np.float32)
    inputs_ = (value, graph.constant(f"{name}.weight", weight), graph.constant(f"{name}.bias", bias))
    return graph.add("Conv", *inputs_, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[stride, stride])


def _shortcut(graph: Graph, value: str, inputs: int, outputs: int, stride: int) -> str:
    """Option A of the paper: every other pixel, and zeros for the new channels."""
    if inputs == outputs:
        return value
    sliced = graph.add(
        "Slice",
        value,
        graph.constant("zeros", np.array([0, 0], np.int64)),
        graph.constant("ends", np.array([1 << 31, 1 << 31], np.int64)),
        graph.constant("image_axes", np.array([2, 3], np.int64)),
        graph.constant("steps", np.array([stride, stride], np.int64)),
    )
    pads = graph.constant(f"pads{outputs}", np.array([0, 0, 0, 0, 0, outputs - inputs, 0, 0], np.int64))
    return graph.add("Pad", sliced, pads)


def _dense(graph: Graph, value: str, inputs: int, outputs: int, name: str) -> str:
    weight = graph.rng.normal(0, np.sqrt(2 / inputs), (inputs, outputs)).astype(np.float32)
    names = (graph.constant(f"{name}.weight", weight), graph.constant(f"{name}.bias", np.zeros(outputs, np.float32)))
    return graph.add("Gemm", value, *names)
