from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from model_signing import verifying

from yunmo.bundle.files import CONTENT, GRAPH, MANIFEST, SIGNATURE
from yunmo.bundle.manifest import FORMAT_VERSION
from yunmo.bundle.sign import new_key_pair, sign
from yunmo.bundle.verify import verify
from yunmo.core.errors import BundleError, IntegrityError

Keys = tuple[Path, str]


def library_accepts(folder: Path, public_pem: str) -> bool:
    """Ask model_signing itself."""
    public = folder.parent / "public.pem"
    public.write_text(public_pem)
    try:
        verifying.Config().use_elliptic_key_verifier(public_key=public).verify(folder, folder / SIGNATURE)
    except ValueError:
        return False
    return True


def test_a_signed_bundle_is_accepted_also_in_another_folder(signed: Path, keys: Keys, tmp_path: Path) -> None:
    moved = signed.rename(tmp_path / "elsewhere")
    manifest = verify(moved, keys[1])
    assert manifest.name == "pets"
    assert set(manifest.files) == set(CONTENT)
    assert library_accepts(moved, keys[1])


@pytest.mark.parametrize("name", [*CONTENT, MANIFEST])
@pytest.mark.parametrize("place", [0, -1])
def test_one_changed_byte_is_refused(signed: Path, keys: Keys, name: str, place: int) -> None:
    data = bytearray((signed / name).read_bytes())
    data[place] ^= 1
    (signed / name).write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        verify(signed, keys[1])
    assert caught.value.where == name
    assert not library_accepts(signed, keys[1])


@pytest.mark.parametrize("name", [*CONTENT, MANIFEST, SIGNATURE])
def test_a_missing_file_is_refused(signed: Path, keys: Keys, name: str) -> None:
    (signed / name).unlink()
    with pytest.raises(IntegrityError) as caught:
        verify(signed, keys[1])
    assert caught.value.where == name


def _link(path: Path) -> None:
    path.symlink_to(path.parent / GRAPH)


@pytest.mark.parametrize(
    ("name", "add"),
    [
        ("more.bin", Path.touch),
        (".hidden", Path.touch),
        (".gitignore", Path.touch),
        ("empty", Path.mkdir),
        (".git", Path.mkdir),
        ("link", _link),
        ("pipe", os.mkfifo),
    ],
)
def test_anything_added_is_refused(signed: Path, keys: Keys, name: str, add: Callable[[Path], None]) -> None:
    add(signed / name)
    with pytest.raises(IntegrityError) as caught:
        verify(signed, keys[1])
    assert caught.value.where == name


def test_a_file_replaced_by_a_link_to_the_same_bytes_is_refused(signed: Path, keys: Keys, tmp_path: Path) -> None:
    (signed / GRAPH).rename(tmp_path / "graph")
    (signed / GRAPH).symlink_to(tmp_path / "graph")
    with pytest.raises(IntegrityError, match="link") as caught:
        verify(signed, keys[1])
    assert caught.value.where == GRAPH


def test_another_key_is_refused(signed: Path) -> None:
    other = new_key_pair()[1]
    with pytest.raises(IntegrityError, match="not signed with the trusted key"):
        verify(signed, other)
    assert not library_accepts(signed, other)


