"""Signing a bundle with OpenSSF model-signing: a P-256 signature over the SHA-256 of every file.

The signature is a Sigstore bundle v0.3 that also the ``model_signing`` command line verifies. The library is loaded
here only, late: it costs 44 MB and 0.8 s (it brings sigstore, tuf, requests and pydantic), which a process that only
verifies must not pay (see `yunmo.bundle.verify`).
"""

from __future__ import annotations

from pathlib import Path

from yunmo.bundle.files import MANIFEST, SIGNATURE
from yunmo.core.errors import BundleError
from yunmo.core.files import storage_errors, write_atomic


def new_key_pair() -> tuple[str, str]:
    """Make a P-256 key pair: PEM of the private key (PKCS 8, not encrypted) and of the public key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


def sign(folder: Path, private_key_path: Path) -> None:
    """Sign every file of a sealed bundle; writes ``signature.json``. Signing again replaces the signature.

    Raises:
        BundleError: the folder holds no manifest, or the key is no P-256 private key.
        StorageFull: the disk is full.
    """
    if not (folder / MANIFEST).is_file():
        raise BundleError("only a sealed bundle can be signed", where=str(folder / MANIFEST))
    from model_signing import hashing, signing

    signature = folder / SIGNATURE
    signature.unlink(missing_ok=True)
    hashes = hashing.Config()  # type: ignore[no-untyped-call]  # the library leaves its __init__ without types
    hashes.set_ignored_paths(paths=[signature], ignore_git_paths=False)
    partial = folder.parent / f".{folder.name}.{SIGNATURE}"  # beside the folder: what is in it gets signed
    try:
        config = signing.Config()  # type: ignore[no-untyped-call]  # as above
        config.use_elliptic_key_signer(private_key=private_key_path)
    except (ValueError, TypeError) as error:
        raise BundleError(f"not a usable signing key: {error}", where=str(private_key_path)) from None
    try:
        with storage_errors(signature):
            config.set_hashing_config(hashes).sign(folder, partial)
            write_atomic(signature, partial.read_bytes())
    finally:
        partial.unlink(missing_ok=True)
