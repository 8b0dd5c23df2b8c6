"""Short measurements before training: which precision and how many threads pay on this machine, now."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import msgspec
import torch

from yunmo.core.encoders import CnnEncoder, PretrainedEncoder, ResnetEncoder, RnnEncoder
from yunmo.core.events import Decision
from yunmo.core.fields import FieldStatistics
from yunmo.core.recipe import Recipe

_GAIN = 0.95
"""bf16 must take at most this share of fp32's time to be worth its lower precision."""
_SMALL_STEP = 32_768
"""Pixels or states in a batch below which bf16 only costs."""
_WARM_UP, _STEPS, _SECONDS = 2, 8, 2.0


def fix_precision(
    recipe: Recipe, statistics: Mapping[str, FieldStatistics], rows: int, step_seconds: Callable[[str], float]
) -> tuple[Recipe, Decision | None]:
    """Turn ``train.precision: auto`` into ``bf16`` or ``fp32``.

    Args:
        recipe: planned.
        statistics: by field, for the size of pictures.
        rows: of training data.
        step_seconds: measures a step in a precision.
    """
    if recipe.train.precision != "auto":
        return recipe, None
    precision, reason = "fp32", "bf16 pays for large convolutions, recurrences and attentions only"
    if not _has_bf16():
        reason = "this processor has no bf16"
    elif _pixels(recipe, statistics, rows) >= _SMALL_STEP:
        seconds = {name: step_seconds(name) for name in ("fp32", "bf16")}
        if seconds["bf16"] <= _GAIN * seconds["fp32"]:
            precision = "bf16"
        reason = f"a step takes {seconds['bf16'] * 1e3:.0f} ms in bf16, {seconds['fp32'] * 1e3:.0f} ms in fp32"
    train = msgspec.structs.replace(recipe.train, precision=precision)
    return msgspec.structs.replace(recipe, train=train), Decision("train.precision", precision, reason)


def fix_threads(recipe: Recipe, cores: int, step_seconds: Callable[[int], float]) -> tuple[Recipe, Decision | None]:
    """Fill in ``train.threads`` if it is open: on a busy machine fewer than all are faster.

    Args:
        recipe: planned.
        cores: processor cores the job may use.
        step_seconds: measures a step on a number of threads.
    """
    if recipe.train.threads is not None:
        return recipe, None
    seconds = {threads: step_seconds(threads) for threads in sorted({1, -(-cores // 2), cores})}
    best = min(seconds, key=lambda threads: seconds[threads])
    told = ", ".join(f"{taken * 1e3:.0f} ms on {threads}" for threads, taken in seconds.items())
    train = msgspec.structs.replace(recipe.train, threads=best)
    return msgspec.structs.replace(recipe, train=train), Decision("train.threads", str(best), f"a step takes {told}")


def time_steps(step: Callable[[], object]) -> float:
    """Return the seconds of a step: the median of a few, after those that warm up."""
    began = time.perf_counter()
    for warmed in range(_WARM_UP):
        # One is enough where it takes long: what it pays for once is then little of it.
        if not warmed or time.perf_counter() - began < _SECONDS / 2:
            step()
    seconds: list[float] = []
    while len(seconds) < _STEPS and (len(seconds) < 2 or sum(seconds) < _SECONDS):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[len(seconds) // 2]


def _has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _pixels(recipe: Recipe, statistics: Mapping[str, FieldStatistics], rows: int) -> int:
    """Return how many pixels convolutions, and states recurrences, go through in one step."""
    batch = recipe.train.batch_size
    pixels = 0
    for field in recipe.inputs or ():
        shape = statistics[field.name].shape
        if isinstance(field.encoder, (ResnetEncoder, CnnEncoder)):
            pixels += shape[0] * shape[1]
        elif isinstance(field.encoder, RnnEncoder):
            pixels += shape[0] * field.encoder.hidden
        elif isinstance(field.encoder, PretrainedEncoder) and (known := statistics[field.name].pretrained):
            pixels += shape[0] * known.architecture.hidden_size
    return pixels * (batch if isinstance(batch, int) else rows)
