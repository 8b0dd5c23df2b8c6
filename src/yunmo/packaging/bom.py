"""The bill of materials of a bundle: CycloneDX 1.6 (ECMA-424) with a model card, its data and the software it took.

The document depends on what was packed only (no time of its own, a serial number made of its content), so that a step
that runs again gives the same bundle.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

import msgspec

from yunmo import __version__
from yunmo.bundle.files import BOM, CARD, GOLDEN, GRAPH, GRAPH_WEIGHTS, STATISTICS, WEIGHTS
from yunmo.bundle.manifest import Tensor, Tensors
from yunmo.core.fields import TextField
from yunmo.core.files import file_digest, write_atomic
from yunmo.core.recipe import Recipe, pretrained_encoders
from yunmo.core.tokenizers import LanguageRules
from yunmo.packaging.imported.card import Origin
from yunmo.training.report import metric_names

SPEC_VERSION = "1.6"
_MODEL = "model"
_FILES = (GRAPH, GRAPH_WEIGHTS, WEIGHTS, STATISTICS, GOLDEN, CARD)
_TRAINING = (
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "pillow",
    "safetensors",
    "scikit-learn",
    "simplejpeg",
    "torch",
)
_FINE_TUNING = ("peft", "tokenizers", "transformers")
_IMPORTING = ("numpy", "onnx", "onnxruntime", "pillow", "simplejpeg")

Document = dict[str, Any]


def write_trained_bom(folder: Path, *, name: str, recipe: Recipe, report: Mapping[str, Any], tensors: Tensors) -> None:
    """Write the bill of a trained model into a folder that holds the bundle's other files.

    Args:
        folder: of the bundle.
        name: of the model.
        recipe: resolved; it has the digests of the data.
        report: with the test metrics.
        tensors: of the graph.

    Raises:
        StorageFull: the disk is full.
    """
    data = list(_data(recipe, report))
    encoders = sorted({str(type(one.encoder).__struct_config__.tag) for one in recipe.inputs or () if one.encoder})
    parameters = {
        "approach": {"type": "supervised"},
        "task": report["task"],
        "architectureFamily": ", ".join(encoders) or "none",
        "datasets": [{"ref": one["bom-ref"]} for one in data],
    }
    card = {
        "modelParameters": {**parameters, **_ends(tensors)},
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(recipe, report))},
    }
    verdicts = [one["sentence"] for one in report["verdicts"].values()]
    if verdicts:
        card["considerations"] = {"technicalLimitations": verdicts}
    made = dt.datetime.fromtimestamp(report["created"], tz=dt.UTC).isoformat(timespec="seconds")
    tokenizers = [one.tokenizer for one in recipe.inputs or () if isinstance(one, TextField)]
    rules = sorted({name for one in tokenizers if isinstance(one, LanguageRules) for name in one.libraries})
    begun = list(_pretrained(recipe))
    libraries = (*_TRAINING, *rules, *(_FINE_TUNING if begun else ()))
    _write(folder, name, card, [*data, *begun, *_libraries(libraries)], {"timestamp": made})


def write_imported_bom(folder: Path, *, name: str, origin: Origin, tensors: Tensors) -> None:
    """Write the bill of an imported ONNX file's model; otherwise as `write_trained_bom`."""
    source = {
        "type": "file",
        "bom-ref": "source",
        "name": origin.filename,
        "hashes": [{"alg": "SHA-256", "content": origin.sha256}],
        "properties": _properties(
            producer=origin.producer,
            ir_version=origin.ir_version,
            opsets=", ".join(f"{domain} {version}" for domain, version in origin.opsets.items()),
        ),
    }
    _write(folder, name, {"modelParameters": _ends(tensors)}, [source, *_libraries(_IMPORTING)], {})


