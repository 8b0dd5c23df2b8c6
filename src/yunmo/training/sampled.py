"""A few prepared rows that stand for all: subsets to learn from, statistics as all rows would give them. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from yunmo.core.events import Decision
from yunmo.core.fields import FieldStatistics, InputField, TextField
from yunmo.core.recipe import Recipe
from yunmo.core.tokenizers import PretrainedTokenizer
from yunmo.training.data import Texts, TrainingData

JUDGED = 128
"""Validation rows that are enough to tell how long judging takes."""


class View:
    """Some rows of a sample, as `TrainingData`.

    Args:
        data: the sample.
        recipe: to train; its fields are those of the sample.
        rows: of each split that are said to be there.
    """

    def __init__(self, data: TrainingData, recipe: Recipe, rows: Mapping[str, int]) -> None:
        self._data = data
        self.recipe = recipe
        self.rows = {**data.rows, **rows}
        self._held = dict(self.rows)
        self.decisions: tuple[Decision, ...] = ()
        self.statistics = dict(data.statistics)
        self._numbers: dict[str, NDArray[np.int32]] = {}

    def inputs(self, split: str) -> dict[str, NDArray[Any]]:
        """Return the encoded inputs of a split."""
        tensors: dict[str, NDArray[Any]] = {}
        for name, values in self._data.inputs(split).items():
            kept = values[: self._held[split]]
            tensors[name] = self._numbers[name][kept] if name in self._numbers else kept
        return tensors

    def outputs(self, split: str) -> dict[str, NDArray[Any]]:
        """Return the encoded outputs of a split."""
        return {name: values[: self._held[split]] for name, values in self._data.outputs(split).items()}

    def embeddings(self) -> Mapping[str, tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Return the vectors that texts begin with."""
        return self._data.embeddings()

    @property
    def pretrained(self) -> Mapping[str, Path]:
        """The files that pretrained encoders begin with: none, since they are not tried."""
        return self._data.pretrained

    def texts(self, split: str) -> Mapping[str, Texts]:
        """Return the texts of a split as they came."""
        return {name: _First(texts, self.rows[split]) for name, texts in self._data.texts(split).items()}


class Subset(View):
    """The first rows of a sample, whose order is one of chance.

    A text's vocabulary is what these rows would have given: n-grams that only others have are left out.

    Args:
        data: the sample.
        recipe: to train.
        rows: training rows that are taken.
    """

    def __init__(self, data: TrainingData, recipe: Recipe, rows: int) -> None:
        super().__init__(data, recipe, {"train": min(rows, data.rows["train"])})
        for field in recipe.inputs or ():
            if data.statistics[field.name].buckets:
                self._forget(field)

    def _forget(self, field: InputField) -> None:
        """Number the n-grams anew that these rows have; the others become padding."""
        learned = self._data.statistics[field.name]
        tokens = np.asarray(self._data.inputs("train")[field.name][: self.rows["train"]])
        counts = np.bincount(tokens.ravel(), minlength=len(learned.buckets) + 1)
        counts[0] = 0
        present = np.flatnonzero(counts)
        numbers = np.zeros(len(counts), np.int32)
        numbers[present] = np.arange(1, len(present) + 1)
        self._numbers[field.name] = numbers
        self.statistics[field.name] = msgspec.structs.replace(
            learned,
            count=self.rows["train"],
            buckets=tuple(learned.buckets[place - 1] for place in present),
            bucket_counts=tuple(counts[present].tolist()),
        )


class _First:
    """The first texts of a split."""

    def __init__(self, texts: Texts, rows: int) -> None:
        self._texts, self._rows = texts, rows

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> list[str]:
        """Return the texts of some rows."""
        return self._texts[np.arange(self._rows)[rows]]


class Whole(View):
    """A sample that says of itself that it is as large as all rows, vocabularies included: to measure steps on.

    Args:
        data: the sample.
        recipe: to train.
        rows: of each split that there are.
    """

    def __init__(self, data: TrainingData, recipe: Recipe, rows: Mapping[str, int]) -> None:
        super().__init__(data, recipe, rows)
        self._held["validation"] = JUDGED
        for field in recipe.inputs or ():
            if isinstance(field, TextField):
                self.statistics[field.name] = grown(data, field, rows["train"])


def grown(data: TrainingData, field: TextField, rows: int) -> FieldStatistics:
    """Return a text's statistics with as many tokens as so many rows would have; the tokens added are made up.

    Vocabularies grow as a power of the number of texts (Heaps 1978); a quarter of the sample and the sample tell which.

    Args:
        data: the sample.
        field: the text.
        rows: training rows that there are.
    """
    learned = data.statistics[field.name]
    tokens = np.asarray(data.inputs("train")[field.name])
    known = len(learned.buckets) or len(learned.pieces)
    most = (
        known
        if field.tokenizer is None or isinstance(field.tokenizer, PretrainedTokenizer)
        else field.tokenizer.vocabulary
    )
    if rows <= len(tokens) or known < 2:
        return learned
    part = len(np.unique(tokens[: max(1, len(tokens) // 4)]))
    power = float(np.clip(math.log(max(known, 2) / max(part, 1)) / math.log(4), 0.0, 1.0))
    wanted = max(known, min(most, int(known * (rows / len(tokens)) ** power)))
    times = -(-wanted // known)
    return msgspec.structs.replace(
        learned,
        count=rows,
        buckets=(learned.buckets * times)[: wanted if learned.buckets else 0],
        bucket_counts=(learned.bucket_counts * times)[: wanted if learned.bucket_counts else 0],
        pieces=(learned.pieces * times)[: wanted if learned.pieces else 0],
    )
