from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from tests.fixtures.onnx_files import linear, save
from tests.unit.packaging.conftest import NETWORKS, Trained

from yunmo.bundle.files import BOM, GRAPH
from yunmo.bundle.sign import new_key_pair, sign
from yunmo.bundle.verify import verify
from yunmo.core.errors import IntegrityError
from yunmo.core.files import file_digest
from yunmo.packaging.imported.description import description_from
from yunmo.packaging.imported.pack import pack_imported
from yunmo.packaging.pack import pack

Make = Callable[..., Trained]
DIGEST = "ab" * 32


def schema(name: str) -> dict[str, Any]:
    """Return a schema as the CycloneDX library ships it."""
    text = resources.files("cyclonedx.schema").joinpath("_res", f"{name}.SNAPSHOT.schema.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


def checked(folder: Path) -> dict[str, Any]:
    """Return a folder's bill, held against the schema; nothing is fetched."""

    def refuse(uri: str) -> Any:
        raise AssertionError(f"{uri} would be fetched")

    names = ("spdx", "jsf-0.82", "cryptography-defs")
    others = [(f"http://cyclonedx.org/schema/{name}.SNAPSHOT.schema.json", schema(name)) for name in names]
    validator = jsonschema_rs.Draft7Validator(
        schema("bom-1.6"),
        registry=jsonschema_rs.Registry(others, retriever=refuse, draft=jsonschema_rs.Draft7),
        validate_formats=True,
    )
    found: dict[str, Any] = json.loads((folder / BOM).read_bytes())
    assert [error.message for error in validator.iter_errors(found)] == []
    assert [*validator.iter_errors({**found, "bomFormat": "another"})]
    return found


def trained_bundle(trained: Trained, out: Path) -> Path:
    data = msgspec.structs.replace(trained.recipe.data, digests={"train": f"sha256:{DIGEST}"})
    recipe = msgspec.structs.replace(trained.recipe, data=data)
    report = {**trained.report, "verdicts": {"label": {"sentence": "A linear model is as good: use it"}}}
    return pack(trained, recipe, trained.weights, report, "<!doctype html>", out, name="pets")


@pytest.mark.parametrize("kind", ["cnn", "table", "gru"])
def test_a_trained_models_bill_says_what_it_is_made_of(make: Make, tmp_path: Path, kind: str) -> None:
    inputs, outputs = NETWORKS[kind]
    trained = make(*inputs, outputs=outputs)
    folder = trained_bundle(trained, tmp_path / "bundle")
    bill = checked(folder)
    model = bill["metadata"]["component"]
    assert (model["type"], model["name"]) == ("machine-learning-model", "pets")
    files = {part["name"]: part["hashes"][0]["content"] for part in model["components"]}
    assert files[GRAPH] == file_digest(folder / GRAPH)
    card = model["modelCard"]
    assert card["modelParameters"]["task"] == trained.report["task"]
    assert len(card["modelParameters"]["outputs"]) == len(outputs)
    assert card["considerations"]["technicalLimitations"] == ["A linear model is as good: use it"]
    [data] = [part for part in bill["components"] if part["type"] == "data"]
    assert card["modelParameters"]["datasets"] == [{"ref": data["bom-ref"]}]
    assert (data["name"], data["hashes"]) == ("pets.csv", [{"alg": "SHA-256", "content": DIGEST}])
    metrics = {(one["slice"], one["type"]): one["value"] for one in card["quantitativeAnalysis"]["performanceMetrics"]}
    for output in outputs:
        metric = "accuracy" if output.name == "label" else "rmse"
        found = metrics[f"{output.name}, test rows", metric]
        assert float(found) == pytest.approx(trained.report["test"][output.name][metric], rel=1e-5)
    libraries = {part["name"] for part in bill["components"] if part["type"] == "library"}
    assert {"yunmo", "torch", "onnxruntime"} <= libraries
    assert bill["dependencies"][0]["dependsOn"] == [part["bom-ref"] for part in bill["components"]]


def test_the_same_model_has_the_same_bill_and_it_is_signed(make: Make, tmp_path: Path) -> None:
    trained = make(*NETWORKS["table"][0])
    one, other = (trained_bundle(trained, tmp_path / name) for name in ("one", "other"))
    assert (one / BOM).read_bytes() == (other / BOM).read_bytes()
    private, public = new_key_pair()
    key = tmp_path / "key"
    key.write_text(private)
    sign(one, key)
    assert BOM in verify(one, public).files
    (one / BOM).write_bytes((one / BOM).read_bytes().replace(b"pets", b"cats"))
    with pytest.raises(IntegrityError, match=BOM):
        verify(one, public)


def test_an_imported_models_bill_names_its_file(tmp_path: Path) -> None:
    file = save(linear(), tmp_path / "elsewhere.onnx")
    pack_imported(file, tmp_path / "bundle", name="elsewhere", description=description_from({}))
    bill = checked(tmp_path / "bundle")
    [source] = [part for part in bill["components"] if part["type"] == "file"]
    assert (source["name"], source["hashes"][0]["content"]) == ("elsewhere.onnx", file_digest(file))
    parameters = bill["metadata"]["component"]["modelCard"]["modelParameters"]
    assert parameters == {
        "inputs": [{"format": "x: float32 [rows, 4]"}],
        "outputs": [{"format": "scores: float32 [rows, 3]"}],
    }
    assert "torch" not in {part["name"] for part in bill["components"]}
