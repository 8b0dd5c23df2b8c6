"""The training loop: lean, deterministic, resumable.

What one step costs is the network's own work: batches are indexed from the decoded cache, augmented as tensors, and
nothing else happens in a step. The same resolved recipe on the same machine gives the same numbers, bit for bit; so
does a run that was stopped or killed and went on from its checkpoint.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yunmo.core.encoders import (
    CnnEncoder,
    EmbeddingEncoder,
    FlatEncoder,
    OneHotEncoder,
    OrdinalEncoder,
    ResnetEncoder,
)
from yunmo.core.errors import Cancelled, DataError, TrainingFailed
from yunmo.core.events import AnyEvent, Decision, EpochFinished, RecipeResolved, TrainingProgress
from yunmo.core.fields import FieldStatistics, NumberOutput
from yunmo.core.recipe import Recipe, ScheduleSpec, recipe_data
from yunmo.models.augment import Augmentation
from yunmo.models.network import Network
from yunmo.training.averaging import Average, Lookahead
from yunmo.training.batches import Rows, by_length
from yunmo.training.calibrate import calibrate, choose_thresholds
from yunmo.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    random_states,
    restore_random_states,
    save_checkpoint,
    write_tensors,
)
from yunmo.training.data import TrainingData
from yunmo.training.losses import Judge, Judgement, Loss
from yunmo.training.measure import time_steps
from yunmo.training.optimizers import Optimizers
from yunmo.training.resolve import resolve
from yunmo.training.schedules import Schedule

_PROGRESS_SECONDS = 0.25
_VALIDATION_BATCH = 512
_SAMPLE_ROWS, _SAMPLE_PIXELS = (64, 2000), 2_000_000
"""Rows, at least and at most, and pixels of the sample from which stems are computed."""
_CHEAP = (FlatEncoder, OneHotEncoder, OrdinalEncoder, EmbeddingEncoder)
"""Encoders that cost so little that each member of an ensemble can have rows of its own."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished training."""

    recipe: Recipe
    """Resolved: nothing is left open."""
    history: list[EpochFinished]
    weights: Path
    """safetensors of the network that was kept, as `Network.state_dict` names them."""
    decisions: tuple[Decision, ...]
    """What was decided after the last epoch: temperatures, and thresholds of labels."""


def _ignore(event: AnyEvent) -> None:
    """Drop an event nobody listens to."""


def _never() -> bool:
    return False


def train(
    data: TrainingData,
    recipe: Recipe,
    folder: Path,
    *,
    emit: Callable[[AnyEvent], None] = _ignore,
    cancelled: Callable[[], bool] = _never,
    cores: int | None = None,
) -> TrainResult:
    """Train a network, or go on with a training that was stopped or killed in this folder.

    Args:
        data: prepared data.
        recipe: with its fields explicit; what it still leaves open is decided first.
        folder: for the resolved recipe, the checkpoint and the weights.
        emit: gets `RecipeResolved` before the first step, then progress and epochs; when it goes on, first the epochs
            so far again, since the last of them may have been lost with whoever listened.
        cancelled: asked often; True stops after the running step, the checkpoint stays.
        cores: processor cores the job may use, if the recipe does not say; ``None``: all.

    Raises:
        RecipeError: the recipe does not fit the data.
        DataError: too few rows to train on.
        TrainingFailed: the loss became infinite or NaN.
        StorageFull: no space for the checkpoint; the last one is kept.
        Cancelled: ``cancelled`` answered True.
    """
    for split in ("train", "validation"):
        if not data.rows.get(split):
            raise DataError(
                f"there are no {split} rows", remedy="Add data, or change train.validation, the share for validation"
            )
    with settings_of_torch():
        resolved, decisions = resolve(data, recipe, folder, seconds=seconds_of_a_step, cores=cores)
        emit(RecipeResolved(recipe_data(resolved), decisions))
        torch.set_num_threads(resolved.train.threads or 1)
        trainer = Trainer(data, resolved, folder / "checkpoint.safetensors")
        return trainer.run(folder / "weights.safetensors", emit, cancelled)


