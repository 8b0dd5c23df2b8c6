"""Opening a bundle: it is verified, and then every byte that is used is held against the manifest once more."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from yunmo.bundle.files import GOLDEN, GRAPH, GRAPH_WEIGHTS, RECIPE, REPORT, STATISTICS, bundle_digest
from yunmo.bundle.manifest import Manifest, not_readable
from yunmo.bundle.verify import verify
from yunmo.core.errors import IntegrityError, RecipeError
from yunmo.core.fields import FieldStatistics
from yunmo.core.files import file_digest
from yunmo.core.recipe import Recipe, parse_recipe
from yunmo.core.schema import Spec


class Golden(Spec, frozen=True):
    """A few raw rows and what the model answers to them."""

    rows: tuple[dict[str, Any], ...]
    """Raw inputs by field, as a request holds them."""
    answers: dict[str, list[Any]]
    """By output, for each row: probabilities in the order of the categories, a number, or a tensor."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle."""

    folder: Path
    manifest: Manifest
    digest: str
    recipe: Recipe | None
    """None of a model that was imported as an ONNX file."""
    statistics: dict[str, FieldStatistics]
    golden: Golden

    @cached_property
    def report(self) -> dict[str, Any]:
        """The report as JSON; it is read when it is asked for, which prediction never does."""
        report: dict[str, Any] = _decode(self.folder, self.manifest, REPORT, dict[str, Any])
        return report

    def read(self, name: str) -> bytes:
        """Return a file's bytes; they are the signed ones even if the file changes after it was verified.

        Raises:
            IntegrityError: it changed.
        """
        return _read(self.folder, self.manifest, name)

    @property
    def mapped(self) -> Path | None:
        """The folder whose `GRAPH_WEIGHTS` the graph's weights are; None: they are in the graph.

        ONNX Runtime maps that file, so that all processes that run the model share one copy. So its bytes are the
        signed ones when the bundle is verified, and it is up to the file's permissions that they stay so
        (`yunmo.bundle.archive.unpack` says what those do and what remains).
        """
        return self.folder.resolve() if GRAPH_WEIGHTS in self.manifest.files else None

    def read_graph(self) -> bytes:
        """Return the graph to load it once more, after its weights were held against the manifest once more.

        Raises:
            IntegrityError: one of both changed.
        """
        if self.mapped and file_digest(self.folder / GRAPH_WEIGHTS) != self.manifest.files[GRAPH_WEIGHTS].sha256:
            raise IntegrityError("changed after it was verified", where=GRAPH_WEIGHTS)
        return self.read(GRAPH)


def open_bundle(folder: Path, public_key_pem: str) -> Bundle:
    """Verify and read a bundle.

    Raises:
        IntegrityError: as `verify`.
        BundleError: as `verify`, or a part is not of the bundle's format.
    """
    manifest = verify(folder, public_key_pem)
    return Bundle(
        folder=folder,
        manifest=manifest,
        digest=bundle_digest(folder),
        recipe=_recipe(folder, manifest) if manifest.origin == "trained" else None,
        statistics=_decode(folder, manifest, STATISTICS, dict[str, FieldStatistics]),
        golden=_decode(folder, manifest, GOLDEN, Golden),
    )


def _read(folder: Path, manifest: Manifest, name: str) -> bytes:
    data = (folder / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != manifest.files[name].sha256:
        raise IntegrityError("changed while it was read", where=name)
    return data


def _recipe(folder: Path, manifest: Manifest) -> Recipe:
    try:
        return parse_recipe(_read(folder, manifest, RECIPE).decode(), where=RECIPE)
    except (RecipeError, UnicodeDecodeError) as error:
        raise not_readable(str(error), RECIPE, manifest.yunmo_version) from None


def _decode(folder: Path, manifest: Manifest, name: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(_read(folder, manifest, name), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise not_readable(str(error), name, manifest.yunmo_version) from None
