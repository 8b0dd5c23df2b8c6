"""Sealing: the last files of a bundle are written and the manifest lists every one with its hash."""

from __future__ import annotations

from pathlib import Path

import msgspec

from yunmo import __version__
from yunmo.bundle.files import (
    CONTENT,
    IMPORTED_CONTENT,
    MANIFEST,
    OPTIONAL_CONTENT,
    RECIPE,
    SIGNATURE,
    STATISTICS,
)
from yunmo.bundle.manifest import FileEntry, Manifest, Origin, Tensors, encode_manifest, format_version_of
from yunmo.core.errors import BundleError
from yunmo.core.fields import FieldStatistics, ModelInput, ModelOutput
from yunmo.core.files import file_digest, write_atomic
from yunmo.core.recipe import Recipe, dump_recipe


def seal(
    folder: Path, *, name: str, recipe: Recipe, statistics: dict[str, FieldStatistics], tensors: Tensors
) -> Manifest:
    """Write statistics, recipe and manifest into a folder that holds the other files; a signature there is removed.

    Args:
        folder: holds graph (a large one's weights beside it), weights, golden examples, report (two forms) and card,
            and nothing else.
        name: the model's name.
        recipe: resolved; its inputs and outputs are those of the model.
        statistics: of every input and output.
        tensors: of the graph.

    Raises:
        BundleError: a file is missing, or one that is none of a bundle's is there.
        StorageFull: the disk is full.
    """
    write_atomic(folder / RECIPE, dump_recipe(recipe).encode())
    inputs, outputs = recipe.inputs or (), recipe.outputs or ()
    return _seal(folder, CONTENT, "trained", name, inputs, outputs, statistics, tensors)


def seal_imported(
    folder: Path,
    *,
    name: str,
    inputs: tuple[ModelInput, ...],
    outputs: tuple[ModelOutput, ...],
    statistics: dict[str, FieldStatistics],
    tensors: Tensors,
) -> Manifest:
    """Seal the bundle of an imported ONNX file, which has neither recipe nor weights; otherwise as `seal`."""
    return _seal(folder, IMPORTED_CONTENT, "imported", name, inputs, outputs, statistics, tensors)


def _seal(
    folder: Path,
    content: tuple[str, ...],
    origin: Origin,
    name: str,
    inputs: tuple[ModelInput, ...],
    outputs: tuple[ModelOutput, ...],
    statistics: dict[str, FieldStatistics],
    tensors: Tensors,
) -> Manifest:
    (folder / SIGNATURE).unlink(missing_ok=True)
    write_atomic(folder / STATISTICS, msgspec.json.format(msgspec.json.encode(statistics), indent=2) + b"\n")
    present = {entry.name for entry in folder.iterdir()} - {MANIFEST}
    content = (*content, *(name for name in OPTIONAL_CONTENT if name in present))
    for missing in sorted(set(content) - present):
        raise BundleError("a bundle needs this file", where=str(folder / missing))
    for added in sorted(present - set(content)):
        raise BundleError("no file of a bundle", where=str(folder / added), remedy="Remove it")
    manifest = Manifest(
        format_version=format_version_of(content, tensors),
        yunmo_version=__version__,
        name=name,
        inputs=inputs,
        outputs=outputs,
        tensors=tensors,
        encode_versions={field: one.encode_version for field, one in statistics.items()},
        files={
            file: FileEntry(sha256=file_digest(folder / file), size=(folder / file).stat().st_size)
            for file in sorted(content)
        },
        origin=origin,
    )
    write_atomic(folder / MANIFEST, encode_manifest(manifest))
    return manifest
