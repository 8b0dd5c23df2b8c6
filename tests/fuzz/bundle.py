"""Fuzzes what an imported bundle is made of: the archive, its manifest, and its signature."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests.fuzz.driver import fuzz, watched

with watched():
    from tests.fixtures.bundles import key_files, make_bundle

    from yunmo.bundle.archive import export, unpack
    from yunmo.bundle.files import CARD, CONTENT, MANIFEST, REPORT, SIGNATURE
    from yunmo.bundle.manifest import decode_manifest, encode_manifest
    from yunmo.bundle.verify import verify

HOME = Path(tempfile.mkdtemp(prefix="yunmo-fuzz-"))
MAX_SIZE = 100_000


def check(data: bytes) -> None:
    """Read a part of a bundle: the first byte says which."""
    which, content = (data[0] if data else 0) % 3, data[1:]
    if which == 0:
        _archive(content)
    elif which == 1:
        manifest = decode_manifest(content)
        assert decode_manifest(encode_manifest(manifest)) == manifest, "read otherwise the second time"
    else:
        (HOME / "bundle" / SIGNATURE).write_bytes(content)
        verify(HOME / "bundle", PUBLIC)


def _archive(content: bytes) -> None:
    file, folder = HOME / "some.zip", HOME / "unpacked"
    file.write_bytes(content)
    try:
        unpack(file, folder, max_size=MAX_SIZE)
        found = list(folder.rglob("*"))
        assert all(path.name in (*CONTENT, MANIFEST, SIGNATURE) and path.parent == folder for path in found)
        assert all(path.is_file() and not path.is_symlink() for path in found)
        assert sum(path.stat().st_size for path in found) <= MAX_SIZE
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        left = {path.name for path in HOME.iterdir()} - {"some.zip", "bundle", "signing.key", "signing.pub", "good.zip"}
        assert not left, f"left behind: {left}"


PRIVATE, PUBLIC = key_files(HOME)
make_bundle(HOME / "bundle", private_key=PRIVATE)


def seeds() -> list[bytes]:
    """Return a good one of each, and a small archive."""
    export(HOME / "bundle", HOME / "good.zip")
    whole = (HOME / "good.zip").read_bytes()
    small = HOME / "small"
    small.mkdir()
    for name in (CARD, REPORT):
        shutil.copy(HOME / "bundle" / name, small)
    export(small, HOME / "good.zip")
    shutil.rmtree(small)
    return [
        b"\0" + whole,
        b"\0" + (HOME / "good.zip").read_bytes(),
        b"\1" + (HOME / "bundle" / MANIFEST).read_bytes(),
        b"\2" + (HOME / "bundle" / SIGNATURE).read_bytes(),
    ]


if __name__ == "__main__":
    made = seeds()
    words = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"../", b'"type"', b"README.md")
    fuzz(check, made, words, max_bytes=max(map(len, made)))
