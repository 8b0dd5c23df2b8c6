"""Fuzzes ONNX files and the descriptions beside them, as far as an import goes before ONNX Runtime runs the graph.

Running it is left to a process with limits (`yunmo.control.jobs.import_onnx`): native code may crash there.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.fuzz.driver import fuzz, watched

with watched():
    from tests.fixtures.onnx_files import linear, model, unary, value
    from tests.fixtures.tensors import tensor_graph

    from yunmo.packaging.imported.compose import compose
    from yunmo.packaging.imported.description import description_from
    from yunmo.packaging.imported.graph import Graph
    from yunmo.packaging.imported.safety import check as check_safe
    from yunmo.packaging.imported.safety import load
    from yunmo.packaging.imported.tensors import TensorInfo, describe_inputs

from onnx import helper

FILE = Path(tempfile.mkdtemp(prefix="yunmo-fuzz-"), "model.onnx")


def check(data: bytes) -> None:
    """Read a file, check it, and join it with the fields of its own tensors."""
    FILE.write_bytes(data)
    source = load(FILE)
    check_safe(source)
    for frees in (False, True):
        graph = Graph(type(source).FromString(source.SerializeToString()))
        graph.tidy()
        inputs = describe_inputs(graph)
        if frees and graph.has_fixed_batch():
            graph.free_batch(reshapes=True)
        outputs = {each.name: TensorInfo(each.name, "float32", None) for each in graph.proto.output}
        compose(graph, inputs, outputs, description_from({}))


def seeds() -> list[bytes]:
    """Return good files and some of what is refused."""
    branch = model([], outputs=[value("z")]).graph
    branch.node.append(helper.make_node("Identity", ["x"], ["z"]))
    control = model(
        [helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)],
        inputs=[value("x"), value("flag", [], 9)],
        outputs=[value("y", None)],
    )
    outside = linear()
    outside.graph.initializer[0].data_location = 1
    outside.graph.initializer[0].external_data.add(key="location", value="../../etc/passwd")
    made = (
        *(linear(), linear(softmax=True), linear(batch=1), tensor_graph(), control, outside),
        *(unary("Relu"), unary("RandomNormalLike"), unary("Cast", to=8)),
    )
    return [each.SerializeToString() for each in made]


if __name__ == "__main__":
    words = (b"Loop", b"Scan", b"If", b"Constant", b"location", b"ai.onnx.ml", b"com.microsoft", b"batch", b"ZipMap")
    fuzz(check, seeds(), words)
