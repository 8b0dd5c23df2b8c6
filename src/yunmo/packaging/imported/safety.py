"""What an ONNX file may hold: everything else is refused with a reason, before any of it is run."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import onnx.checker
import onnx.inliner
from google.protobuf.message import DecodeError

from yunmo.core.errors import BundleError

MAX_SIZE = 2**31 - 1
"""Bytes of a protobuf message, and so of an ONNX file with its weights inside."""
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Operator sets that ONNX Runtime's own CPU build runs."""
MAX_DEPTH = 8
"""Graphs within graphs (If, Loop, Scan, functions)."""
MAX_NODES = 1_000_000
"""Nodes, counted as often as functions repeat them."""
OLDEST_OPSET = 7
"""Operators broadcast as they do today since then."""

_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
_SHAPES = frozenset({"Shape", "Size"})
_ROUND = 1
"""The first input of a Loop's body is the number of the round."""
_FROM_OUTSIDE = frozenset({"EPContext"})
_MARKS = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : |\S*/\S+\.(cc|h|cpp|cu):\d+ .*?\) |\S*onnxruntime_src/\S*")
_LONGEST = 300
_EXPORT_INSIDE = (
    "Save it as one file: onnx.save_model(onnx.load(FILE), NEW, save_as_external_data=False); "
    "torch.onnx.export has external_data=False"
)


def load(path: Path) -> onnx.ModelProto:
    """Read an ONNX file.

    Raises:
        BundleError: too large, damaged, or another kind of file.
    """
    if path.stat().st_size > MAX_SIZE:
        raise _refused("larger than 2 GB", "An ONNX file with its weights inside can't be: import a smaller model")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (DecodeError, ValueError):
        raise _refused("no ONNX file, or a damaged one", "Export the model again and send the whole file") from None
    if not model.ir_version or not model.HasField("graph"):
        raise _refused("no ONNX file, or a damaged one", "Export the model again and send the whole file")
    return model


def check(model: onnx.ModelProto) -> None:
    """Refuse what would reach outside of the file, what ONNX Runtime has no operator for, and what can run away.

    Raises:
        BundleError: the first thing found, with what to do about it.
    """
    _check_functions(model)
    for depth, graph in _graphs(model):
        if depth > MAX_DEPTH:
            raise _refused(f"control flow nested deeper than {MAX_DEPTH}", "Simplify the model, then export it again")
        _check_graph(graph)
    _check_form(model)
    try:
        _check_rounds(_inlined(model).graph, {value.name for value in model.graph.input})
        with _shapes_given(model.graph):
            onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise _refused(f"not valid ONNX: {first_line(error)}", "Export it again with a current exporter") from None


def first_line(error: object) -> str:
    """Return the first line of what a library says went wrong, without its own marks and source files."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    text = _MARKS.sub("", lines[0]) if lines else type(error).__name__
    return text.rpartition("Status Message: ")[2][:_LONGEST].rstrip(". ") or "it does not say why"


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs in a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.inliner.inline_local_functions(model) if model.functions else model


@contextlib.contextmanager
def _shapes_given(graph: onnx.GraphProto) -> Iterator[None]:
    """Give tensors without a shape one for a while: ONNX's checker wants it, ONNX Runtime does without."""
    types = [value.type.tensor_type for value in (*graph.input, *graph.output) if value.type.HasField("tensor_type")]
    without = [kind for kind in types if not kind.HasField("shape")]
    for kind in without:
        kind.shape.SetInParent()
    try:
        yield
    finally:
        for kind in without:
            kind.ClearField("shape")


def _refused(what: str, remedy: str) -> BundleError:
    return BundleError(what, remedy=remedy)


def _graphs(model: onnx.ModelProto) -> Iterator[tuple[int, onnx.GraphProto | onnx.FunctionProto]]:
    """Yield every graph and function body with its depth; protobuf itself stops at 100."""
    waiting: list[tuple[int, onnx.GraphProto | onnx.FunctionProto]] = [(0, model.graph)]
    waiting += [(0, function) for function in model.functions]
    for training in model.training_info:
        waiting += [(0, training.initialization), (0, training.algorithm)]
    while waiting:
        depth, graph = waiting.pop()
        yield depth, graph
        waiting += [(depth + 1, inner) for node in graph.node for inner in subgraphs(node)]


