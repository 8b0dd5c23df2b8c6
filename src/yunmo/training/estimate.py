"""From what short probes found to what a whole run costs and reaches, and which network to take. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from yunmo.core.advice import Candidate, Range, Seconds, ShortTraining
from yunmo.core.recipe import recipe_from
from yunmo.training.budget import LINEAR_SECONDS
from yunmo.training.extrapolate import Point, extrapolate
from yunmo.training.findings import Cost, Learned

_PACKING, _PACKING_BYTES = 3.0, 80 << 20
"""Exporting and proving the packed model takes so many times as long as importing torch, and so much memory beside what
training had: measured on tables, texts and pictures, where it was 2.3 to 4.5 times and 76 to 82 MB."""
_SIGNING = 1.0
_DECIDING = 2.0
"""How many times as long as here training measures steps before the first epoch."""
_MEASURING_BYTES = 130 << 20
"""What the report's linear model adds where it was not measured."""
_LONG = 0.5
"""Seconds from which a short training tells the time of a step."""
_MEMORY_SHARE = 0.9
"""Share of the free memory that a training may take."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all candidates of a task share."""

    whole: Mapping[str, int]
    """Rows of each split."""
    sampled: Mapping[str, int]
    """Rows of each split that were prepared."""
    row_bytes: int
    """Of an encoded training row."""
    base: int
    """Bytes that a process has resident which has imported torch."""
    starting: float
    """Seconds until a process has imported torch."""
    reading: float
    """Seconds of reading, cleaning and dividing all rows."""
    prepared_bytes: int
    """Bytes that reading all rows takes."""
    encoding: float
    """Seconds of encoding the sample."""
    linear: float | None
    """Seconds of the report's linear model on all rows; None: not measured."""
    linear_bytes: int | None
    """Bytes that it added to the process."""
    share: bool
    """Whether errors are shares of rows; else of the variance."""


def metric_range(probes: Sequence[Learned], epochs: int, around: Surroundings) -> Range | None:
    """Return where the metric is expected after a training of so many epochs; None: nothing was measured."""
    if not probes:
        return None
    points = [Point(probe.rows, probe.epochs, probe.error, probe.judged) for probe in probes]
    rows, judged = around.whole["train"], around.whole["test"]
    found = extrapolate(points, rows=rows, epochs=epochs, judged=judged, share=around.share)
    return Range(low=1 - found.high, middle=1 - found.middle, high=1 - found.low)


def short(probes: Sequence[Learned]) -> tuple[ShortTraining, ...]:
    """Return short trainings with their metric."""
    return tuple(
        ShortTraining(rows=probe.rows, epochs=probe.epochs, value=1 - probe.error, judged=probe.judged)
        for probe in probes
    )


def linear_seconds(probes: Sequence[Learned], rows: int) -> float | None:
    """Return how long the report's linear model takes on all rows; it stops for time at `LINEAR_SECONDS`."""
    if not probes:
        return None
    last = probes[-1]
    return min(LINEAR_SECONDS, last.seconds * max(1.0, rows / last.rows))


def estimate(candidate: Candidate, cost: Cost | None, probes: Sequence[Learned], around: Surroundings) -> Candidate:
    """Return a candidate with all that its probe tells.

    Args:
        candidate: name and command.
        cost: None: there was no time.
        probes: from small to large.
        around: what all candidates share.
    """
    if cost is None:
        return candidate
    recipe = recipe_from(cost.recipe)
    rows, epochs = around.whole["train"], recipe.train.epochs or 1
    batch = recipe.train.batch_size if isinstance(recipe.train.batch_size, int) else rows
    stepping = epochs * max(1, rows // batch) * _step(cost, probes, batch)
    ending = epochs * (cost.judge * around.whole["validation"] + cost.save)
    return msgspec.structs.replace(
        candidate,
        epochs=epochs,
        batch_size=batch,
        threads=recipe.train.threads,
        precision=recipe.train.precision,
        parameters=cost.parameters,
        seconds=Seconds(epochs=stepping, run=stepping + ending + _around(cost, around)),
        memory=_memory(cost, around),
        metric=metric_range(probes, epochs, around),
        probes=short(probes),
        note=candidate.note if probes else "no time for a short training",
    )


def _step(cost: Cost, probes: Sequence[Learned], batch: int) -> float:
    """Return the seconds of a step: those of a longer training, if it was slower. A busy machine is not always so."""
    long = (probe for probe in probes if probe.batch == batch and probe.seconds >= _LONG)
    return max([cost.step, *(probe.seconds / (probe.epochs * max(1, probe.rows // batch)) for probe in long)])


def _around(cost: Cost, around: Surroundings) -> float:
    """Return the seconds of all but epochs: starting, preparing, deciding, evaluating, packing."""
    preparing = around.reading + around.encoding * _growth(around)
    evaluating = cost.judge * (around.whole["validation"] + around.whole["test"]) + (around.linear or 0.0)
    deciding = _DECIDING * cost.deciding
    return around.starting * (1 + _PACKING) + preparing + deciding + evaluating + _SIGNING


def _growth(around: Surroundings) -> float:
    return sum(around.whole.values()) / max(1, sum(around.sampled.values()))


def _memory(cost: Cost, around: Surroundings) -> int:
    """Return the peak: what reading took, or steps with rows that the sample has not; the linear model; packing.

    The training process keeps what it frees for what comes next, so that later phases add to it.
    """
    # A row is mapped from its file and copied.
    missing = 2 * around.row_bytes * max(0, around.whole["train"] - around.sampled["train"])
    measuring = _MEASURING_BYTES if around.linear_bytes is None else around.linear_bytes
    return around.base + max(around.prepared_bytes, cost.grown + missing) + measuring + _PACKING_BYTES


def recommend(candidates: Sequence[Candidate], linear: Range | None, free: int) -> tuple[Candidate, str]:
    """Return the candidate to take, and why.

    The first, which training takes by itself, gives way only to one whose probe was clearly better, or where it does
    not fit into memory.
    """
    first = candidates[0]
    fitting = [each for each in candidates if each.memory is None or each.memory <= _MEMORY_SHARE * free]
    probed = [each for each in fitting if each.metric is not None]
    if first not in fitting and fitting:
        return min(fitting, key=_cheap), f"{first.name} needs more memory than is free"
    if first.metric is None:
        return first, "the default; there was no time to compare it"
    best = max(probed, key=_middle)
    if best is not first and best.metric is not None and best.metric.low > first.metric.middle:
        return best, f"its short trainings were clearly better than those of {first.name}, the default"
    others = len(probed) - 1
    reason = "the default; there was no time to compare it"
    if others:
        reason = f"the default; of {others} other{'s' if others > 1 else ''} tried, none was clearly better"
    if linear is not None and linear.middle >= first.metric.middle:
        reason += "; a linear model may do as well, the report will tell"
    return first, reason


def _cheap(candidate: Candidate) -> float:
    return candidate.memory if candidate.memory is not None else math.inf


def _middle(candidate: Candidate) -> float:
    return candidate.metric.middle if candidate.metric is not None else -math.inf
