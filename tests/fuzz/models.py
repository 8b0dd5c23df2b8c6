"""Opened models for fuzzers, each made once for a process."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from tests.fixtures.bundles import key_files, make_bundle
from tests.fixtures.tensors import make_tensor_bundle

from yunmo.inference.predictor import Predictor

MAX_PIXELS = 1_000_000


@functools.cache
def opened(name: str) -> Predictor:
    """Open the model ``table``, ``pictures`` or ``tensors``, as a data worker has it."""
    with tempfile.TemporaryDirectory() as home:
        private, public = key_files(Path(home))
        folder = Path(home, name)
        if name == "tensors":
            make_tensor_bundle(folder, private)
        else:
            make_bundle(folder, kind="image" if name == "pictures" else "table", private_key=private)
        return Predictor.open(folder, public_key_pem=public, max_pixels=MAX_PIXELS)
