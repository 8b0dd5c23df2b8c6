"""Preparing a few of the rows, where they tell enough about all of them."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from yunmo.data.fields.base import Field
from yunmo.data.fields.image import ImageField
from yunmo.data.fields.text import READ, TextField
from yunmo.data.sources.base import Picture
from yunmo.data.splits import Rows, hold_out

MOST_ROWS = 8000
"""Training rows that are drawn, at most; rows held out are a quarter of it."""
FEWEST_ROWS = 200
PICTURE_ROWS, PICTURE_BYTES = 4096, 24_000_000
"""Training rows with pictures, and bytes of their files, which tell how long decoding takes."""
TEXT_ROWS, CHARACTERS = 2500, 500_000
"""Training rows with texts, and characters, since learning n-grams takes most of preparing them."""
_LOOKED_AT = 64


@dataclass
class Sample:
    """Which rows of each split are prepared; what was seen while they were drawn is noted here.

    Args:
        seed: of the choice.
    """

    seed: int = 0
    whole: dict[str, int] = field(default_factory=dict)
    """Rows of each split that could have been drawn: read, cleaned and divided as for a training."""
    drawn_at: float = 0.0
    """When that was done (`time.monotonic`): what comes after it takes as long as there are rows drawn."""

    def draw(
        self,
        rows: Mapping[str, Rows],
        strata: Rows,
        labels: Sequence[Mapping[str, Sequence[str | None]]],
        most: int,
    ) -> dict[str, Rows]:
        """Draw rows of every split.

        Rows held out whose label was not drawn for training are left out, but not those with a label that no training
        row has: these are a mistake in the data, which is told as ever.

        Args:
            rows: of each split.
            strata: of the training rows.
            labels: by split, the label of each row; one mapping for each output that is a category.
            most: training rows.

        Returns:
            Rows of each split in an order of chance, so that the first of them are a sample, too.
        """
        self.whole = {split: len(chosen) for split, chosen in rows.items()}
        places = {split: self._places(split, len(chosen), strata, most) for split, chosen in rows.items()}
        for known in labels:
            drawn = {known["train"][place] for place in places["train"]}
            missed = set(known["train"]) - drawn
            for split, found in places.items():
                kept = [known[split][place] not in missed for place in found]
                places[split] = found[np.array(kept, np.bool_)]
        self.drawn_at = time.monotonic()
        return {split: chosen[places[split]] for split, chosen in rows.items()}

    def _places(self, split: str, count: int, strata: Rows, most: int) -> Rows:
        wanted = most if split == "train" else max(FEWEST_ROWS, most // 4)
        generator = np.random.default_rng(self.seed)
        if count <= wanted or split != "train":
            return generator.permutation(count)[:wanted]
        return generator.permutation(hold_out(strata, wanted / count, self.seed)[1])


def rows_enough(fields: Collection[Field], columns: Mapping[str, Any]) -> int:
    """Return how many training rows are few enough to be prepared within seconds.

    Args:
        fields: the inputs.
        columns: raw values of each field's column.
    """
    most = MOST_ROWS
    for opened in fields:
        values = columns[opened.column]
        some = [values[place] for place in range(0, len(values), max(1, len(values) // _LOOKED_AT))]
        if isinstance(opened, ImageField):
            bytes_each = np.mean([value.hint()[0] if isinstance(value, Picture) else 0 for value in some])
            most = min(most, PICTURE_ROWS, int(PICTURE_BYTES / max(1.0, float(bytes_each))))
        elif isinstance(opened, TextField):
            long = np.mean([len(str(value or "")[:READ]) for value in some])
            most = min(most, TEXT_ROWS, int(CHARACTERS / max(1.0, float(long))))
    return max(FEWEST_ROWS, most)
