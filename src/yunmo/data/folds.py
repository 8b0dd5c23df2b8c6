"""Folds of cross-validation: which rows are held out in each, by scikit-learn's splitters."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yunmo.core.errors import DataError
from yunmo.core.recipe import CrossValidationSpec
from yunmo.data.fields.base import Values, is_missing
from yunmo.data.fields.category import category_text
from yunmo.data.fields.date import detect_format
from yunmo.data.fields.number import read_numbers
from yunmo.data.splits import Rows


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold of the rows that are not the test's."""

    number: int
    """From 0."""
    without_test: bool
    """Whether the test rows are to be taken away first, since they come from the same file."""


def divide(
    spec: CrossValidationSpec, fold: Fold, codes: Rows, keys: Values | None, seed: int, where: Callable[[int], str]
) -> tuple[Rows, Rows]:
    """Return which rows a fold trains on, and which it holds out; indices, ascending.

    stratified: every fold has each class (or tenth of the numbers) in the same share. group: rows with the same key are
    never on both sides; otherwise as even as that allows. time: the rows held out are later than those trained on;
    the earliest rows are never held out.

    Args:
        spec: how many folds of which kind.
        fold: which of them.
        codes: the stratum of each row.
        keys: group or time of each row; None for stratified ones.
        seed: of the choice.
        where: says which row of the file an index means.

    Raises:
        DataError: fewer rows or groups than folds, or a row without a group or time.
    """
    from sklearn.model_selection import (  # type: ignore[import-untyped]  # it ships no types
        StratifiedGroupKFold,
        StratifiedKFold,
        TimeSeriesSplit,
    )

    order = np.arange(len(codes))
    groups: Any = None
    splitter: Any
    if spec.method == "stratified":
        splitter = StratifiedKFold(spec.folds, shuffle=True, random_state=seed)
    elif spec.method == "group":
        splitter = StratifiedGroupKFold(spec.folds, shuffle=True, random_state=seed)
        groups = _groups(keys if keys is not None else (), spec, where)
    else:
        splitter = TimeSeriesSplit(spec.folds)
        order = np.argsort(_times(keys if keys is not None else (), spec, where), kind="stable")
    try:
        with warnings.catch_warnings():
            # A class with fewer rows than folds is in some folds only: the metrics of those say so.
            warnings.simplefilter("ignore", UserWarning)
            divided = list(splitter.split(order, codes, groups))
    except ValueError as error:
        raise DataError(
            f"{spec.folds} folds cannot be made of these rows ({error})",
            remedy="Give more rows or groups, or set a lower evaluate.cross_validation.folds",
        ) from None
    stay, held = divided[fold.number]
    if not len(stay) or not len(held):
        raise DataError("a fold has no rows", remedy="Set a lower evaluate.cross_validation.folds")
    return np.sort(order[stay]), np.sort(order[held])


def _groups(keys: Values, spec: CrossValidationSpec, where: Callable[[int], str]) -> NDArray[np.int64]:
    _refuse_missing(keys, spec, where)
    _, groups = np.unique([category_text(key) or "" for key in keys], return_inverse=True)
    return groups.astype(np.int64)


def _times(keys: Values, spec: CrossValidationSpec, where: Callable[[int], str]) -> NDArray[np.float64]:
    """Return each row's time as a number: numbers as they are, dates by what form of them fits all."""
    _refuse_missing(keys, spec, where)
    numbers, wrong = read_numbers(keys)
    if not len(wrong):
        return numbers
    texts = [str(key).strip() for key in keys]
    form, _ = detect_format(texts)
    if form is None:
        row = int(wrong[0])
        raise DataError(
            f"{texts[row][:80]!r} is no number, and no form of date reads every cell",
            where=f"{where(row)}, {spec.column}",
            remedy="Write dates as 2026-11-22, or 2026-11-22 13:45:00",
        )
    return np.array([datetime.strptime(text, form).timestamp() for text in texts])  # noqa: DTZ007 - only their order counts


def _refuse_missing(keys: Values, spec: CrossValidationSpec, where: Callable[[int], str]) -> None:
    for row, key in enumerate(keys):
        if is_missing(key):
            raise DataError(
                f"no {spec.method} for cross-validation",
                where=f"{where(row)}, {spec.column}",
                remedy="Fill the cell, or leave the row out",
            )