@contextmanager
def settings_of_torch() -> Iterator[None]:
    """Make torch deterministic, and leave it afterwards as it was."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    # A property of a module, which type checkers don't see.
    debugging: Any = torch.utils.deterministic
    fill = debugging.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory only serves to find reads of it; it costs time in every step.
    debugging.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        debugging.fill_uninitialized_memory = fill


def seconds_of_a_step(data: TrainingData, recipe: Recipe, precision: str) -> float:
    """Measure a training step of a planned recipe, on a network that is thrown away."""
    trial = msgspec.structs.replace(recipe.train, precision=precision, epochs=1)
    torch.set_num_threads(recipe.train.threads or 1)
    trainer = Trainer(data, msgspec.structs.replace(recipe, train=trial), None)
    order = trainer.shuffled()
    # Each time another batch: they may be of different lengths.
    batches = itertools.cycle(range(trainer.steps))
    return time_steps(lambda: trainer.step(trainer.rows_of(order, next(batches)), 0))


def _tensors(numbers: NDArray[np.int64], vectors: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(np.array(numbers)), torch.from_numpy(np.array(vectors))


def _stopped() -> Cancelled:
    return Cancelled("training was stopped", remedy="Resume the run to go on from its last epoch")


class Trainer:
    """A network and everything that changes it.

    Args:
        data: prepared data.
        recipe: resolved.
        checkpoint: the checkpoint's file; ``None``: none is written or read.
    """

    def __init__(self, data: TrainingData, recipe: Recipe, checkpoint: Path | None) -> None:
        spec = recipe.train
        torch.manual_seed(spec.seed)
        np.random.seed(spec.seed % 2**32)
        random.seed(spec.seed)
        self.recipe, self.spec = recipe, spec
        self.network = Network(recipe, data.statistics)
        self.network.begin(data.pretrained)
        if any(isinstance(field.encoder, (ResnetEncoder, CnnEncoder)) for field in recipe.inputs or ()):
            self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs
        self.network.begin_with({name: _tensors(*found) for name, found in data.embeddings().items()})
        self.inputs = Rows(data.inputs("train"))
        self.network.fit(self.inputs.take(_sample(recipe, data.statistics, self.inputs.count)))
        self.loss = Loss(recipe.outputs or (), data.statistics)
        self.optimizer = Optimizers(self.network, spec)
        self.average = Average(self.network, spec.ema) if spec.ema else None
        self.targets = self._targets(data, "train")
        self.validation = Rows(data.inputs("validation")), self._targets(data, "validation")
        self.rows = self.inputs.count
        # Attention costs time for padding too; other networks keep the order that they have always had.
        self.lengths = [self.inputs.column(f"{name}_length") for name in self.network.pretrained()]
        self.batch = spec.batch_size if isinstance(spec.batch_size, int) else self.rows
        # An incomplete last batch is left out: its gradient is noise. Rows are shuffled, so each has its turn.
        self.steps = max(1, self.rows // self.batch)
        self.epochs = spec.epochs or 1
        steps = self.steps * self.epochs
        schedule = spec.schedule or ScheduleSpec(type="constant")
        self.schedule = Schedule(schedule, spec.lr or 0.0, steps=steps, steps_per_epoch=self.steps)
        self.lookahead = Lookahead(self.network, spec.lookahead, steps) if spec.lookahead else None
        # Rows of their own make members differ more; where features are costly they share them.
        cheap = all(isinstance(field.encoder, _CHEAP) for field in recipe.inputs or ())
        self.separate = self.network.members > 1 and cheap
        self.augmentation = Augmentation(recipe.inputs or (), data.statistics, self.rows, spec.seed)
        self.precision = torch.bfloat16 if spec.precision == "bf16" else None
        self.checkpoint = checkpoint
        self.history: list[EpochFinished] = []
        self.best: tuple[Judgement, dict[str, Tensor]] | None = None
        self.stale = 0

    def _targets(self, data: TrainingData, split: str) -> Rows:
        """Return a split's outputs with numbers scaled as the network answers them."""
        arrays = dict(data.outputs(split))
        for index, output in enumerate(self.network.outputs):
            if isinstance(output, NumberOutput):
                raw = torch.from_numpy(np.array(arrays[output.name], dtype=np.float32))
                arrays[output.name] = self.network.scaled(index, raw).numpy()
        return Rows(arrays, in_memory=True)

    def shuffled(self) -> Tensor:
        """Return this epoch's order of rows ``[N]``, or one for each member ``[members, N]``."""
        if not self.separate:
            order = torch.randperm(self.rows)
            return by_length(order, torch.stack(self.lengths).sum(0), self.batch) if self.lengths else order
        return torch.stack([torch.randperm(self.rows) for _ in range(self.network.members)])

    def rows_of(self, order: Tensor, index: int) -> Tensor:
        """Return the row numbers of a step of the epoch; with several orders, one after the other."""
        return order[..., index * self.batch : (index + 1) * self.batch].flatten()

    def step(self, rows: Tensor, number: int) -> float:
        """Do one step and return its loss, the mean over members.

        Args:
            rows: row numbers of the batch.
            number: of the step in the whole run, from 0: sets the learning rate.
        """
        inputs = self.augmentation(self.inputs.take(rows), rows, number // self.steps)
        targets = self.targets.take(rows)
        self.optimizer.set_rate(self.schedule.rate(number))
        with torch.autocast("cpu", self.precision, enabled=self.precision is not None):
            answers = self.network.member_answers(inputs, separate=self.separate)
        loss = self.loss(answers, targets, separate=self.separate)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        if self.spec.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.spec.gradient_clip)
        self.optimizer.step()
        if self.lookahead is not None:
            self.lookahead.update(self.network, number)
        if self.average is not None:
            self.average.update(self.network, number)
        return loss.item() / self.network.members

    def judge(self) -> Judgement:
        """Evaluate on the validation rows: the averaged network if there is one."""
        network = self.network if self.average is None else self.average.network
        inputs, targets = self.validation
        judge = Judge(network)
        network.eval()
        with torch.inference_mode():
            for start in range(0, inputs.count, _VALIDATION_BATCH):
                stop = min(start + _VALIDATION_BATCH, inputs.count)
                with torch.autocast("cpu", self.precision, enabled=self.precision is not None):
                    answers = network(inputs.slice(start, stop))
                judge.add(answers, targets.slice(start, stop))
        network.train()
        return judge.judgement()

    def run(self, weights: Path, emit: Callable[[AnyEvent], None], cancelled: Callable[[], bool]) -> TrainResult:
        """Train from the checkpoint, or the beginning, to the end, and write the weights that are kept."""
        self.restore()
        for event in self.history:
            emit(event)
        self.network.train()
        while not self.finished:
            epoch, start = len(self.history), time.perf_counter()
            loss = self.train_epoch(epoch, emit, cancelled)
            self.close(epoch, loss, time.perf_counter() - start, emit)
            if cancelled() and not self.finished:
                raise _stopped()
        kept = self.best[1] if self.best is not None and self.spec.keep != "last" else self._weights()
        network = self.network if self.average is None else self.average.network
        network.load_state_dict(kept)
        network.finish()
        decisions = calibrate(network, *self.validation) if self.spec.calibrate else ()
        write_tensors(weights, network.state_dict())
        outputs, more = choose_thresholds(network, *self.validation)
        recipe = msgspec.structs.replace(self.recipe, outputs=outputs)
        return TrainResult(recipe, self.history, weights, (*decisions, *more))

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or early stopping ended them."""
        stopping = self.spec.early_stopping
        return len(self.history) >= self.epochs or (stopping is not None and self.stale >= stopping.patience)

    def train_epoch(self, epoch: int, emit: Callable[[AnyEvent], None], cancelled: Callable[[], bool]) -> float:
        """Do all steps of an epoch, counted from 0, and return the mean loss."""
        start = time.perf_counter()
        order = self.shuffled()
        total, told = 0.0, start
        for index in range(self.steps):
            loss = self.step(self.rows_of(order, index), epoch * self.steps + index)
            if not math.isfinite(loss):
                raise TrainingFailed(
                    f"the loss became {loss} in epoch {epoch + 1}, step {index + 1}",
                    remedy=f"Set a lower learning rate than train.lr: {self.spec.lr}, or train.gradient_clip: 1.0",
                )
            total += loss
            now = time.perf_counter()
            if now - told >= _PROGRESS_SECONDS:
                if cancelled():
                    raise _stopped()
                told = now
                emit(self._progress(epoch, index + 1, total / (index + 1), now - start))
        return total / self.steps

    def _progress(self, epoch: int, step: int, loss: float, seconds: float) -> TrainingProgress:
        left = (self.epochs - epoch) * self.steps - step
        return TrainingProgress(
            epoch=epoch + 1,
            epochs=self.epochs,
            step=step,
            steps=self.steps,
            loss=loss,
            rows_per_second=step * self.batch / seconds,
            seconds_left=left * seconds / step,
        )

    def close(self, epoch: int, train_loss: float, seconds: float, emit: Callable[[AnyEvent], None]) -> None:
        """Judge an epoch, keep it if it is the best, write the checkpoint, tell of it."""
        judgement = self.judge()
        self.schedule.epoch_ended(judgement.loss)
        previous = self.best[0] if self.best else None
        better = judgement.better_than(previous)
        stopping = self.spec.early_stopping
        enough = better if stopping is None else judgement.better_than(previous, stopping.min_delta)
        self.stale = 0 if enough else self.stale + 1
        if better:
            self.best = judgement, {name: value.clone() for name, value in self._weights().items()}
        event = EpochFinished(
            epoch=epoch + 1,
            epochs=self.epochs,
            train_loss=train_loss,
            validation_loss=judgement.loss,
            metric=judgement.metric,
            value=judgement.value,
            best=better,
            lr=self.schedule.rate((epoch + 1) * self.steps - 1),
            seconds=seconds,
        )
        self.history.append(event)
        self.save()
        emit(event)

    def _weights(self) -> dict[str, Tensor]:
        network = self.network if self.average is None else self.average.network
        return dict(network.state_dict())

    def save(self) -> None:
        """Write the checkpoint.

        Raises:
            StorageFull: no space left; the previous checkpoint is kept.
        """
        if self.checkpoint is None:
            return
        state, others = random_states()
        tensors = {
            "model": dict(self.network.state_dict()),
            "optimizer": self.optimizer.state(),
            "random": {"torch": state},
        }
        if self.average is not None:
            tensors["average"] = dict(self.average.network.state_dict())
        if self.lookahead is not None:
            tensors["lookahead"] = self.lookahead.state()
        if self.best is not None:
            tensors["best"] = self.best[1]
        facts = {
            "history": msgspec.to_builtins(self.history),
            "schedule": self.schedule.state(),
            "stale": self.stale,
            "best": msgspec.to_builtins(self.best[0]) if self.best else None,
            "random": others,
        }
        save_checkpoint(self.checkpoint, Checkpoint(tensors, facts))

    def restore(self) -> None:
        """Go on from the checkpoint, if there is one.

        Raises:
            TrainingFailed: it can't be read.
        """
        saved = load_checkpoint(self.checkpoint) if self.checkpoint is not None else None
        if saved is None:
            return
        self.network.load_state_dict(saved.tensors["model"])
        self.optimizer.restore(saved.tensors.get("optimizer", {}))
        if self.average is not None:
            self.average.network.load_state_dict(saved.tensors["average"])
        if self.lookahead is not None:
            self.lookahead.restore(saved.tensors["lookahead"])
        if saved.facts["best"] is not None:
            self.best = msgspec.convert(saved.facts["best"], Judgement), saved.tensors["best"]
        self.history = msgspec.convert(saved.facts["history"], list[EpochFinished])
        self.schedule.restore(saved.facts["schedule"])
        self.stale = saved.facts["stale"]
        restore_random_states(saved.tensors["random"]["torch"], saved.facts["random"])


def _sample(recipe: Recipe, statistics: Mapping[str, FieldStatistics], rows: int) -> Tensor:
    """Return the numbers of some training rows, fewer of large pictures; on resume the same."""
    pixels = max(math.prod(statistics[field.name].shape[:2]) for field in recipe.inputs or ())
    count = max(_SAMPLE_ROWS[0], min(_SAMPLE_ROWS[1], _SAMPLE_PIXELS // pixels))
    return torch.randperm(rows, generator=torch.Generator().manual_seed(recipe.train.seed))[:count]
