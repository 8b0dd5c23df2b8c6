"""Short trainings of the linear model that a report puts beside the network."""

from __future__ import annotations

import time

from yunmo.core.fields import CategoryOutput
from yunmo.core.recipe import Recipe
from yunmo.training.baselines import baselines
from yunmo.training.data import TrainingData
from yunmo.training.findings import Learned
from yunmo.training.memory import Memory
from yunmo.training.probe import FEWEST_ROWS, LATER, Tell
from yunmo.training.sampled import Subset


def probe_linear(data: TrainingData, recipe: Recipe, *, seconds: float, memory: Memory, tell: Tell) -> None:
    """Measure the linear model that a report puts beside the network: on a quarter of the sample, then on all of it.

    Args:
        data: the sample.
        recipe: with its fields.
        seconds: that this may take, about.
        memory: what it is counted from.
        tell: gets each `Learned`.
    """
    ends = time.monotonic() + seconds
    output = (recipe.outputs or ())[0]
    rows = data.rows["train"]
    for part in (max(FEWEST_ROWS, rows // LATER), rows):
        left = ends - time.monotonic()
        if left <= 0:
            return
        began = time.perf_counter()
        found = baselines(Subset(data, recipe, part), seconds=left / 3, split="validation")[output.name]["linear"]
        metrics = found["metrics"]
        r2 = metrics.get("r2")
        error = 1 - metrics["accuracy"] if isinstance(output, CategoryOutput) else 1 - r2 if r2 is not None else 1.0
        tell(
            Learned(
                rows=min(part, rows),
                epochs=1,
                error=error,
                judged=data.rows["validation"],
                seconds=time.perf_counter() - began,
                batch=None,
                grown=memory.grown(),
            )
        )
