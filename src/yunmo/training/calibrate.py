"""Calibration: making probabilities as high as the share of answers that are right, and deciding by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import msgspec
import torch
import torch.nn.functional as F  # noqa: N812  the field's usual name
from torch import Tensor

from yunmo.core.events import Decision
from yunmo.core.fields import CategoryOutput, LabelsOutput, OutputField
from yunmo.data.fields.labels import USUAL_THRESHOLD
from yunmo.models.network import Network
from yunmo.training.batches import Rows
from yunmo.training.metrics import best_threshold

LEAST_ROWS = 100
"""Of fewer validation rows a temperature would be a guess."""
LOWEST, HIGHEST = 0.25, 4.0
_BATCH = 512
_TOLERANCE = 1e-4
"""Of the logarithm of the temperature."""


def calibrate(network: Network, inputs: Rows, targets: Rows) -> tuple[Decision, ...]:
    """Set the network's temperatures: one per output of categories or labels (Guo et al. 2017, https://arxiv.org/abs/1706.04599).

    Args:
        network: trained; it is left in evaluation mode.
        inputs: rows that it was not trained on.
        targets: their class indices, or labels, by output.

    Returns:
        What was found for each output of categories or labels.
    """
    network.eval()
    categories = [
        (index, output)
        for index, output in enumerate(network.outputs)
        if isinstance(output, (CategoryOutput, LabelsOutput))
    ]
    if not categories:
        return ()
    if inputs.count < LEAST_ROWS:
        reason = f"probabilities are not calibrated: {inputs.count} validation rows are too few"
        return tuple(_decision(output, 1.0, reason) for _, output in categories)
    logits, truth = _answers(network, inputs, targets)
    decisions = []
    for index, output in categories:
        several = isinstance(output, LabelsOutput)
        found = (label_temperature if several else temperature)(logits[output.name], truth[output.name])
        network.temperatures[index] = found
        log_loss = _label_loss if several else F.cross_entropy
        before, after = (float(log_loss(logits[output.name] / value, truth[output.name])) for value in (1.0, found))
        reason = f"calibrates probabilities: log loss {before:.4f} -> {after:.4f} on {inputs.count} validation rows"
        decisions.append(_decision(output, found, reason))
    return tuple(decisions)


def temperature(logits: Tensor, truth: Tensor) -> float:
    """Return the temperature, `LOWEST` to `HIGHEST`, that makes the log loss smallest.

    Each row counts as right with probability ``(n + 1) / (n + 2)`` only, as in Platt (1999): else rows that are all
    right would ask for certainty, which no finite number of rows can show.

    Args:
        logits: ``[n, classes]``.
        truth: class index ``[n]``.
    """
    logits = logits.double()
    rows, classes = logits.shape
    if classes < 2:
        return 1.0
    doubt = 1 / (rows + 2)

    def loss(exponent: float) -> float:
        log = (logits / math.exp(exponent)).log_softmax(1)
        right = log.gather(1, truth[:, None])[:, 0]
        wrong = (log.sum(1) - right) / (classes - 1)
        return -float(((1 - doubt) * right + doubt * wrong).mean())

    # The loss is convex in 1 / temperature, so it has one valley along its logarithm too.
    return math.exp(_valley(loss, math.log(LOWEST), math.log(HIGHEST)))


def label_temperature(logits: Tensor, truth: Tensor) -> float:
    """Return the temperature of labels; as `temperature`.

    Args:
        logits: ``[n, labels]``.
        truth: whether each holds, 0 or 1, same shape.
    """
    logits, doubt = logits.double(), 1 / (len(logits) + 2)
    held = doubt + (1 - 2 * doubt) * truth.double()

    def loss(exponent: float) -> float:
        return float(F.binary_cross_entropy_with_logits(logits / math.exp(exponent), held))

    return math.exp(_valley(loss, math.log(LOWEST), math.log(HIGHEST)))


def choose_thresholds(
    network: Network, inputs: Rows, targets: Rows
) -> tuple[tuple[OutputField, ...], tuple[Decision, ...]]:
    """Choose from which probability a label holds, where the recipe leaves it open: the one with the best F1 (micro).

    Args:
        network: trained and calibrated; it is left in evaluation mode.
        inputs: rows that it was not trained on.
        targets: their labels, by output.

    Returns:
        The outputs, every threshold fixed, and why.
    """
    network.eval()
    left = [output for output in network.outputs if isinstance(output, LabelsOutput) and output.threshold is None]
    if not left:
        return network.outputs, ()
    logits, truth = _answers(network, inputs, targets)
    chosen: dict[str, float] = {}
    decisions = []
    for index, output in enumerate(network.outputs):
        if output not in left:
            continue
        value, reason = USUAL_THRESHOLD, f"the usual one: {inputs.count} validation rows are too few to choose it"
        if inputs.count >= LEAST_ROWS:
            shares = (logits[output.name] / network.temperatures[index]).sigmoid()
            value, best, usual = best_threshold(truth[output.name].bool().numpy(), shares.numpy())
            reason = f"F1 (micro) {best:.3f} on {inputs.count} validation rows; {usual:.3f} at {USUAL_THRESHOLD:g}"
        chosen[output.name] = value
        decisions.append(Decision(key=f"{output.name}.threshold", value=f"{value:g}", reason=reason))
    outputs = tuple(
        msgspec.structs.replace(output, threshold=chosen[output.name]) if output.name in chosen else output
        for output in network.outputs
    )
    return outputs, tuple(decisions)


def _label_loss(logits: Tensor, truth: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, truth.float())


def _valley(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function with one valley is lowest, by golden-section search."""
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > _TOLERANCE:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = function(right)
    return (low + high) / 2


def _answers(network: Network, inputs: Rows, targets: Rows) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return logits, and class indices or labels, of all rows, in full precision, as serving computes them."""
    answers: list[Mapping[str, Tensor]] = []
    truth: list[Mapping[str, Tensor]] = []
    with torch.inference_mode():
        for start in range(0, inputs.count, _BATCH):
            stop = min(start + _BATCH, inputs.count)
            answers.append(network.joined(inputs.slice(start, stop)))
            truth.append(targets.slice(start, stop))
        return _whole(answers), _whole(truth)


def _whole(parts: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _decision(output: CategoryOutput | LabelsOutput, value: float, reason: str) -> Decision:
    return Decision(key=f"{output.name}.temperature", value=f"{value:.3g}", reason=reason)
