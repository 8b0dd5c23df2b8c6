"""Files that must not become models, each refused with its reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.fixtures.onnx_files import FLOAT, WIDTH, array, linear, model, save, unary, value

from yunmo.core.errors import BundleError
from yunmo.packaging.imported.description import Description
from yunmo.packaging.imported.pack import pack_imported


def external(tensor: onnx.TensorProto) -> onnx.TensorProto:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def with_external_weights() -> onnx.ModelProto:
    made = linear()
    external(made.graph.initializer[0])
    return made


def with_external_constant(place: str) -> onnx.ModelProto:
    """Return a model with weights elsewhere: in a node's attribute, a branch, a function, or a sparse tensor."""
    constant = helper.make_node("Constant", [], ["c"], value=external(array("c", np.zeros(WIDTH, np.float32))))
    add = helper.make_node("Add", ["x", "c"], ["y"])
    inputs, outputs = [value("x")], [value("y")]
    if place == "attribute":
        return model([constant, add], inputs=inputs, outputs=outputs)
    if place == "function":
        function = helper.make_function("made", "F", ["x"], ["y"], [constant, add], [helper.make_opsetid("", 20)])
        opsets = {"": 20, "made": 1}
        call = helper.make_node("F", ["x"], ["y"], domain="made")
        return model([call], inputs=inputs, outputs=outputs, functions=[function], opsets=opsets)
    if place == "sparse":
        made = unary("Relu")
        sparse = made.graph.sparse_initializer.add()
        sparse.values.CopyFrom(external(array("s", np.ones(1, np.float32))))
        return made
    branch = helper.make_graph([constant, helper.make_node("Add", ["x", "c"], ["b"])], "b", [], [value("b", None)])
    choose = helper.make_node("If", ["true"], ["y"], then_branch=branch, else_branch=branch)
    return model([choose], inputs=inputs, outputs=outputs, initializers=[array("true", np.array(True))])