def _check_graph(graph: onnx.GraphProto | onnx.FunctionProto) -> None:
    tensors: list[onnx.TensorProto] = []
    if isinstance(graph, onnx.GraphProto):
        tensors += graph.initializer
        for sparse in graph.sparse_initializer:
            tensors += [sparse.values, sparse.indices]
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    if isinstance(graph, onnx.FunctionProto):
        attributes += graph.attribute_proto
    for attribute in attributes:
        tensors += [attribute.t, *attribute.tensors]
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            tensors += [sparse.values, sparse.indices]
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise _refused(f"its weights ({tensor.name[:100]!r}) are in another file", _EXPORT_INSIDE)
    for node in graph.node:
        if node.domain in DOMAINS[:2] and node.op_type in _RANDOM:
            raise _refused(
                f"the operator {node.op_type} answers at random", "Export the model in inference mode, without sampling"
            )
        if node.op_type in _FROM_OUTSIDE:
            raise _refused(f"the operator {node.op_type} reads another file", "Export the model itself")


def _check_rounds(graph: onnx.GraphProto, from_requests: set[str]) -> None:
    """Refuse loops that need not end, or whose number of rounds a request's values decide (not: its shapes).

    Args:
        graph: without calls of functions.
        from_requests: values that follow from those of a request.
    """
    known = set(from_requests)
    for node in graph.node:
        follows = any(name in known for name in node.input)
        if node.op_type == "Loop":
            if not node.input or not node.input[0]:
                raise _refused(
                    "a Loop without a number of rounds, which need not end",
                    "Give it the most it may take (input M), a constant",
                )
            if node.input[0] in known:
                raise _refused(
                    "a Loop whose number of rounds a request decides", "Make the most it may take (input M) a constant"
                )
        for inner in subgraphs(node):
            within = known | ({value.name for value in inner.input[_ROUND:]} if follows else set())
            _check_rounds(inner, within)
            follows = follows or any(name in known for one in inner.node for name in one.input)
        if follows and node.op_type not in _SHAPES:
            known.update(node.output)


def _check_functions(model: onnx.ModelProto) -> None:
    """Refuse unknown operator sets, functions that call themselves, and those that grow without measure."""
    bodies = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    open_calls: set[tuple[str, str]] = set()

    def size(nodes: Sequence[onnx.NodeProto], depth: int) -> int:
        if depth > MAX_DEPTH * 4:
            raise _refused("functions or control flow nested too deeply", "Simplify the model, then export it again")
        total = 0
        for node in nodes:
            total += 1 + sum(size(inner.node, depth + 1) for inner in subgraphs(node))
            called = (node.domain, node.op_type)
            if called in bodies:
                total += body(called, depth + 1)
            elif node.domain not in DOMAINS:
                raise _refused(
                    f"the operator {node.op_type} of {node.domain[:100]!r} is not one of ONNX Runtime's",
                    "Export the model with standard operators (ONNX, ai.onnx.ml, com.microsoft)",
                )
        return total

    def body(called: tuple[str, str], depth: int) -> int:
        if called in open_calls:
            raise _refused(f"the function {called[1][:100]!r} calls itself", "Export the model again")
        if called not in sizes:
            open_calls.add(called)
            sizes[called] = size(bodies[called].node, depth)
            open_calls.remove(called)
        return sizes[called]

    total = size(model.graph.node, 0) + sum(body(called, 0) for called in bodies)
    if total > MAX_NODES:
        raise _refused(f"{total} nodes, more than {MAX_NODES}", "Import a smaller model")


def _check_form(model: onnx.ModelProto) -> None:
    opset = next((one.version for one in model.opset_import if one.domain in DOMAINS[:2]), None)
    if opset is not None and opset < OLDEST_OPSET:
        raise _refused(
            f"made for ONNX opset {opset}; the oldest that is read is {OLDEST_OPSET}",
            "Convert it with onnx.version_converter.convert_version(model, 21), or export it again",
        )
    graph = model.graph
    for what, names in (
        ("inputs", [value.name for value in graph.input]),
        ("outputs", [value.name for value in graph.output]),
    ):
        if len(set(names)) != len(names) or "" in names:
            raise _refused(f"two {what} of one name, or one without", "Export the model again")
    if not graph.output:
        raise _refused("the graph has no output", "Export the model again")
    given = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in given]
    if not inputs:
        raise _refused("the graph has no input", "Export the model with its inputs")
    for value in inputs:
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            what = (kind or "value without a type").removesuffix("_type").replace("_", " ")
            raise _refused(
                f"the input {value.name[:100]!r} is no tensor ({what})", "Export the model with tensors as inputs"
            )
