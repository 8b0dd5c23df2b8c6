"""Learning rates over a run. One-cycle (Smith and Topin 2018, https://arxiv.org/abs/1708.07120) has straight sides."""

from __future__ import annotations

import math

from yunmo.core.recipe import ScheduleSpec

_ONE_CYCLE_WARMUP = 0.2


class Schedule:
    """The learning rate of each step.

    Args:
        spec: the recipe's ``train.schedule``.
        lr: the highest rate.
        steps: steps of the whole run.
        steps_per_epoch: steps of an epoch.
    """

    def __init__(self, spec: ScheduleSpec, lr: float, *, steps: int, steps_per_epoch: int) -> None:
        self._spec, self._lr = spec, lr
        self._steps, self._steps_per_epoch = steps, steps_per_epoch
        default = _ONE_CYCLE_WARMUP if spec.type == "one_cycle" else 0.0
        self._warmup = default if spec.warmup is None else spec.warmup
        self._plateau = 1.0
        self._best = math.inf
        self._without_gain = 0

    def rate(self, step: int) -> float:
        """Return the rate of a step, counted from 0."""
        progress = (step + 0.5) / self._steps
        if progress < self._warmup:
            return self._lr * self._plateau * progress / self._warmup
        rest = (progress - self._warmup) / (1 - self._warmup)
        match self._spec.type:
            case "cosine":
                share = 0.5 * (1 + math.cos(math.pi * rest))
            case "one_cycle":
                share = 1 - rest
            case "step":
                share = self._spec.factor ** (step // self._steps_per_epoch // self._spec.step_epochs)
            case "plateau":
                share = self._plateau
            case "constant":
                share = 1.0
        return self._lr * share

    def epoch_ended(self, validation_loss: float) -> None:
        """Tell the schedule how an epoch ended; only ``plateau`` listens."""
        if self._spec.type != "plateau":
            return
        if validation_loss < self._best:
            self._best, self._without_gain = validation_loss, 0
            return
        self._without_gain += 1
        if self._without_gain > self._spec.patience:
            self._plateau, self._without_gain = self._plateau * self._spec.factor, 0

    def state(self) -> list[float]:
        """Return what a checkpoint keeps."""
        return [self._plateau, self._best, float(self._without_gain)]

    def restore(self, state: list[float]) -> None:
        """Go on from what `state` returned."""
        self._plateau, self._best, self._without_gain = state[0], state[1], int(state[2])
