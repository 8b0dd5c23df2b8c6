"""Prepared data: what training reads, memory-mapped from a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from yunmo.core.errors import DataError
from yunmo.core.events import Decision
from yunmo.core.fields import FieldStatistics
from yunmo.core.recipe import Recipe, recipe_from
from yunmo.core.schema import Spec

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
INDEX = "prepared.json"
"""The file that is written last: a folder without it is not finished."""


class Index(Spec, frozen=True):
    """What ``prepared.json`` holds."""

    fingerprint: str
    """SHA-256 of what was asked for and of the bytes it was made from."""
    recipe: dict[str, Any]
    statistics: dict[str, FieldStatistics]
    rows: dict[str, int]
    cleaning: dict[str, Any]
    decisions: tuple[Decision, ...]
    inputs: dict[str, dict[str, str]]
    """Split to tensor to file."""
    outputs: dict[str, dict[str, str]]
    examples: list[dict[str, Any]]
    texts: dict[str, dict[str, tuple[str, ...]]] = {}
    """Split to text field to two files: the UTF-8 of all rows, and where each begins."""
    embeddings: dict[str, tuple[str, ...]] = {}
    """Text field to two files: the numbers of its tokens that begin with a vector, and these vectors."""
    pretrained: dict[str, str] = {}
    """Field to the file of the weights that its encoder begins with."""


class Texts:
    """The texts of a field as they came, read from the disk when they are asked for.

    Args:
        content: UTF-8 of all rows, one after the other.
        ends: ``[rows + 1]``, where each begins and the last ends.
    """

    def __init__(self, content: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self._content, self._ends = content, ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> list[str]:
        """Return the texts of some rows."""
        return [
            self._content[self._ends[row] : self._ends[row + 1]].tobytes().decode()
            for row in np.arange(len(self))[rows].tolist()
        ]


@dataclass(frozen=True)
class Prepared:
    """Data that is cleaned, split and encoded.

    ``recipe`` has inputs and outputs named, and sizes, colors, categories and lengths fixed; ``rows`` counts each
    split; ``examples`` are up to 8 rows of the test split as requests would send them.
    """

    folder: Path
    recipe: Recipe
    statistics: dict[str, FieldStatistics]
    rows: dict[str, int]
    cleaning: dict[str, Any]
    decisions: tuple[Decision, ...]
    examples: list[dict[str, Any]]
    files: Index

    def inputs(self, split: str) -> dict[str, NDArray[Any]]:
        """Return the input tensors of a split (train, validation or test), as ``Field.encode`` made them."""
        return self._mapped(self.files.inputs[split])

    def outputs(self, split: str) -> dict[str, NDArray[Any]]:
        """Return the output tensors of a split."""
        return self._mapped(self.files.outputs[split])

    @property
    def pretrained(self) -> dict[str, Path]:
        """The safetensors file that a field's pretrained encoder begins with, by field."""
        return {name: self.folder / file for name, file in self.files.pretrained.items()}

    def texts(self, split: str) -> dict[str, Texts]:
        """Return the texts of a split as they came, by field."""
        return {name: Texts(*map(self._array, files)) for name, files in self.files.texts.get(split, {}).items()}

    def embeddings(self) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Return the vectors that texts begin with, by field: numbers of tokens ``[K]``, vectors ``[K, size]``."""
        return {name: (self._array(files[0]), self._array(files[1])) for name, files in self.files.embeddings.items()}

    def _mapped(self, files: dict[str, str]) -> dict[str, NDArray[Any]]:
        return {tensor: self._array(file) for tensor, file in files.items()}

    def _array(self, file: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self.folder / file, mmap_mode="r", allow_pickle=False)
        return array


def load_prepared(folder: Path) -> Prepared:
    """Open a folder that `prepare` finished.

    Raises:
        DataError: it is not finished, or not one.
    """
    try:
        index = msgspec.json.decode((folder / INDEX).read_bytes(), type=Index)
    except FileNotFoundError:
        raise DataError("the data is not prepared", where=str(folder), remedy="Prepare it first") from None
    except msgspec.MsgspecError as error:
        raise DataError(f"damaged: {error}", where=str(folder / INDEX), remedy="Prepare the data again") from None
    return Prepared(
        folder=folder,
        recipe=recipe_from(index.recipe, where=INDEX),
        statistics=index.statistics,
        rows=index.rows,
        cleaning=index.cleaning,
        decisions=index.decisions,
        examples=index.examples,
        files=index,
    )
