"""The names of a bundle's files, and the digests that name what is in them."""

from __future__ import annotations

from pathlib import Path

from yunmo.core.files import file_digest

MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
GRAPH = "graph.onnx"
GRAPH_WEIGHTS = "graph.bin"
WEIGHTS = "weights.safetensors"
STATISTICS = "statistics.json"
RECIPE = "recipe.yaml"
GOLDEN = "golden.json"
REPORT = "report.json"
REPORT_PAGE = "report.html"
CARD = "README.md"
BOM = "bom.json"

CONTENT = (GRAPH, WEIGHTS, STATISTICS, RECIPE, GOLDEN, REPORT, REPORT_PAGE, CARD)
"""Every file that the manifest lists; the manifest and the signature over all of them come on top."""

IMPORTED_CONTENT = (GRAPH, STATISTICS, GOLDEN, REPORT, REPORT_PAGE, CARD)
"""The same for a model that was imported as an ONNX file."""

OPTIONAL_CONTENT = (GRAPH_WEIGHTS, BOM)
"""Beside those: the weights of a graph that is too large to hold them itself; the bill of materials, which packing
always writes, and which bundles of format 3 and before do not have."""


def bundle_digest(folder: Path) -> str:
    """Return the digest that names a bundle: ``sha256:`` and the SHA-256 of its manifest, which lists all the rest."""
    return f"sha256:{file_digest(folder / MANIFEST)}"
