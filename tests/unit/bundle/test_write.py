from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from yunmo.bundle.files import CONTENT, GRAPH, MANIFEST, SIGNATURE, bundle_digest
from yunmo.bundle.manifest import Manifest, Tensors
from yunmo.bundle.write import seal
from yunmo.core.errors import BundleError
from yunmo.core.fields import CategoryOutput, FieldStatistics, NumberField
from yunmo.core.recipe import DataSpec, Recipe

RECIPE = Recipe(
    data=DataSpec(train="train.csv"),
    inputs=(NumberField(name="age"),),
    outputs=(CategoryOutput(name="label", categories=("cat", "dog")),),
)


def seal_it(folder: Path) -> Manifest:
    statistics = {"age": FieldStatistics(name="age", type="number", role="input", encode_version=3, count=2)}
    return seal(folder, name="pets", recipe=RECIPE, statistics=statistics, tensors=Tensors(inputs=(), outputs=()))


def test_the_manifest_lists_every_file_with_its_hash(unsealed: Path) -> None:
    manifest = seal_it(unsealed)
    assert set(manifest.files) == set(CONTENT)
    for name, entry in manifest.files.items():
        data = (unsealed / name).read_bytes()
        assert (entry.sha256, entry.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert manifest.encode_versions == {"age": 3}
    assert {path.name for path in unsealed.iterdir()} == {*CONTENT, MANIFEST}


def test_sealing_is_deterministic_and_drops_an_old_signature(unsealed: Path) -> None:
    seal_it(unsealed)
    digest = bundle_digest(unsealed)
    (unsealed / SIGNATURE).touch()
    seal_it(unsealed)
    assert bundle_digest(unsealed) == digest
    assert digest == "sha256:" + hashlib.sha256((unsealed / MANIFEST).read_bytes()).hexdigest()
    assert not (unsealed / SIGNATURE).exists()


def test_a_missing_and_an_added_file_are_named(unsealed: Path) -> None:
    (unsealed / "notes.txt").touch()
    with pytest.raises(BundleError) as caught:
        seal_it(unsealed)
    assert caught.value.where == str(unsealed / "notes.txt")
    (unsealed / "notes.txt").rename(unsealed.parent / "notes.txt")
    (unsealed / GRAPH).unlink()
    with pytest.raises(BundleError) as caught:
        seal_it(unsealed)
    assert caught.value.where == str(unsealed / GRAPH)
