"""The models that are open in this worker: one copy of each bundle, however many endpoints it answers for."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from yunmo.bundle.files import bundle_digest
from yunmo.core.errors import IntegrityError
from yunmo.core.snapshot import Variant

if TYPE_CHECKING:
    from yunmo.inference.predictor import Predictor


class OpenPredictor(Protocol):
    """Opens the bundle of a variant."""

    def __call__(self, variant: Variant, trusted_key: str, *, isolated: bool) -> Predictor:
        """Open it, checked against a public key in PEM; ``isolated``: its graph runs in a process of its own."""


def open_predictor(
    variant: Variant, trusted_key: str, *, max_pixels: int, isolated: bool = False, timeout: float | None = None
) -> Predictor:
    """Open the bundle of a variant after checking that it is the very one deployed.

    Args:
        variant: what to open.
        trusted_key: public key in PEM that must have signed it.
        max_pixels: most pixels of a picture that it decodes.
        isolated: run its graph in a process of its own.
        timeout: seconds after which it is given up; None: never.

    Raises:
        IntegrityError: another bundle lies in the folder, or it was changed.
        BundleError: the bundle cannot be used, or its golden examples give other answers.
    """
    # Only now, so that a worker without a model needs no onnxruntime.
    from yunmo.inference.predictor import Predictor

    folder, name = Path(variant.path), f"{variant.model}:{variant.version}"
    try:
        digest = bundle_digest(folder)
    except OSError as error:
        raise IntegrityError("the bundle is not there", where=name) from error
    if digest != variant.digest:
        raise IntegrityError("the bundle's digest is not the deployed one", where=name)
    return Predictor.open(folder, public_key_pem=trusted_key, max_pixels=max_pixels, isolated=isolated, timeout=timeout)


class Shelf:
    """Opens predictors and counts who uses them. All methods are called on the event loop.

    Args:
        open_predictor: opens a bundle, in a thread.
    """

    def __init__(self, open_predictor: OpenPredictor) -> None:
        self._open = open_predictor
        # By digest, and whether it runs in a process of its own.
        self._predictors: dict[tuple[str, bool], Predictor] = {}
        self._users: dict[tuple[str, bool], int] = {}
        self._opening = asyncio.Lock()

    @property
    def digests(self) -> frozenset[str]:
        """Digests of the bundles that are open."""
        return frozenset(digest for digest, _ in self._predictors)

    async def take(self, variant: Variant, trusted_key: str, *, isolated: bool) -> Predictor:
        """Return the predictor of a variant for one more user; bundles are opened one after the other.

        Args:
            variant: what to open.
            trusted_key: public key in PEM that must have signed it.
            isolated: run its graph in a process of its own; others may use it here meanwhile.

        Raises:
            IntegrityError: another bundle lies in the folder, or it was changed.
            BundleError: the bundle cannot be used.
        """
        key = variant.digest, isolated
        async with self._opening:
            predictor = self._predictors.get(key)
            if predictor is None:
                predictor = await asyncio.to_thread(self._open, variant, trusted_key, isolated=isolated)
                self._predictors[key] = predictor
            self._users[key] = self._users.get(key, 0) + 1
            return predictor

    async def give_back(self, digest: str, *, isolated: bool) -> None:
        """Say that one user has ended; after the last one the model's memory goes back to the system."""
        key = digest, isolated
        self._users[key] -= 1
        if self._users[key]:
            return
        del self._users[key]
        last = [self._predictors.pop(key)]
        await asyncio.to_thread(_free, last)


def _free(last: list[Predictor]) -> None:
    """Let go of a model in this thread, then have the C library give back what it keeps of the freed memory.

    Others than glibc have no such call.
    """
    last.pop().close()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
