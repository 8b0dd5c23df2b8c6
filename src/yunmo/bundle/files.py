"""The names of a bundle's files, and the digests that name what is in them."""

from __future__ import annotations

import hashlib
from pathlib import Path

MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
GRAPH = "graph.onnx"
WEIGHTS = "weights.safetensors"
STATISTICS = "statistics.json"
RECIPE = "recipe.yaml"
GOLDEN = "golden.json"
REPORT = "report.json"
REPORT_PAGE = "report.html"
CARD = "README.md"

CONTENT = (GRAPH, WEIGHTS, STATISTICS, RECIPE, GOLDEN, REPORT, REPORT_PAGE, CARD)
"""Every file that the manifest lists; the manifest and the signature over all of them come on top."""


def file_digest(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bundle_digest(folder: Path) -> str:
    """Return the digest that names a bundle: ``sha256:`` and the SHA-256 of its manifest, which lists all the rest."""
    return f"sha256:{file_digest(folder / MANIFEST)}"
