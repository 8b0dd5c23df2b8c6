"""What training needs of prepared data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from yunmo.core.events import Decision
from yunmo.core.fields import FieldStatistics
from yunmo.core.recipe import Recipe


class Texts(Protocol):
    """The texts of one field."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> list[str]: ...


class TrainingData(Protocol):
    """What training needs of prepared data; ``data.prepare.Prepared`` is it."""

    @property
    def recipe(self) -> Recipe:
        """The recipe with its fields made explicit."""

    @property
    def statistics(self) -> dict[str, FieldStatistics]:
        """What was learned of each field."""

    @property
    def rows(self) -> dict[str, int]:
        """Number of rows by split."""

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What preparing decided."""

    @property
    def pretrained(self) -> Mapping[str, Path]:
        """The safetensors file that a field's pretrained encoder begins with, by field."""

    def inputs(self, split: str) -> dict[str, npt.NDArray[np.generic]]:
        """Encoded inputs, memory-mapped."""

    def texts(self, split: str) -> Mapping[str, Texts]:
        """Texts as they came, by field."""

    def embeddings(self) -> Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Vectors that texts begin with, by field: numbers of tokens ``[K]``, and their vectors ``[K, size]``."""

    def outputs(self, split: str) -> dict[str, npt.NDArray[np.generic]]:
        """Encoded outputs, memory-mapped."""
