"""The manifest: what a bundle is, what it takes and answers, and the SHA-256 of each of its files."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Literal

import msgspec

from yunmo import __version__
from yunmo.bundle.files import BOM, GRAPH_WEIGHTS, MANIFEST
from yunmo.core.errors import BundleError
from yunmo.core.fields import JOINED_NUMBERS, ModelInput, ModelOutput
from yunmo.core.schema import Spec

FORMAT_VERSION = 4
"""Version of the bundle's format. A bundle with a higher one comes from a newer Yunmo.

1: trained models. 2: ``origin``, and the tensor fields of imported ones. 3: a large graph's weights in a file of their
own. 4: a bill of materials, and number fields that share a tensor. A bundle says the lowest one that has all it needs
(`format_version_of`).
"""
_WITH_WEIGHTS, _PLAIN = 3, 2
_LONGEST = 300
"""Characters of a reason, which may quote what is in the file."""

Origin = Literal["trained", "imported"]


class Tensor(Spec, frozen=True):
    """One named input or output of the graph."""

    name: str
    dtype: str
    """Name of the numpy type (``uint8``, ``int64``, ``float32``, …), or ``string``."""
    shape: tuple[int | None, ...]
    """Shape without the batch; None: any length."""
    columns: tuple[str, ...] = ()
    """The number fields whose values it has side by side; none: it is one field's own."""

    @property
    def sizes(self) -> str:
        """The shape for a person, such as ``rows, any, 3``."""
        return ", ".join(["rows", *("any" if size is None else str(size) for size in self.shape)])


def joined_tensor(columns: tuple[str, ...]) -> Tensor:
    """Return the tensor in which a graph takes these number fields at once."""
    return Tensor(name=JOINED_NUMBERS, dtype="float32", shape=(len(columns),), columns=columns)


class Tensors(Spec, frozen=True):
    """The inputs and outputs of the graph. A batch comes first in the shape of each."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def joined(self) -> tuple[str, ...]:
        """The number fields that the graph takes in one tensor; none: each comes in its own."""
        return next((tensor.columns for tensor in self.inputs if tensor.columns), ())


class FileEntry(Spec, frozen=True):
    """One file of the bundle."""

    sha256: str
    size: int


class Manifest(Spec, frozen=True):
    """What ``manifest.json`` holds."""

    format_version: int
    yunmo_version: str
    name: str
    inputs: tuple[ModelInput, ...]
    outputs: tuple[ModelOutput, ...]
    tensors: Tensors
    encode_versions: dict[str, int]
    """By field: the version of the code that turns raw values into tensors."""
    files: dict[str, FileEntry]
    """Every file of the bundle but the manifest and the signature."""
    origin: Origin = "trained"
    """Made by a run, or of an ONNX file from elsewhere: that has no recipe and no weights beside its graph."""


def format_version_of(files: Container[str], tensors: Tensors) -> int:
    """Return the format version of a bundle of these files, whose graph has these tensors."""
    if BOM in files or tensors.joined:
        return FORMAT_VERSION
    return _WITH_WEIGHTS if GRAPH_WEIGHTS in files else _PLAIN


def encode_manifest(manifest: Manifest) -> bytes:
    """Return a manifest as indented JSON, the same bytes for the same manifest."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2) + b"\n"


def decode_manifest(data: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        BundleError: made by a newer Yunmo, or no manifest.
    """
    try:
        document: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"not JSON: {error}", where=MANIFEST) from None
    if not isinstance(document, dict):
        raise BundleError("not a manifest", where=MANIFEST)
    version, made_by = document.get("format_version"), str(document.get("yunmo_version"))
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise BundleError(
            f"made by Yunmo {made_by} (bundle format {version}); this Yunmo reads up to format {FORMAT_VERSION}",
            where=MANIFEST,
            remedy="Upgrade Yunmo: pip install --upgrade yunmo",
        )
    try:
        return msgspec.convert(document, Manifest)
    except msgspec.ValidationError as error:
        raise not_readable(str(error), MANIFEST, made_by) from None


def not_readable(why: str, name: str, made_by: str) -> BundleError:
    """Make the error for a signed file that this Yunmo cannot read, which is mostly one of a newer Yunmo."""
    return BundleError(
        f"this Yunmo cannot read it: {why[:_LONGEST]}",
        where=name,
        remedy=f"It was made by Yunmo {made_by} and this is {__version__}: upgrade if that is newer, or train again",
    )
