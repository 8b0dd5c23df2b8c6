"""Sealing: the last files of a bundle are written and the manifest lists every one with its hash."""

from __future__ import annotations

from pathlib import Path

import msgspec

from yunmo import __version__
from yunmo.bundle.files import (
    CONTENT,
    MANIFEST,
    RECIPE,
    SIGNATURE,
    STATISTICS,
    file_digest,
)
from yunmo.bundle.manifest import FORMAT_VERSION, FileEntry, Manifest, Tensors, encode_manifest
from yunmo.core.errors import BundleError
from yunmo.core.fields import FieldStatistics
from yunmo.core.files import write_atomic
from yunmo.core.recipe import Recipe, dump_recipe


def seal(
    folder: Path, *, name: str, recipe: Recipe, statistics: dict[str, FieldStatistics], tensors: Tensors
) -> Manifest:
    """Write statistics, recipe and manifest into a folder that holds the other files; a signature there is removed.

    Args:
        folder: holds graph, weights, golden examples, report (two forms) and card, and nothing else.
        name: the model's name.
        recipe: resolved; its inputs and outputs are those of the model.
        statistics: of every input and output.
        tensors: of the graph.

    Raises:
        BundleError: a file is missing, or one that is none of a bundle's is there.
        StorageFull: the disk is full.
    """
    (folder / SIGNATURE).unlink(missing_ok=True)
    write_atomic(folder / STATISTICS, msgspec.json.format(msgspec.json.encode(statistics), indent=2) + b"\n")
    write_atomic(folder / RECIPE, dump_recipe(recipe).encode())
    present = {entry.name for entry in folder.iterdir()} - {MANIFEST}
    for missing in sorted(set(CONTENT) - present):
        raise BundleError("a bundle needs this file", where=str(folder / missing))
    for added in sorted(present - set(CONTENT)):
        raise BundleError("no file of a bundle", where=str(folder / added), remedy="Remove it")
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        yunmo_version=__version__,
        name=name,
        inputs=recipe.inputs or (),
        outputs=recipe.outputs or (),
        tensors=tensors,
        encode_versions={field: one.encode_version for field, one in statistics.items()},
        files={
            file: FileEntry(sha256=file_digest(folder / file), size=(folder / file).stat().st_size)
            for file in sorted(CONTENT)
        },
    )
    write_atomic(folder / MANIFEST, encode_manifest(manifest))
    return manifest
