from __future__ import annotations

from pathlib import Path

import pytest

from yunmo.bundle.files import MANIFEST, SIGNATURE
from yunmo.bundle.sign import new_key_pair, sign
from yunmo.bundle.verify import verify
from yunmo.core.errors import BundleError


def test_keys_are_p256_pem_and_never_twice_the_same() -> None:
    private, public = new_key_pair()
    assert private.startswith("-----BEGIN PRIVATE KEY-----")
    assert public.startswith("-----BEGIN PUBLIC KEY-----")
    assert new_key_pair()[1] != public


def test_signing_again_replaces_the_signature_and_leaves_nothing_beside(sealed: Path, keys: tuple[Path, str]) -> None:
    beside = set(sealed.parent.iterdir())
    sign(sealed, keys[0])
    first = (sealed / SIGNATURE).read_bytes()
    sign(sealed, keys[0])
    assert (sealed / SIGNATURE).read_bytes() != first  # ECDSA draws a new nonce
    assert verify(sealed, keys[1]).name == "pets"
    assert set(sealed.parent.iterdir()) == beside


def test_a_relative_folder_can_be_signed(sealed: Path, keys: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sealed.parent)
    sign(Path(sealed.name), keys[0])
    assert verify(sealed, keys[1]).name == "pets"


def test_only_a_sealed_bundle_is_signed(tmp_path: Path, keys: tuple[Path, str]) -> None:
    with pytest.raises(BundleError) as caught:
        sign(tmp_path, keys[0])
    assert caught.value.where == str(tmp_path / MANIFEST)


def test_a_key_that_is_none_is_said(sealed: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.key").write_text("no key")
    with pytest.raises(BundleError) as caught:
        sign(sealed, tmp_path / "bad.key")
    assert caught.value.where == str(tmp_path / "bad.key")
    assert not (sealed / SIGNATURE).exists()
