"""Answers as cells of a table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from yunmo.core.fields import LabelsOutput
from yunmo.data.fields.labels import held_labels, join_labels
from yunmo.data.fields.tensor import plain_tensor
from yunmo.inference.compare import check_finite

DIGITS = 6
"""Decimals of a probability in a table."""


def answer_names(categories: Mapping[str, Sequence[str] | None], labels: Collection[str] = ()) -> list[str]:
    """Return the columns that outputs make: ``predicted_NAME``, and ``NAME_probability`` of a category.

    Args:
        categories: by output, the names of its categories or labels, None where it has none.
        labels: outputs that are several labels at once.
    """
    names = []
    for output, known in categories.items():
        names.append(f"predicted_{output}")
        if known is not None and output not in labels:
            names.append(f"{output}_probability")
    return names


def answer_columns(
    categories: Mapping[str, Sequence[str] | None],
    answers: Mapping[str, Any],
    plain: frozenset[str],
    labels: Mapping[str, LabelsOutput],
) -> list[list[Any]]:
    """Return a graph's outputs as the columns of `answer_names`.

    Args:
        categories: as `answer_names` takes them.
        answers: by output: probabilities [N, categories] or [N, labels], numbers [N], or tensors of N rows.
        plain: outputs that are tensors.
        labels: outputs that are several labels at once, whose cells hold them joined.

    Raises:
        ModelFailed: an answer is NaN or infinite.
    """
    columns: list[list[Any]] = []
    for output, known in categories.items():
        answer = answers[output]
        if output in plain:
            columns.append(list(plain_tensor(answer)))
            continue
        check_finite(output, answer)
        if known is None:
            columns.append(answer.tolist())
            continue
        if output in labels:
            spec = labels[output]
            columns.append([join_labels(held, spec.separator) for held in held_labels(answer, spec)])
            continue
        best = answer.argmax(axis=1)
        columns.append([known[place] for place in best.tolist()])
        columns.append([round(share, DIGITS) for share in answer[np.arange(len(best)), best].tolist()])
    return columns


def answer_row(prediction: Mapping[str, Mapping[str, Any]], separators: Mapping[str, str]) -> dict[str, Any]:
    """Return one prediction, as the native API has it, as cells by the names of `answer_names`.

    Args:
        prediction: by output.
        separators: of each output that is several labels at once, what joins them.
    """
    found: dict[str, Any] = {}
    for output, answer in prediction.items():
        value, separator = answer["value"], separators.get(output)
        found[f"predicted_{output}"] = value if separator is None else join_labels(value, separator)
        if "probability" in answer:
            found[f"{output}_probability"] = round(answer["probability"], DIGITS)
    return found
