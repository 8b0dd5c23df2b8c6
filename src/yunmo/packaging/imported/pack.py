"""Making a bundle of an ONNX file: checked, joined with its fields, tried, and sealed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types
from onnx import helper

from yunmo.bundle.files import CARD, GOLDEN, REPORT, REPORT_PAGE
from yunmo.bundle.manifest import Tensor, Tensors, joined_tensor
from yunmo.bundle.read import Golden
from yunmo.bundle.write import seal_imported
from yunmo.core import fields as specs
from yunmo.core.errors import BundleError
from yunmo.core.fields import ModelOutput
from yunmo.core.files import write_atomic
from yunmo.data.fields.base import Field
from yunmo.data.fields.registry import open_field
from yunmo.data.fields.tensor import plain_tensor
from yunmo.inference.session import Session
from yunmo.packaging.bom import write_imported_bom
from yunmo.packaging.imported import description as says
from yunmo.packaging.imported.card import Origin, render_card, render_page
from yunmo.packaging.imported.compose import Fields, compose
from yunmo.packaging.imported.graph import BATCH, Graph
from yunmo.packaging.imported.safety import MAX_SIZE, check, first_line, load
from yunmo.packaging.imported.tensors import describe_inputs, output_info
from yunmo.packaging.imported.trial import BatchMatters, Tried, check_probabilities, try_graph
from yunmo.packaging.weights import write_graph

_ONLY_FATAL = 4
_FREE_BATCH = (
    "Export it with a free first axis: torch.onnx.export(…, dynamic_shapes={'x': {0: 'batch'}}); "
    "tf2onnx with an input signature of (None, …); skl2onnx with [None, …]"
)


@dataclass(frozen=True)
class _Composed:
    """A graph that takes fields, and what trying it showed."""

    model: bytes
    fields: Fields
    tensors: Tensors
    tried: Tried
    notes: tuple[str, ...]


def pack_imported(path: Path, folder: Path, *, name: str, description: says.Description) -> None:
    """Make a sealed, unsigned bundle of an ONNX file.

    Args:
        path: the file. It is not trusted: run this in a process with limits on memory and time.
        folder: made here.
        name: of the model.
        description: how its tensors are fields.

    Raises:
        BundleError: the file is refused; the reason and what to do about it.
        InvalidInput: the description does not fit the file.
    """
    source = load(path)
    check(source)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    composed = _compose(source, description)
    origin = Origin.of(source, path.name, digest, path.stat().st_size)
    folder.mkdir(parents=True)
    write_graph(folder, composed.model)
    golden = Golden(
        rows=composed.tried.rows,
        answers={output: plain_tensor(array) for output, array in composed.tried.answers.items()},
    )
    write_atomic(folder / GOLDEN, msgspec.json.encode(golden))
    report = _report(name, origin, composed, description)
    write_atomic(folder / REPORT, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    card = render_card(name, origin, composed.fields, composed.tensors, golden, composed.notes)
    write_atomic(folder / CARD, card.encode())
    write_atomic(folder / REPORT_PAGE, render_page(name, card).encode())
    write_imported_bom(folder, name=name, origin=origin, tensors=composed.tensors)
    seal_imported(
        folder,
        name=name,
        inputs=composed.fields.inputs,
        outputs=composed.fields.outputs,
        statistics=composed.fields.statistics,
        tensors=composed.tensors,
    )


def _compose(source: onnx.ModelProto, description: says.Description) -> _Composed:
    """Join and try the graph as it is; a fixed batch size is made free, at first by its inputs alone."""
    problem: BatchMatters | None = None
    for way in ("as it is", "free inputs", "free inputs and reshapes"):
        model = onnx.ModelProto()
        model.CopyFrom(source)
        graph = Graph(model)
        graph.tidy()
        _require_shapes(graph, description)
        inputs = describe_inputs(graph)
        fixed = graph.has_fixed_batch()
        if fixed != (way != "as it is"):
            if problem is not None:
                break
            continue
        if fixed:
            graph.free_batch(reshapes="reshapes" in way)
            graph.notes.append("its batch axis was fixed and is free now; batches of 1 and 3 rows answer the same")
        try:
            return _join(graph, inputs, description)
        except BatchMatters as error:
            problem = error
    if problem is None:
        raise BundleError("the graph's batch axis could not be read", remedy=_FREE_BATCH)
    raise BundleError(problem.message, remedy=_FREE_BATCH)


def _join(graph: Graph, inputs: dict[str, Any], description: says.Description) -> _Composed:
    outputs = {node.name: output_info(node.name, node.type, node.shape) for node in _loaded(graph.model).get_outputs()}
    fields = compose(graph, inputs, outputs, description)
    data = _serialized(graph.model)
    opened = {spec.name: open_field(spec, fields.statistics[spec.name]) for spec in fields.inputs}
    statistics = {
        name: msgspec.structs.replace(one, encode_version=opened[name].ENCODE_VERSION) if name in opened else one
        for name, one in fields.statistics.items()
    }
    joined = fields.joined
    takes = tuple(_tensor(field) for name, field in opened.items() if name not in joined)
    if joined:
        takes = (joined_tensor(joined), *takes)
    session = _session(data, Tensors(inputs=takes, outputs=tuple(_answer(one, ()) for one in fields.outputs)))
    tried = try_graph(session, opened, joined, description.examples)
    answers = tuple(_shaped(output, tried) for output in fields.outputs)
    gives = tuple(_answer(output, tried.answers[output.name].shape[1:]) for output in answers)
    for output in answers:
        if isinstance(output, specs.CategoryOutput):
            check_probabilities(output.name, tried.answers[output.name])
        if isinstance(output, specs.NumberOutput):
            deviation = float(tried.answers[output.name].std())
            statistics[output.name] = msgspec.structs.replace(statistics[output.name], deviation=(deviation,))
    return _Composed(
        model=data,
        fields=Fields(fields.inputs, answers, statistics, joined),
        tensors=Tensors(inputs=takes, outputs=gives),
        tried=tried,
        notes=tuple(graph.notes),
    )


def _session(data: bytes, tensors: Tensors) -> Session:
    try:
        return Session(data, tensors, threads=1)
    except BundleError as error:
        raise BundleError(first_line(error.message), remedy="Import a smaller or simpler model") from None


def _require_shapes(graph: Graph, description: says.Description) -> None:
    """Give inputs whose shape the graph does not tell the one that the description does."""
    for value in graph.proto.input:
        if value.type.tensor_type.HasField("shape"):
            continue
        said = next(
            (
                one.shape
                for one in description.inputs or ()
                if isinstance(one, says.TensorInput) and value.name in (one.tensor, one.name)
            ),
            None,
        )
        if said is None:
            raise BundleError(
                f"the graph does not tell the shape of its input {value.name[:100]!r}",
                remedy="Describe it in a fields file: {name: x, type: tensor, shape: [3, null]}, without the batch",
            )
        element = value.type.tensor_type.elem_type
        value.CopyFrom(helper.make_tensor_value_info(value.name, element, [BATCH, *said]))


def _loaded(model: onnx.ModelProto) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = _ONLY_FATAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(_serialized(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes share no base but Exception
        raise BundleError(
            f"ONNX Runtime {ort.__version__} cannot load it: {first_line(error)}",
            remedy="Export it for an ONNX opset that it knows (up to 23, say), with standard operators",
        ) from None


def _serialized(model: onnx.ModelProto) -> bytes:
    with contextlib.suppress(ValueError):
        data: bytes = model.SerializeToString(deterministic=True)
        if len(data) <= MAX_SIZE:
            return data
    raise BundleError("larger than 2 GB with its fields", remedy="Import a smaller model")


def _tensor(field: Field) -> Tensor:
    (one,) = field.tensors()
    return Tensor(name=one.name, dtype=one.dtype, shape=one.shape)


def _answer(output: ModelOutput, shape: tuple[int, ...]) -> Tensor:
    if isinstance(output, specs.TensorOutput):
        return Tensor(name=output.name, dtype=output.datatype, shape=output.shape)
    return Tensor(name=output.name, dtype="float32", shape=shape)


def _shaped(output: ModelOutput, tried: Tried) -> ModelOutput:
    """Give a tensor output the shape that was seen; axes that the graph leaves open stay so if inputs' axes are."""
    if not isinstance(output, specs.TensorOutput):
        return output
    seen = tried.answers[output.name].shape[1:]
    declared = output.shape if len(output.shape) == len(seen) else (None,) * len(seen)
    shape = tuple(
        None if size is None and tried.free is not None else found for size, found in zip(declared, seen, strict=True)
    )
    return msgspec.structs.replace(output, shape=shape)


def _report(name: str, origin: Origin, composed: _Composed, description: says.Description) -> dict[str, Any]:
    return {
        "name": name,
        "origin": "imported",
        "file": msgspec.to_builtins(origin),
        "description": msgspec.to_builtins(description),
        "checks": list(_checks(composed)),
        "notes": list(composed.notes),
        "summary": {},
    }


def _checks(composed: _Composed) -> Iterator[str]:
    yield "one file: no weights elsewhere, only operators of ONNX Runtime's own build, no random ones"
    yield f"loaded and run by ONNX Runtime {ort.__version__} on the CPU, with one thread"
    made = "made-up rows" if not composed.tried.rows else f"{len(composed.tried.rows)} golden rows"
    yield f"{made}: each answered alone, together and again, with the same answers"
    yield "not checked: whether the answers are right. `yunmo evaluate` measures that, on data with known answers"
