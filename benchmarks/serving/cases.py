"""The cases: which model, in which body, over how many connections; and the samples that are sent, the same to all."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from benchmarks.serving import models
from benchmarks.serving.places import Failed

SAMPLES = 16
TOLERANCE = 1e-3
"""How far an answer may be off: far less than the answers to two samples differ (`_MIN_DIFFERENCE`), far more than
float32 sums in another order do."""
_MIN_DIFFERENCE = 0.02
_MOST_DRAWN = 10_000
_SEED = 20261122
JPEG_QUALITY = 90

Body = Literal["jpeg", "binary", "json", "native", "named", "list", "grpc"]
Server = Literal["yunmo", "fastapi", "fastapi-loop", "litserve", "mlserver"]
PEERS: tuple[Server, ...] = ("fastapi", "fastapi-loop", "litserve", "mlserver")


@dataclass(frozen=True)
class Case:
    """One line of the result.

    Args:
        name: as ``--cases`` takes it.
        title: what it is.
        model: ``cnn`` or ``mlp``.
        body: form of the request; each server's own route for it.
        connections: kept alive, one request at a time on each.
        against: case whose figures of the peers this one is held against.
    """

    name: str
    title: str
    model: Literal["cnn", "mlp"]
    body: Body
    connections: int = 64
    against: str | None = None


CASES = (
    Case("cnn-jpeg", "CNN, JPEG", "cnn", "jpeg"),
    Case("cnn-binary", "CNN, 12 KB binary tensor", "cnn", "binary"),
    Case("cnn-json", "CNN, 61 KB JSON", "cnn", "json"),
    Case("cnn-native", "CNN, 61 KB native JSON", "cnn", "native", against="cnn-json"),
    Case("mlp-json", "MLP, 1 KB JSON (30 named numbers)", "mlp", "named"),
    Case("mlp-list", "MLP, JSON (list of 30 numbers)", "mlp", "list"),
    Case("mlp-one", "MLP, 1 KB JSON, one connection", "mlp", "named", connections=1),
    Case("cnn-grpc", "CNN, 12 KB tensor over gRPC", "cnn", "grpc", against="cnn-binary"),
)
BY_NAME = {case.name: case for case in CASES}


@dataclass(frozen=True)
class Sample:
    """One input in every form, and the probabilities that ONNX Runtime alone answers."""

    tensor: Any
    """float32 [3, 32, 32] or [30]."""
    numbers: list[float]
    """The tensor as JSON has it, flat."""
    jpeg: bytes
    """The picture; empty for the MLP."""
    expected: list[float]

    def json(self, key: str, nested: bool = False) -> bytes:
        """Return ``{key: numbers}``."""
        shape = self.tensor.shape if nested else (-1,)
        return json.dumps({key: np.asarray(self.numbers).reshape(shape).tolist()}).encode()

    def named(self) -> dict[str, float]:
        """Return the numbers by the names of their columns."""
        return {f"feature_{place:02}": number for place, number in enumerate(self.numbers)}


def samples(files: dict[str, Path]) -> dict[str, list[Sample]]:
    """Return the samples of each model.

    Raises:
        Failed: the model's answers are too much alike to be told apart.
    """
    return {name: _distinct(name, models.open_session(str(file))) for name, file in files.items()}


def _distinct(name: str, session: Any) -> list[Sample]:
    """Draw inputs and keep those whose answer is far from all others'."""
    rng = np.random.default_rng(_SEED)
    kept: list[Sample] = []
    for _ in range(_MOST_DRAWN):
        tensor, numbers, jpeg = _draw_picture(rng) if name == "cnn" else _draw_row(rng)
        (answer,) = session.run(None, {"input": tensor[None]})
        if all(np.abs(answer[0] - one.expected).max() >= _MIN_DIFFERENCE for one in kept):
            kept.append(Sample(tensor, numbers, jpeg, answer[0].tolist()))
        if len(kept) == SAMPLES:
            return kept
    raise Failed(f"no {SAMPLES} inputs with distinct answers found for {name}: choose another seed")


def _draw_picture(rng: np.random.Generator) -> tuple[Any, list[float], bytes]:
    """Every form is made of the decoded JPEG, so the answer is the same in every case."""
    jpeg = _jpeg(models.picture(rng))
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    return models.tensor(pixels), (pixels / 255).transpose(2, 0, 1).ravel().tolist(), jpeg


def _draw_row(rng: np.random.Generator) -> tuple[Any, list[float], bytes]:
    row = rng.normal(size=models.FEATURES)
    return row.astype(np.float32), row.tolist(), b""


def _jpeg(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