def test_a_signature_over_a_file_more_than_was_sealed_is_refused(signed: Path, keys: Keys) -> None:
    """As one gets who tricks the signer into a folder with more in it."""
    (signed / "extra.bin").write_bytes(b"x")
    sign(signed, keys[0])
    with pytest.raises(IntegrityError) as caught:
        verify(signed, keys[1])
    assert caught.value.where == "extra.bin"


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.clear(),
        lambda document: document.update(mediaType="application/vnd.dev.sigstore.bundle.v9+json"),
        lambda document: document["dsseEnvelope"].update(payloadType="text/plain"),
        lambda document: document["dsseEnvelope"].update(signatures=[]),
        lambda document: document["dsseEnvelope"].update(signatures=document["dsseEnvelope"]["signatures"] * 2),
        lambda document: document["dsseEnvelope"].update(payload="not base64"),
        lambda document: document["dsseEnvelope"].update(payload=7),
        lambda document: document["dsseEnvelope"].update(payload=document["dsseEnvelope"]["payload"][:-8] + "AAAAAAAA"),
    ],
)
def test_a_damaged_signature_is_refused(signed: Path, keys: Keys, change: Callable[[dict[str, object]], None]) -> None:
    document = json.loads((signed / SIGNATURE).read_text())
    change(document)
    (signed / SIGNATURE).write_text(json.dumps(document))
    with pytest.raises(IntegrityError) as caught:
        verify(signed, keys[1])
    assert caught.value.where == SIGNATURE


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b'{"a": '])
def test_a_signature_that_is_none_is_refused(signed: Path, keys: Keys, content: bytes) -> None:
    (signed / SIGNATURE).write_bytes(content)
    with pytest.raises(IntegrityError) as caught:
        verify(signed, keys[1])
    assert caught.value.where == SIGNATURE


def test_a_huge_signature_is_not_read(signed: Path, keys: Keys) -> None:
    with (signed / SIGNATURE).open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(IntegrityError, match="too large"):
        verify(signed, keys[1])


def test_a_bundle_from_a_newer_yunmo_asks_for_an_upgrade(sealed: Path, keys: Keys) -> None:
    manifest = json.loads((sealed / MANIFEST).read_text())
    manifest |= {"format_version": FORMAT_VERSION + 1, "yunmo_version": "9.1", "something": "new"}
    (sealed / MANIFEST).write_text(json.dumps(manifest))
    sign(sealed, keys[0])
    with pytest.raises(BundleError, match=r"Yunmo 9\.1.*Upgrade Yunmo") as caught:
        verify(sealed, keys[1])
    assert not isinstance(caught.value, IntegrityError)


@pytest.mark.parametrize("content", ["{}", "[]", "no json"])
def test_a_signed_manifest_that_is_none_is_refused(sealed: Path, keys: Keys, content: str) -> None:
    (sealed / MANIFEST).write_text(content)
    sign(sealed, keys[0])
    with pytest.raises(BundleError) as caught:
        verify(sealed, keys[1])
    assert caught.value.where == MANIFEST


def test_a_field_type_of_a_newer_yunmo_asks_for_an_upgrade(sealed: Path, keys: Keys) -> None:
    manifest = json.loads((sealed / MANIFEST).read_text())
    manifest["inputs"][0]["type"] = "smell"
    manifest["yunmo_version"] = "9.1"
    (sealed / MANIFEST).write_text(json.dumps(manifest))
    sign(sealed, keys[0])
    with pytest.raises(BundleError, match=r"made by Yunmo 9\.1.*upgrade"):
        verify(sealed, keys[1])


def test_no_folder_and_no_key_are_said(signed: Path, keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no bundle"):
        verify(tmp_path / "nowhere", keys[1])
    with pytest.raises(BundleError, match="P-256"):
        verify(signed, "not a key")


def test_a_folder_full_of_other_things_is_refused(tmp_path: Path, keys: Keys) -> None:
    with pytest.raises(IntegrityError) as caught:
        verify(tmp_path, keys[1])
    assert caught.value.where == MANIFEST


def test_verifying_does_not_load_the_signing_library(signed: Path, keys: Keys) -> None:
    program = (
        "import sys; from pathlib import Path; from yunmo.bundle.verify import verify;"
        "verify(Path(sys.argv[1]), sys.argv[2]);"
        "print([name for name in ('model_signing', 'sigstore', 'tuf', 'requests', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(signed), keys[1]], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_copy_is_as_good(signed: Path, keys: Keys, tmp_path: Path) -> None:
    copy = shutil.copytree(signed, tmp_path / "copy")
    assert verify(copy, keys[1]) == verify(signed, keys[1])
