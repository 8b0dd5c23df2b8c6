"""Fixing everything before the first step, once per run: what was resolved is kept and used again on resume."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from yunmo.core.errors import Conflict
from yunmo.core.events import Decision
from yunmo.core.files import storage_errors, write_atomic
from yunmo.core.recipe import Recipe, recipe_data, recipe_from
from yunmo.training.budget import fix_epochs
from yunmo.training.data import TrainingData
from yunmo.training.measure import fix_precision, fix_threads
from yunmo.training.plan import complete

_FILE = "resolved.json"
VALIDATION_COST = 0.4
"""What a validation row costs, in training rows: forward only."""


def resolve(
    data: TrainingData,
    recipe: Recipe,
    folder: Path,
    *,
    seconds: Callable[[TrainingData, Recipe, str], float],
    cores: int | None,
) -> tuple[Recipe, tuple[Decision, ...]]:
    """Decide all that a recipe leaves open, or read back what was decided when this run began.

    Args:
        data: prepared data.
        recipe: with its fields explicit.
        folder: of the run; the decisions are kept there.
        seconds: measures a step of a planned recipe in a precision.
        cores: processor cores the job may use; ``None``: all of this process.

    Raises:
        Conflict: the folder holds another recipe's run.
        RecipeError: the recipe does not fit the data.
    """
    path = folder / _FILE
    asked = recipe_data(recipe)
    if path.exists():
        kept = msgspec.json.decode(path.read_bytes())
        if asked not in (kept["asked"], kept["resolved"]):
            raise Conflict(
                "this folder holds the training of another recipe", where=str(folder), remedy="Use a new folder"
            )
        decisions = msgspec.convert(kept["decisions"], tuple[Decision, ...])
        return recipe_from(kept["resolved"]), decisions
    fixed, decisions = decide(data, recipe, seconds=seconds, cores=cores or len(os.sched_getaffinity(0)))
    kept = {"asked": asked, "resolved": recipe_data(fixed), "decisions": decisions}
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, msgspec.json.encode(kept))
    return fixed, decisions


def decide(
    data: TrainingData, recipe: Recipe, *, seconds: Callable[[TrainingData, Recipe, str], float], cores: int
) -> tuple[Recipe, tuple[Decision, ...]]:
    """Decide all that a recipe leaves open; as `resolve`, but nothing is kept.

    Raises:
        RecipeError: the recipe does not fit the data.
    """
    rows, validation = data.rows["train"], data.rows["validation"]
    planned, decided = complete(recipe, data.statistics, rows, validation, cores=cores)

    @functools.cache
    def step_seconds(threads: int, precision: str) -> float:
        train = msgspec.structs.replace(planned.train, threads=threads)
        return seconds(data, msgspec.structs.replace(planned, train=train), precision)

    fixed, precision = fix_precision(
        planned, data.statistics, rows, lambda precision: step_seconds(planned.train.threads or cores, precision)
    )
    fixed, threads = fix_threads(fixed, cores, lambda threads: step_seconds(threads, fixed.train.precision))
    epochs = None
    if fixed.train.epochs is None:
        step = step_seconds(fixed.train.threads or cores, fixed.train.precision)
        batch = fixed.train.batch_size if isinstance(fixed.train.batch_size, int) else rows
        fixed, epochs = fix_epochs(fixed, step * (max(1, rows // batch) + VALIDATION_COST * validation / batch))
    measured = (decision for decision in (precision, threads, epochs) if decision)
    return fixed, (*data.decisions, *decided, *measured)