def _write(
    folder: Path, name: str, card: Mapping[str, Any], parts: Sequence[Document], about: Mapping[str, Any]
) -> None:
    files = [
        {"type": "file", "bom-ref": f"file:{file}", "name": file, "hashes": _hashes(file_digest(folder / file))}
        for file in _FILES
        if (folder / file).is_file()
    ]
    model = {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": name,
        "modelCard": {"bom-ref": "card", **card},
        "components": files,
    }
    document: Document = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC_VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {
            **about,
            "tools": {"components": [{"type": "application", "name": "yunmo", "version": __version__}]},
            "component": model,
        },
        "components": list(parts),
        "dependencies": [{"ref": _MODEL, "dependsOn": [one["bom-ref"] for one in parts]}],
    }
    content = msgspec.json.encode(document, order="sorted").decode()
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, content).urn
    write_atomic(folder / BOM, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def _ends(tensors: Tensors) -> Document:
    return {
        "inputs": [{"format": _format(tensor)} for tensor in tensors.inputs],
        "outputs": [{"format": _format(tensor)} for tensor in tensors.outputs],
    }


def _format(tensor: Tensor) -> str:
    return f"{tensor.name}: {tensor.dtype} [{tensor.sizes}]"


def _data(recipe: Recipe, report: Mapping[str, Any]) -> Iterator[Document]:
    """Yield what was learned from: the file of each split, with how many rows each split got in the end; embeddings."""
    given = {split: getattr(recipe.data, split, None) for split in ("train", "validation", "test")}
    rows = _properties(**{f"rows_{split}": count for split, count in report["data"]["rows"].items()})
    for split, digest in recipe.data.digests.items():
        file = given.get(split)
        name = Path(file).name if file else f"{recipe.data.dataset or 'data'}, {split}"
        yield {
            "type": "data",
            "bom-ref": f"data:{split}",
            "name": name,
            "hashes": _hashes(digest.removeprefix("sha256:")),
            "data": [{"type": "dataset", "name": name, "contents": {"properties": rows}}],
        }
    for field in recipe.inputs or ():
        if isinstance(field, TextField) and field.embeddings is not None and field.embeddings.digest is not None:
            yield {
                "type": "data",
                "bom-ref": f"embeddings:{field.name}",
                "name": field.embeddings.file,
                "hashes": _hashes(field.embeddings.digest.removeprefix("sha256:")),
                "data": [{"type": "other", "name": field.embeddings.file}],
            }


def _pretrained(recipe: Recipe) -> Iterator[Document]:
    """Yield the encoders that training began with: by the names of their folders, and the digests of what was read."""
    for index, encoder in pretrained_encoders(recipe):
        digest = (encoder.digest or "").removeprefix("sha256:")
        yield {
            "type": "machine-learning-model",
            "bom-ref": f"pretrained:{index}",
            "name": PurePath(encoder.folder).name,
            **({"hashes": _hashes(digest)} if digest else {}),
        }


def _metrics(recipe: Recipe, report: Mapping[str, Any]) -> Iterator[Document]:
    for output in recipe.outputs or ():
        values = report["test"][output.name]
        for metric in metric_names(report, output.name):
            if values[metric] is None:
                continue
            found: Document = {"type": metric, "value": f"{values[metric]:.6g}", "slice": f"{output.name}, test rows"}
            interval = (values.get("intervals") or {}).get(metric)
            if interval and None not in interval:
                low, high = interval
                found["confidenceInterval"] = {"lowerBound": f"{low:.6g}", "upperBound": f"{high:.6g}"}
            yield found


def _libraries(names: Sequence[str]) -> Iterator[Document]:
    for name in ("yunmo", *names):
        try:
            about = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue
        version = __version__ if name == "yunmo" else about["Version"]
        purl = f"pkg:pypi/{name}@{version.replace('+', '%2B')}"
        library: Document = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        licences = about.get_all("License-Expression") or ()
        yield library | ({"licenses": [{"expression": licence}]} if (licence := next(iter(licences), None)) else {})


def _hashes(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]


def _properties(**values: object) -> list[dict[str, str]]:
    return [{"name": f"yunmo:{name}", "value": str(value)} for name, value in values.items()]
