"""Fixing everything before the first step, once per run: what was resolved is kept and used again on resume."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from yunmo.core.errors import Conflict
from yunmo.core.events import Decision
from yunmo.core.recipe import Recipe, recipe_data, recipe_from
from yunmo.training.budget import fix_epochs
from yunmo.training.checkpoint import write_atomically
from yunmo.training.data import TrainingData
from yunmo.training.measure import fix_precision
from yunmo.training.plan import complete

_FILE = "resolved.json"
_VALIDATION_COST = 0.4
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
    rows, validation = data.rows["train"], data.rows["validation"]
    planned, decided = complete(recipe, data.statistics, rows, validation, cores=cores or len(os.sched_getaffinity(0)))
    planned, precision = fix_precision(
        planned, data.statistics, rows, lambda precision: seconds(data, planned, precision)
    )
    epochs = None
    if planned.train.epochs is None:
        step = seconds(data, planned, planned.train.precision)
        batch = planned.train.batch_size if isinstance(planned.train.batch_size, int) else rows
        planned, epochs = fix_epochs(planned, step * (max(1, rows // batch) + _VALIDATION_COST * validation / batch))
    decisions = (*data.decisions, *decided, *(decision for decision in (precision, epochs) if decision))
    kept = {"asked": asked, "resolved": recipe_data(planned), "decisions": decisions}
    write_atomically(path, msgspec.json.encode(kept))
    return planned, decisions
