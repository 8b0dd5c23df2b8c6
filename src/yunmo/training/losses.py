"""What training makes small, and how an epoch is judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  the field's usual name
from torch import Tensor

from yunmo.core.errors import RecipeError
from yunmo.core.fields import CategoryOutput, FieldStatistics, LabelsOutput, NumberOutput, OutputField
from yunmo.data.fields.labels import USUAL_THRESHOLD
from yunmo.models.network import Network

_NUMBER_LOSSES: dict[str, Callable[..., Tensor]] = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss}


class Loss:
    """The sum of all outputs' losses, each member of an ensemble on its own.

    Args:
        outputs: of the recipe.
        statistics: by field; class counts are of the training data.

    Raises:
        RecipeError: class weights name a class that does not exist.
    """

    def __init__(self, outputs: tuple[OutputField, ...], statistics: Mapping[str, FieldStatistics]) -> None:
        self._outputs = outputs
        self._weights = {
            output.name: class_weights(output, statistics[output.name])
            for output in outputs
            if isinstance(output, CategoryOutput)
        }

    def __call__(self, answers: Mapping[str, Tensor], targets: Mapping[str, Tensor], *, separate: bool) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            answers: of `Network.member_answers`, ``[members, N, ...]``.
            targets: class index or scaled value, ``[N]``, or labels, 0 or 1, ``[N, K]``; with ``separate``,
                ``members * N`` instead of N.
            separate: whether members have rows of their own.
        """
        total = torch.zeros(())
        for output in self._outputs:
            answer, target = answers[output.name].float(), targets[output.name]
            members = len(answer)
            if members > 1 and not separate:
                target = torch.cat([target] * members)
            if isinstance(output, NumberOutput):
                loss = _NUMBER_LOSSES[output.loss](answer.flatten(), target)
            elif isinstance(output, LabelsOutput):
                loss = F.binary_cross_entropy_with_logits(answer.flatten(0, 1), target.float())
            else:
                loss = F.cross_entropy(
                    answer.flatten(0, 1),
                    target,
                    weight=self._weights[output.name],
                    label_smoothing=output.label_smoothing or 0.0,
                )
            # The mean over members, times members: each learns as if it were alone.
            total = total + loss * members
        return total


def class_weights(output: CategoryOutput, statistics: FieldStatistics) -> Tensor | None:
    """Return the weight of each class in the loss, ``None`` if all count the same.

    Raises:
        RecipeError: a weight for a class that does not exist.
    """
    categories = output.categories or statistics.categories
    if output.class_weights == "none":
        return None
    if output.class_weights == "balanced":
        counts = torch.tensor([max(1, count) for count in statistics.category_counts], dtype=torch.float32)
        return counts.sum() / (len(counts) * counts)
    for name in output.class_weights:
        if name not in categories:
            raise RecipeError(
                f"there is no class {name!r}",
                where=f"recipe, output {output.name}, class_weights",
                remedy=f"Known: {', '.join(categories)}",
            )
    return torch.tensor([output.class_weights.get(name, 1.0) for name in categories])


@dataclass(frozen=True, slots=True)
class Judgement:
    """How good a network is on validation rows."""

    loss: float
    """Cross-entropy (of labels their mean) or loss of the scaled value, summed over outputs; unsmoothed, unweighted."""
    metric: str
    """``accuracy``, ``f1_micro`` (of labels) or ``rmse`` (in raw units), of the first output."""
    value: float

    def better_than(self, other: Judgement | None, min_delta: float = 0.0) -> bool:
        """Tell whether the metric is better, or equal with a lower loss."""
        if other is None:
            return True
        gain = other.value - self.value if self.metric == "rmse" else self.value - other.value
        return gain > min_delta or (min_delta == 0.0 and gain == 0.0 and self.loss < other.loss)


class Judge:
    """Adds up loss and metric over batches of validation rows."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._rows = 0
        self._loss = 0.0
        self._metric = 0.0
        self._labels = 0.0
        """True and answered labels."""

    def add(self, answers: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
        """Add a batch: what `Network.forward` answers, and class index or scaled value ``[N]`` or labels ``[N, K]``."""
        for index, output in enumerate(self._network.outputs):
            answer, target = answers[output.name].float(), targets[output.name]
            if isinstance(output, NumberOutput):
                self._loss += float(_NUMBER_LOSSES[output.loss](answer, target, reduction="sum"))
                error = self._network.raw(index, answer) - self._network.raw(index, target)
                metric = float(error.double().square().sum())
            elif isinstance(output, LabelsOutput):
                true, held = target.bool(), answer.sigmoid() >= (output.threshold or USUAL_THRESHOLD)
                self._loss += float(
                    F.binary_cross_entropy_with_logits(answer, target.float(), reduction="sum") / target.shape[1]
                )
                metric = float(2 * (true & held).sum())
                if index == 0:
                    self._labels += float(true.sum() + held.sum())
            else:
                self._loss += float(F.cross_entropy(answer, target, reduction="sum"))
                metric = float((answer.argmax(1) == target).sum())
            if index == 0:
                self._metric += metric
                self._rows += len(target)

    def judgement(self) -> Judgement:
        """Return the result over all rows added."""
        first = self._network.outputs[0]
        if isinstance(first, LabelsOutput):
            return Judgement(self._loss / self._rows, "f1_micro", self._metric / max(1.0, self._labels))
        mean = self._metric / self._rows
        if isinstance(first, NumberOutput):
            return Judgement(self._loss / self._rows, "rmse", math.sqrt(mean))
        return Judgement(self._loss / self._rows, "accuracy", mean)
