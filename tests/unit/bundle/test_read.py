from __future__ import annotations

import json
from pathlib import Path

import pytest

from yunmo.bundle.files import GOLDEN, GRAPH, MANIFEST, RECIPE, REPORT, STATISTICS, bundle_digest
from yunmo.bundle.read import open_bundle
from yunmo.bundle.sign import sign
from yunmo.core.errors import BundleError, IntegrityError
from yunmo.core.files import file_digest


def test_what_was_sealed_is_read_back(signed: Path, keys: tuple[Path, str]) -> None:
    bundle = open_bundle(signed, keys[1])
    assert bundle.recipe.outputs == bundle.manifest.outputs
    assert bundle.statistics["age"].mean == (0.1,)
    assert bundle.golden.rows == ({"age": 1},)
    assert bundle.golden.answers == {"label": [[0.5, 0.5]]}
    assert bundle.digest == bundle_digest(signed)
    assert bundle.read(GRAPH) == (signed / GRAPH).read_bytes()


def test_a_file_that_changes_after_it_was_verified_is_not_used(signed: Path, keys: tuple[Path, str]) -> None:
    bundle = open_bundle(signed, keys[1])
    (signed / GRAPH).write_bytes(b"other")
    with pytest.raises(IntegrityError) as caught:
        bundle.read(GRAPH)
    assert caught.value.where == GRAPH


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (GOLDEN, b"[]"),
        (GOLDEN, b"\xff"),
        (STATISTICS, b'{"age": {"name": "age", "smell": 1}}'),
        (RECIPE, b"data: {train: a.csv}\nsmell: 1"),
        (RECIPE, b"\xff"),
    ],
)
def test_a_signed_part_that_only_a_newer_yunmo_reads_is_refused(
    signed: Path, keys: tuple[Path, str], name: str, content: bytes
) -> None:
    manifest = json.loads((signed / MANIFEST).read_bytes())
    (signed / name).write_bytes(content)
    manifest["files"][name] = {"sha256": file_digest(signed / name), "size": len(content)}
    (signed / MANIFEST).write_text(json.dumps(manifest))
    sign(signed, keys[0])
    with pytest.raises(BundleError, match="upgrade") as caught:
        open_bundle(signed, keys[1])
    assert caught.value.where == name
    assert not isinstance(caught.value, IntegrityError)


def test_the_report_is_read_when_asked_for(signed: Path, keys: tuple[Path, str]) -> None:
    bundle = open_bundle(signed, keys[1])
    assert bundle.report["rows"] == [{"age": 1}]
    (signed / REPORT).write_bytes(b"{}")
    assert bundle.report["rows"] == [{"age": 1}]
    with pytest.raises(IntegrityError):
        bundle.read(REPORT)
