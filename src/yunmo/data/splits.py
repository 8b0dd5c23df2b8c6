"""Dividing rows into train, validation and test: stratified, seeded, and the same every time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from yunmo.core.fields import CategoryOutput, LabelsOutput, OutputField
from yunmo.data.fields.base import Values
from yunmo.data.fields.category import category_text
from yunmo.data.fields.labels import label_strata
from yunmo.data.fields.number import read_numbers

_BINS = 10

Rows = NDArray[np.int64]


def strata(output: OutputField, values: Values) -> Rows:
    """Return the stratum of each row: its class, its rarest label, or the tenth of the numbers in which it lies."""
    if isinstance(output, CategoryOutput):
        _, codes = np.unique([category_text(value) or "" for value in values], return_inverse=True)
        return codes.astype(np.int64)
    if isinstance(output, LabelsOutput):
        return label_strata(values, output)
    numbers, _ = read_numbers(values)
    edges = np.quantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1]) if len(numbers) else numbers
    return np.searchsorted(edges, numbers).astype(np.int64)


def hold_out(codes: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Divide rows so that every stratum gives the same share.

    Args:
        codes: the stratum of each row.
        share: of the rows that is held out; at least one row is, if there are two.
        seed: of the choice.

    Returns:
        Indices of the rows that stay and of those held out, ascending. A stratum keeps at least one row, so that a
        class with one row is never held out.
    """
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    quotas = np.array([share * len(rows) for rows in members])
    room = np.array([len(rows) - 1 for rows in members], np.int64)
    counts = np.minimum(np.floor(quotas).astype(np.int64), room)
    wanted = min(max(1, round(share * len(codes))), int(room.sum())) if share > 0 else 0
    for index in np.argsort(counts - quotas, kind="stable"):
        if counts.sum() >= wanted:
            break
        counts[index] += counts[index] < room[index]
    held = [generator.permutation(rows)[:count] for rows, count in zip(members, counts, strict=True)]
    chosen = np.sort(np.concatenate(held)) if held else np.empty(0, np.int64)
    stay = np.ones(len(codes), np.bool_)
    stay[chosen] = False
    return np.flatnonzero(stay), chosen