def loop(rounds: str | None) -> onnx.ModelProto:
    """Return a model that adds x to itself; ``rounds``: where their number comes from."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["go_on"]), helper.make_node("Add", ["sum", "x"], ["more"])],
        "body",
        [value("i", [], TensorProto.INT64), value("going", [], TensorProto.BOOL), value("sum", None)],
        [value("go_on", [], TensorProto.BOOL), value("more", None)],
    )
    nodes = [helper.make_node("Loop", [rounds or "", "true", "x"], ["y"], body=body)]
    if rounds == "asked":
        nodes.insert(0, helper.make_node("Cast", ["top"], ["asked"], to=TensorProto.INT64))
        nodes.insert(0, helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0))
    if rounds == "counted":
        nodes.insert(0, helper.make_node("Size", ["x"], ["counted"]))
    constants = [array("true", np.array(True)), array("three", np.array(3, np.int64))]
    return model(nodes, inputs=[value("x")], outputs=[value("y")], initializers=constants)


def nested(depth: int) -> onnx.ModelProto:
    node = helper.make_node("Relu", ["x"], ["deepest"])
    other = helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "other", [], [value("b", None)])
    for level in range(depth):
        branch = helper.make_graph([node], "branch", [], [value(node.output[0], None)])
        name = "y" if level == depth - 1 else f"y{level}"
        node = helper.make_node("If", ["true"], [name], then_branch=branch, else_branch=other)
    return model([node], inputs=[value("x")], outputs=[value("y")], initializers=[array("true", np.array(True))])


def functions(calls: Callable[[int], list[str]], count: int) -> onnx.ModelProto:
    """Return a model with functions F0, F1, …; ``calls`` names those that each one calls, one after the other."""
    made = []
    for index in range(count):
        names = calls(index)
        steps = [f"s{step}" for step in range(len(names))]
        nodes = [
            helper.make_node(name, [before], [after], domain="made")
            for name, before, after in zip(names, ["x", *steps], steps, strict=False)
        ]
        nodes.append(helper.make_node("Relu", [steps[-1] if steps else "x"], ["y"]))
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("made", 1)]
        made.append(helper.make_function("made", f"F{index}", ["x"], ["y"], nodes, opsets))
    call = helper.make_node("F0", ["x"], ["y"], domain="made")
    return model([call], inputs=[value("x")], outputs=[value("y")], functions=made, opsets={"": 20, "made": 1})


def sequence_input() -> onnx.ModelProto:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    return model(
        [helper.make_node("ConcatFromSequence", ["x"], ["y"], axis=0)],
        inputs=[helper.make_value_info("x", kind)],
        outputs=[value("y", None)],
    )


def optional_input() -> onnx.ModelProto:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, ["batch", WIDTH]))
    return model(
        [helper.make_node("OptionalGetElement", ["x"], ["y"])],
        inputs=[helper.make_value_info("x", kind)],
        outputs=[value("y", None)],
    )


def sequence_output() -> onnx.ModelProto:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    return model(
        [helper.make_node("SequenceConstruct", ["x", "x"], ["y"])],
        inputs=[value("x")],
        outputs=[helper.make_value_info("y", kind)],
    )


def twice(part: str) -> onnx.ModelProto:
    made = linear()
    if part == "input":
        made.graph.input.append(made.graph.input[0])
    elif part == "output":
        made.graph.output.append(made.graph.output[0])
    else:
        made.graph.node.append(made.graph.node[0])
    return made


def without(part: str) -> onnx.ModelProto:
    made = linear()
    if part == "input":
        made.graph.initializer.append(array("x", np.zeros((1, WIDTH), np.float32)))
    else:
        del made.graph.output[:]
    return made


def batch_norm_in_training() -> onnx.ModelProto:
    ones = np.ones(WIDTH, np.float32)
    constants = [array(name, ones * 0.5) for name in ("scale", "bias", "mean", "var")]
    return model(
        [
            helper.make_node(
                "BatchNormalization", ["x", "scale", "bias", "mean", "var"], ["y", "m", "v"], training_mode=1
            )
        ],
        inputs=[value("x")],
        outputs=[value("y")],
        initializers=constants,
    )


def flattened() -> onnx.ModelProto:
    return model(
        [helper.make_node("Reshape", ["x", "flat"], ["y"])],
        inputs=[value("x")],
        outputs=[value("y", None)],
        initializers=[array("flat", np.array([-1], np.int64))],
    )


GOOD = linear().SerializeToString()
BAD: dict[str, tuple[onnx.ModelProto | bytes, str]] = {
    "empty": (b"", "no ONNX file, or a damaged one"),
    "text": (b"this is no model", "no ONNX file, or a damaged one"),
    "truncated": (GOOD[: len(GOOD) // 2], "no ONNX file, or a damaged one"),
    "other protobuf": (linear().graph.initializer[0].SerializeToString(), "no ONNX file|not valid ONNX|no output"),
    "external weights": (with_external_weights(), "its weights .* are in another file"),
    "external attribute": (with_external_constant("attribute"), "are in another file"),
    "external in a branch": (with_external_constant("branch"), "are in another file"),
    "external in a function": (with_external_constant("function"), "are in another file"),
    "external sparse": (with_external_constant("sparse"), "are in another file"),
    "custom operator": (
        model(
            [helper.make_node("Evil", ["x"], ["y"], domain="com.evil")],
            inputs=[value("x")],
            outputs=[value("y")],
            opsets={"": 20, "com.evil": 1},
        ),
        "the operator Evil of 'com.evil' is not one of ONNX Runtime's",
    ),
    "unknown operator": (unary("Frobnicate"), "Frobnicate"),
    "unknown contrib operator": (
        model(
            [helper.make_node("Nope", ["x"], ["y"], domain="com.microsoft")],
            inputs=[value("x")],
            outputs=[value("y")],
            opsets={"": 20, "com.microsoft": 1},
        ),
        "cannot load it: .*Nope",
    ),
    "context of another engine": (
        model(
            [helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context="/etc/passwd")],
            inputs=[value("x")],
            outputs=[value("y")],
            opsets={"": 20, "com.microsoft": 1},
        ),
        "reads another file",
    ),
    "random": (unary("RandomNormalLike"), "RandomNormalLike answers at random"),
    "endless loop": (loop(None), "a Loop without a number of rounds"),
    "loop as asked": (loop("asked"), "a Loop whose number of rounds a request decides"),
    "deep": (nested(12), "nested"),
    "very deep": (nested(30), "nested|no ONNX file"),
    "function of itself": (functions(lambda _: ["F0"], 1), "the function 'F0' calls itself"),
    "functions of each other": (functions(lambda index: [f"F{1 - index}"], 2), "calls itself"),
    "function bomb": (functions(lambda index: [f"F{index + 1}"] * 10 if index < 9 else [], 10), "nodes, more than"),
    "sequence input": (sequence_input(), r"the input 'x' is no tensor \((sequence|optional)\)"),
    "optional input": (optional_input(), r"the input 'x' is no tensor \((sequence|optional)\)"),
    "sequence output": (sequence_output(), r"the output 'y' is seq\(tensor\(float\)\)"),
    "no input": (without("input"), "the graph has no input"),
    "no output": (without("output"), "the graph has no output"),
    "input twice": (twice("input"), "two inputs of one name"),
    "output twice": (twice("output"), "two outputs of one name"),
    "node twice": (twice("node"), "not valid ONNX"),
    "new opset": (model([], opsets={"": 99}, inputs=[value("x")], outputs=[value("y")]), "not valid ONNX|cannot load"),
    "old opset": (model([], opsets={"": 6}, inputs=[value("x")], outputs=[value("y")]), "made for ONNX opset 6"),
    "new IR": (model([], ir_version=99, inputs=[value("x")], outputs=[value("y")]), "not valid ONNX|cannot load"),
    "bfloat16": (unary("Identity", element=TensorProto.BFLOAT16), "is of type bfloat16, which no request can carry"),
    "scalar input": (unary("Identity", shape=[]), "the input 'x' has no batch axis"),
    "row for all": (flattened(), r"the output 'y' has the shape \[12\] for 3 rows"),
    "batch matters": (batch_norm_in_training(), "depends on the other rows"),
    "fixed batch": (
        model(
            [helper.make_node("Reshape", ["x", "shape"], ["y"])],
            inputs=[value("x", [1, WIDTH])],
            outputs=[value("y", [1, 2, 2])],
            initializers=[array("shape", np.array([2, 2], np.int64))],
        ),
        "for 1 rows|not 3 at once",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_reason_and_remedy(name: str, tmp_path: Path) -> None:
    made, reason = BAD[name]
    file = save(made, tmp_path / "bad.onnx")
    with pytest.raises(BundleError, match=reason) as refused:
        pack_imported(file, tmp_path / "bundle", name="bad", description=Description())
    assert refused.value.remedy
    assert "\n" not in str(refused.value)
    assert str(tmp_path) not in str(refused.value)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("made", [loop("three"), loop("counted"), nested(4)], ids=["constant", "by shape", "nested"])
def test_control_flow_that_ends_is_taken(made: onnx.ModelProto, tmp_path: Path) -> None:
    if made.graph.node[0].op_type == "Size":
        # The number of rounds follows the batch: a row's answer does, too.
        with pytest.raises(BundleError, match="depends on the other rows"):
            pack_imported(save(made, tmp_path / "x.onnx"), tmp_path / "bundle", name="x", description=Description())
        return
    pack_imported(save(made, tmp_path / "x.onnx"), tmp_path / "bundle", name="x", description=Description())


def test_a_file_beyond_protobuf_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "huge.onnx"
    with file.open("wb") as target:
        target.truncate(2**31)  # a hole: it takes no space
    with pytest.raises(BundleError, match="larger than 2 GB"):
        pack_imported(file, tmp_path / "bundle", name="huge", description=Description())
