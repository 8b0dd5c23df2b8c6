"""Packing: from a trained network to a sealed bundle that is proved to answer the same."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from yunmo.bundle.files import CARD, GOLDEN, REPORT, REPORT_PAGE, SIGNATURE, WEIGHTS
from yunmo.bundle.manifest import Tensor, Tensors, joined_tensor
from yunmo.bundle.read import Golden
from yunmo.bundle.sign import new_key_pair, sign
from yunmo.bundle.write import seal
from yunmo.core.encoders import PretrainedEncoder, RnnEncoder
from yunmo.core.errors import BundleError, ParityError
from yunmo.core.fields import CategoryOutput, FieldStatistics, LabelsOutput, SequenceField, TextField
from yunmo.core.files import storage_errors, write_atomic
from yunmo.core.recipe import Recipe
from yunmo.data.fields.base import Field, TensorSpec, encode_rows
from yunmo.data.fields.number import join_numbers
from yunmo.data.fields.registry import open_field
from yunmo.inference.predictor import Predictor
from yunmo.models.answers import load_network
from yunmo.models.network import joined_numbers
from yunmo.packaging.bom import write_trained_bom
from yunmo.packaging.card import render_card
from yunmo.packaging.export import export_graph
from yunmo.packaging.parity import Reference, check_graph, check_serving
from yunmo.packaging.quantize import QuantizedReference, note_cost, quantize_graph
from yunmo.packaging.weights import write_graph


class Data(Protocol):
    """What packing needs of prepared data."""

    @property
    def statistics(self) -> dict[str, FieldStatistics]:
        """Of every field, by name."""

    @property
    def examples(self) -> Sequence[dict[str, Any]]:
        """A few raw rows that training did not see, JSON-able."""


Validation = tuple[Mapping[str, Any], Mapping[str, Any]]
"""Encoded inputs and outputs of the same rows, by tensor."""


def pack(
    prepared: Data,
    recipe: Recipe,
    weights: Path,
    report: dict[str, Any],
    report_html: str,
    out: Path,
    *,
    name: str,
    validation: Validation | None = None,
) -> Path:
    """Make a sealed, unsigned bundle of a trained network.

    The graph is exported, and held against the network on the golden examples: in ONNX Runtime alone and through the
    whole serving path from raw rows, at other batch sizes and sequence lengths. Only then is the bundle put in place.

    Args:
        prepared: the data that the network was trained on.
        recipe: resolved.
        weights: the kept network's ``weights.safetensors``.
        report: as JSON.
        report_html: as a page.
        out: folder to make; one that is there is replaced (a step that runs again gives the same).
        name: of the model.
        validation: encoded inputs and outputs of rows that were not trained on: what int8 costs is measured with them,
            and noted in ``report``.

    Returns:
        The folder.

    Raises:
        ParityError: the packed model would answer differently; nothing is left.
        BundleError: there is no example row, or the weights are not those of the recipe's network.
        StorageFull: the disk is full; nothing is left.
    """
    fields = {spec.name: open_field(spec, prepared.statistics[spec.name]) for spec in recipe.inputs or ()}
    rows = tuple({field: row[field] for field in fields} for row in prepared.examples)
    if not rows:
        raise BundleError("there is no row to make a golden example of", where="prepared data")
    numbers = joined_numbers(recipe.inputs or ())
    alone = encode_rows(fields, rows)
    encoded = join_numbers(alone, numbers)
    tensors = _tensors(recipe, fields, prepared.statistics, numbers)
    network = load_network(recipe, prepared.statistics, weights)
    reference = Reference(network, recipe.outputs or (), prepared.statistics)
    graph = export_graph(network, tensors, encoded)
    check_graph(reference, graph, tensors, encoded)
    answers = reference.answer(alone)
    if recipe.pack.precision == "int8":
        small = quantize_graph(graph)
        rounded = QuantizedReference(small, tensors, reference)
        note_cost(report, recipe, prepared.statistics, validation, reference, rounded, (len(graph), len(small)))
        graph, reference, answers = small, rounded, rounded.answer(encoded)
    golden = Golden(rows=rows, answers={key: value.tolist() for key, value in answers.items()})
    out.parent.mkdir(parents=True, exist_ok=True)
    with storage_errors(out), tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        folder = Path(scratch) / out.name
        folder.mkdir()
        write_graph(folder, graph)
        write_atomic(folder / WEIGHTS, weights.read_bytes())
        write_atomic(folder / GOLDEN, msgspec.json.encode(golden))
        write_atomic(folder / REPORT, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        write_atomic(folder / REPORT_PAGE, report_html.encode())
        card = render_card(
            name=name, recipe=recipe, statistics=prepared.statistics, report=report, tensors=tensors, golden=golden
        )
        write_atomic(folder / CARD, card.encode())
        write_trained_bom(folder, name=name, recipe=recipe, report=report, tensors=tensors)
        seal(folder, name=name, recipe=recipe, statistics=prepared.statistics, tensors=tensors)
        _check_opened(reference, folder, rows)
        _replace(folder, out)
    return out


def _tensors(
    recipe: Recipe, fields: Mapping[str, Field], statistics: Mapping[str, FieldStatistics], numbers: tuple[str, ...]
) -> Tensors:
    """Describe the graph's inputs and outputs; the length of a sequence is free where its encoder takes any."""
    inputs = [joined_tensor(numbers)] if numbers else []
    inputs += [
        _input(field, tensor) for name, field in fields.items() if name not in numbers for tensor in field.tensors()
    ]
    outputs = [
        Tensor(
            name=output.name,
            dtype="float32",
            shape=(len(output.categories or statistics[output.name].categories),)
            if isinstance(output, (CategoryOutput, LabelsOutput))
            else (),
        )
        for output in recipe.outputs or ()
    ]
    names = [tensor.name for tensor in (*inputs, *outputs)]
    for name in names:
        if names.count(name) > 1:
            raise BundleError(
                f"two tensors are called {name!r}", where=f"field {name}", remedy="Rename the field in the recipe"
            )
    return Tensors(inputs=tuple(inputs), outputs=tuple(outputs))


def _input(field: Field, tensor: TensorSpec) -> Tensor:
    shape = tensor.shape
    spec = field.spec
    free = (isinstance(spec, SequenceField) and isinstance(spec.encoder, RnnEncoder)) or (
        isinstance(spec, TextField) and isinstance(spec.encoder, PretrainedEncoder)
    )
    if free and tensor.name == spec.name:
        shape = (None, *shape[1:])
    return Tensor(name=tensor.name, dtype=tensor.dtype, shape=shape)


def _check_opened(reference: Reference, folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Open the bundle as serving will, under a key that is thrown away: there is no way to open an unsigned one."""
    private, public = new_key_pair()
    with tempfile.TemporaryDirectory() as scratch:
        key = Path(scratch) / "once.key"
        key.write_text(private)
        sign(folder, key)
    try:
        check_serving(reference, Predictor.open(folder, public_key_pem=public), rows)
    except ParityError:
        raise
    except BundleError as error:
        raise ParityError(error.message, where=error.where) from error
    (folder / SIGNATURE).unlink()


def _replace(folder: Path, out: Path) -> None:
    if out.exists():
        out.rename(folder.parent / "replaced")  # goes with the scratch folder
    folder.rename(out)
