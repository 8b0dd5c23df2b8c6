"""Short trainings of one network: what a step, an epoch's end and memory cost, and how errors fall with rows seen.

Whatever is found is told at once, so that a probe that is ended for time has told what it found by then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import torch

from yunmo.core.fields import CategoryOutput
from yunmo.core.recipe import Recipe
from yunmo.training.budget import fix_epochs
from yunmo.training.data import TrainingData
from yunmo.training.findings import Cost, Finding, Learned
from yunmo.training.loop import Trainer, settings_of_torch
from yunmo.training.memory import Memory
from yunmo.training.resolve import VALIDATION_COST, decide
from yunmo.training.sampled import Subset, Whole

_TIMES, _FAR = 2, 2.5
"""How often a step is measured to decide on precision and threads, and how much slower than the best is too slow."""
_SMALL_BATCH = 32
"""Batches that are not made smaller for that."""
_FAST, _SLOW = 0.1, 0.3
"""Seconds of a step that can be measured again and again, or only once."""
_SHARE, _FEWEST_STEPS = 0.2, 2
"""Share of the time for the probe in which steps are measured on batches as they come, and how many there are."""
_FEWEST_EPOCHS = 3
"""Epochs that a short training has, if it may have so many: one pass says little of what several reach."""
FEWEST_ROWS = 64
_MORE, _OVERHEAD = 1.5, 1.3
"""How many times more rows are worth another training, and how much longer one takes than its steps."""
LATER = 4
"""How many times more rows the second short training sees."""


Tell = Callable[[Finding], None]


def import_all() -> None:
    """Import what the first step of a training would, which takes a second: forks made after this have it."""
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)


def probe(
    data: TrainingData,
    recipe: Recipe,
    whole: dict[str, int],
    folder: Path,
    *,
    cores: int,
    seconds: float,
    tell: Tell,
) -> None:
    """Measure a network on a sample.

    Args:
        data: the sample, prepared; its rows are in an order of chance.
        recipe: with the fields of the sample; what is open is decided as training would.
        whole: rows of each split of all the data.
        folder: for a checkpoint.
        cores: processor cores that training may use.
        seconds: that this may take, about.
        tell: gets a `Cost`, later a better one, and each `Learned`.

    Raises:
        RecipeError: the network does not fit the data.
        TrainingFailed: the loss became infinite or NaN.
    """
    ends, memory = time.monotonic() + seconds, Memory()
    with settings_of_torch():
        began = time.perf_counter()
        trial = _Trial(Whole(data, recipe, whole), folder / "checkpoint.safetensors")
        # Epochs are fixed below, from steps on real batches.
        fixed = msgspec.structs.replace(recipe, train=msgspec.structs.replace(recipe.train, epochs=1))
        resolved, decisions = decide(trial.data, fixed, seconds=trial.seconds_of_a_step, cores=cores)
        deciding = time.perf_counter() - began
        trainer = trial.trainer_of(resolved)
        step = _step(trainer, resolved, seconds * _SHARE, warm=trial.measured)
        parameters = sum(weight.numel() for weight in trainer.network.parameters())

        def told(judge: float, save: float) -> tuple[Cost, Recipe]:
            found = _with_epochs(resolved, recipe.train.epochs, whole, step, judge)
            cost = Cost(
                recipe=msgspec.to_builtins(found),
                decisions=decisions,
                parameters=parameters,
                deciding=deciding,
                step=step,
                judge=judge,
                save=save,
                grown=memory.grown(),
            )
            tell(cost)
            return cost, found

        # What takes least comes first, since the rest may take longer than there is time.
        cost, planned = told(VALIDATION_COST * step / batch_of(resolved, trainer.rows), 0.0)
        learning = _Learning(data, planned, cost, ends, memory, tell)
        learning.begin()
        told(*_end_of_epoch(trainer))
        del trial, trainer
        learning.go_on()


class _Trial:
    """A network that is thrown away: made once, whatever is measured of it.

    Args:
        data: as large as all rows.
        checkpoint: file of its checkpoint.
    """

    def __init__(self, data: Whole, checkpoint: Path) -> None:
        self.data, self._checkpoint = data, checkpoint
        self.trainer: Trainer
        self._made = False
        self._best = math.inf

    def seconds_of_a_step(self, _data: TrainingData, recipe: Recipe, precision: str) -> float:
        """Measure a step on a part of a large batch: enough to tell which precision and how many threads are faster.

        What is far behind the best so far is not measured twice: on busy cores, several threads can take ten times as
        long as one.
        """
        trainer = self.trainer_of(recipe)
        trainer.precision = torch.bfloat16 if precision == "bf16" else None
        rows = trainer.rows_of(trainer.shuffled(), 0)[: max(_SMALL_BATCH, trainer.batch // LATER)]
        if not self.measured:
            torch.set_num_threads(1)
            self._best = self._seconds(rows)
            torch.set_num_threads(recipe.train.threads or 1)
        seconds = self._seconds(rows)
        self._best = min(self._best, seconds)
        return seconds

    @property
    def measured(self) -> bool:
        """Whether it has done steps."""
        return not math.isinf(self._best)

    def _seconds(self, rows: torch.Tensor) -> float:
        """Time a step; the first of a kind counts only if it is slow anyway, or far behind the best."""
        trainer = self.trainer
        first = _timed(lambda: trainer.step(rows, 0))
        if first > min(_SLOW, _FAR * self._best):
            return first
        return min(_timed(lambda: trainer.step(rows, 0)) for _ in range(_TIMES))

    def trainer_of(self, recipe: Recipe) -> Trainer:
        """Return the trainer, with the precision and threads of a recipe."""
        if not self._made:
            torch.set_num_threads(1)
            self.trainer = Trainer(self.data, recipe, self._checkpoint)
            self.trainer.network.train()
            self._made = True
        torch.set_num_threads(recipe.train.threads or 1)
        self.trainer.precision = torch.bfloat16 if recipe.train.precision == "bf16" else None
        return self.trainer


def _with_epochs(recipe: Recipe, asked: int | None, whole: dict[str, int], step: float, judge: float) -> Recipe:
    train = msgspec.structs.replace(recipe.train, epochs=asked)
    epoch = step * max(1, whole["train"] // batch_of(recipe, whole["train"])) + judge * whole["validation"]
    return fix_epochs(msgspec.structs.replace(recipe, train=train), epoch)[0]


def batch_of(recipe: Recipe, rows: int) -> int:
    """Return the rows of a step of a resolved recipe that trains on so many."""
    batch = recipe.train.batch_size
    return batch if isinstance(batch, int) else rows


def _step(trainer: Trainer, recipe: Recipe, seconds: float, *, warm: bool) -> float:
    """Return the seconds of a step with a whole batch, from steps as an epoch does them.

    Args:
        trainer: at its beginning, or after some steps.
        recipe: resolved.
        seconds: that measuring may take.
        warm: whether it has done steps.
    """
    full = batch_of(recipe, trainer.rows) / min(trainer.batch, trainer.rows)

    def one() -> float:
        return _timed(lambda: trainer.step(trainer.rows_of(trainer.shuffled(), 0), 0))

    if not warm:
        one()  # it also makes what the optimizer keeps for each weight
    first = one()
    if first >= _SLOW:
        return first * full
    available = max(1, trainer.rows // trainer.batch)
    trainer.steps = max(1, min(available, max(_FEWEST_STEPS, int(seconds / _TIMES / max(first, 1e-6)))))
    rounds = _TIMES if first < _FAST else 1
    spent = sum(_timed(lambda: trainer.train_epoch(0, _ignore, _never)) for _ in range(rounds)) / rounds
    return spent / trainer.steps * full


def _end_of_epoch(trainer: Trainer) -> tuple[float, float]:
    """Return the seconds of judging a validation row, and of keeping an epoch, with all that is in memory then."""
    judge = _timed(trainer.judge)
    keep = _timed(lambda: trainer.close(0, 0.0, 0.0, _ignore))
    return judge / max(1, trainer.validation[0].count), max(0.0, keep - judge)


class _Learning:
    """Short trainings on more and more rows.

    Args:
        data: the sample.
        recipe: resolved.
        cost: of the network.
        ends: when there is no more time, as `time.monotonic` counts.
        memory: what it is counted from.
        tell: gets each `Learned`.
    """

    def __init__(self, data: TrainingData, recipe: Recipe, cost: Cost, ends: float, memory: Memory, tell: Tell) -> None:
        self._data, self._recipe, self._ends, self._memory, self._tell = data, recipe, ends, memory, tell
        self._pace = cost.step / batch_of(recipe, data.rows["train"])
        self._seen = 0

    def begin(self) -> None:
        """Train on a few rows, for an eighth of the time that is left; on as many as there is time for if need be."""
        most = self._affordable()
        for wanted in (most / (2 * LATER), most):
            if self._train(wanted):
                return

    def go_on(self) -> None:
        """Train on as many rows as there is time for; with time left, once more on more."""
        while self._train(self._affordable()):
            pass

    def _affordable(self) -> float:
        return max(0.0, self._ends - time.monotonic()) / self._pace / _OVERHEAD

    def _train(self, wanted: float) -> bool:
        """Train so that so many rows are seen, unless these are hardly more than before; say whether it was done."""
        rows, passes = divided(wanted, self._data.rows["train"], self._recipe.train.epochs or 1)
        if rows < FEWEST_ROWS or rows * passes <= _MORE * self._seen:
            return False
        began = time.perf_counter()
        self._tell(_short(Subset(self._data, self._recipe, rows), self._recipe, passes, self._memory))
        self._seen = rows * passes
        self._pace = max((time.perf_counter() - began) / self._seen, self._pace / LATER)
        return True


def divided(seen: float, rows: int, epochs: int) -> tuple[int, int]:
    """Divide rows that can be seen into different ones and passes over them.

    Args:
        seen: rows that there is time for.
        rows: of the sample.
        epochs: that the whole training has.

    Returns:
        Rows, at most those of the sample, and epochs, at most those of the whole training.
    """
    passes = min(epochs, _FEWEST_EPOCHS)
    different = min(rows, int(seen / passes))
    if different == rows:
        passes = min(epochs, int(seen / rows))
    return different, passes


def _short(data: Subset, recipe: Recipe, epochs: int, memory: Memory) -> Learned:
    """Train with the settings of the whole training, but as many epochs, and judge the result."""
    rows = data.rows["train"]
    batch = min(batch_of(recipe, rows), max(8, rows // 8))
    train = msgspec.structs.replace(recipe.train, epochs=epochs, batch_size=batch)
    trial = msgspec.structs.replace(recipe, train=train)
    trainer = Trainer(data, trial, None)
    trainer.network.train()
    began = time.perf_counter()
    for epoch in range(epochs):
        trainer.train_epoch(epoch, _ignore, _never)
    spent = time.perf_counter() - began
    judgement = trainer.judge()
    output = (recipe.outputs or ())[0]
    truth = np.asarray(data.outputs("validation")[output.name])
    if isinstance(output, CategoryOutput):
        error = 1 - judgement.value
    else:
        error = judgement.value**2 / max(float(truth.astype(np.float64).var()), 1e-12)
    return Learned(
        rows=rows, epochs=epochs, error=error, judged=len(truth), seconds=spent, batch=batch, grown=memory.grown()
    )


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _ignore(event: object) -> None:
    """Drop an event nobody listens to."""


def _never() -> bool:
    return False
