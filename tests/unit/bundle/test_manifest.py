from __future__ import annotations

import msgspec
import pytest

from yunmo.bundle.files import BOM, GRAPH, GRAPH_WEIGHTS
from yunmo.bundle.manifest import (
    FORMAT_VERSION,
    FileEntry,
    Manifest,
    Tensor,
    Tensors,
    decode_manifest,
    encode_manifest,
    format_version_of,
    joined_tensor,
)
from yunmo.core.errors import BundleError
from yunmo.core.fields import CategoryOutput, ImageField

MANIFEST = Manifest(
    format_version=FORMAT_VERSION,
    yunmo_version="0.1.0",
    name="pets",
    inputs=(ImageField(name="image", size=(8, 9), color="rgb"),),
    outputs=(CategoryOutput(name="label", categories=("cat", "狗")),),
    tensors=Tensors(
        inputs=(Tensor(name="image", dtype="uint8", shape=(8, 9, 3)),),
        outputs=(Tensor(name="label", dtype="float32", shape=(2,)),),
    ),
    encode_versions={"label": 1, "image": 1},
    files={"graph.onnx": FileEntry(sha256="0" * 64, size=3)},
)


def test_a_manifest_comes_back_equal() -> None:
    assert decode_manifest(encode_manifest(MANIFEST)) == MANIFEST


def test_one_of_format_1_is_that_of_a_trained_model() -> None:
    document = msgspec.json.decode(encode_manifest(MANIFEST)) | {"format_version": 1}
    del document["origin"]
    assert decode_manifest(msgspec.json.encode(document)).origin == "trained"


def test_the_order_of_a_mapping_changes_no_byte() -> None:
    other = msgspec.structs.replace(MANIFEST, encode_versions={"image": 1, "label": 1})
    assert encode_manifest(other) == encode_manifest(MANIFEST)


def test_a_newer_format_asks_for_an_upgrade_whatever_else_is_in_it() -> None:
    with pytest.raises(BundleError, match="Upgrade"):
        decode_manifest(b'{"format_version": %d}' % (FORMAT_VERSION + 1))


@pytest.mark.parametrize(
    ("files", "joined", "version"),
    [
        ((GRAPH,), (), 2),
        ((GRAPH, GRAPH_WEIGHTS), (), 3),
        ((GRAPH, GRAPH_WEIGHTS, BOM), (), 4),
        ((BOM,), (), 4),
        ((GRAPH,), ("age", "price"), 4),
    ],
)
def test_a_bundle_says_the_lowest_format_that_has_all_it_needs(
    files: tuple[str, ...], joined: tuple[str, ...], version: int
) -> None:
    inputs = (*MANIFEST.tensors.inputs, *((joined_tensor(joined),) if joined else ()))
    assert format_version_of(files, Tensors(inputs=inputs, outputs=())) == version


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"format_version": "1"}'])
def test_what_is_no_manifest_is_said(data: bytes) -> None:
    with pytest.raises(BundleError) as caught:
        decode_manifest(data)
    assert caught.value.where == "manifest.json"


def test_a_reason_quotes_no_whole_file() -> None:
    document = msgspec.json.decode(encode_manifest(MANIFEST)) | {"origin": "x" * 100_000}
    with pytest.raises(BundleError, match="Invalid enum value") as caught:
        decode_manifest(msgspec.json.encode(document))
    assert len(str(caught.value)) < 1000
