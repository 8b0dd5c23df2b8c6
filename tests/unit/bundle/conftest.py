from __future__ import annotations

from pathlib import Path

import pytest

from yunmo.bundle.files import CONTENT, RECIPE, STATISTICS
from yunmo.bundle.manifest import Tensor, Tensors
from yunmo.bundle.sign import new_key_pair, sign
from yunmo.bundle.write import seal
from yunmo.core.fields import CategoryOutput, FieldStatistics, NumberField
from yunmo.core.recipe import DataSpec, Recipe

RECIPE_OF_TEST = Recipe(
    name="pets",
    data=DataSpec(train="train.csv"),
    inputs=(NumberField(name="age"),),
    outputs=(CategoryOutput(name="label", categories=("cat", "dog")),),
)
STATISTICS_OF_TEST = {
    "age": FieldStatistics(name="age", type="number", role="input", encode_version=1, count=2, mean=(0.1,)),
    "label": FieldStatistics(name="label", type="category", role="output", encode_version=1, count=2),
}
TENSORS_OF_TEST = Tensors(
    inputs=(Tensor(name="age", dtype="float32", shape=()),),
    outputs=(Tensor(name="label", dtype="float32", shape=(2,)),),
)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, str]:
    """A private key's path and its public key."""
    private, public = new_key_pair()
    path = tmp_path / "signing.key"
    path.write_text(private)
    return path, public


@pytest.fixture
def unsealed(tmp_path: Path) -> Path:
    """The files that packaging writes before it seals."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in CONTENT:
        if name not in (RECIPE, STATISTICS):
            (folder / name).write_bytes(b'{"rows": [{"age": 1}], "answers": {"label": [[0.5, 0.5]]}}')
    return folder


@pytest.fixture
def sealed(unsealed: Path) -> Path:
    seal(unsealed, name="pets", recipe=RECIPE_OF_TEST, statistics=STATISTICS_OF_TEST, tensors=TENSORS_OF_TEST)
    return unsealed


@pytest.fixture
def signed(sealed: Path, keys: tuple[Path, str]) -> Path:
    sign(sealed, keys[0])
    return sealed
