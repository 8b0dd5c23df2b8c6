"""Telling what the columns of a data file are, where the recipe does not say."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yunmo.core.errors import DataError
from yunmo.core.events import Decision
from yunmo.core.fields import (
    CategoryField,
    CategoryOutput,
    DateField,
    ImageField,
    InputField,
    LabelsOutput,
    NumberField,
    NumberOutput,
    OutputField,
    SequenceField,
    TextField,
    VectorField,
)
from yunmo.data.fields.base import EXAMPLES, Values, is_missing
from yunmo.data.fields.category import category_text
from yunmo.data.fields.date import detect_format
from yunmo.data.fields.number import read_numbers
from yunmo.data.fields.words import words
from yunmo.data.sources.base import Source

TARGET_NAMES = ("target", "y", "label", "class")
"""Columns taken for the target, in this order, where none is named."""

MOST_CLASSES = 20
"""A target of whole numbers with no more different ones is a class, if each has `LEAST_ROWS` rows on average."""

LEAST_ROWS = 5

_COUNTER = re.compile(r"(row|index|idx|no|nr|number|unnamed.*|id|\W*)", re.IGNORECASE)
_IDENTIFIER = re.compile(r"(^|[_\W])(id|uuid|guid)$|(?<=[a-z])I[dD]$", re.IGNORECASE)
_CONSTANT = "left out: the same in every row"
_DISTINCT_SHARE = 0.5
_DISTINCT_COUNT = 20
_STRAY_SHARE = 0.1
_CODE = re.compile(r"[\w.+-]*@[\w.-]+|\w+://\S*|(?=\S*\d)[\w.:/#+-]+", re.ASCII)
"""What a single thing is known by, and no language: an address, a link, a code with a digit in it."""
_NAMED = re.compile(r"(^|[_\W])(name|email|mail|phone|tel|url|link|user|username|address)$", re.IGNORECASE)
_SEPARATORS = (";", "|")
_LABEL = re.compile(r"[^\W_][^;|\"']{0,39}")
"""A label, where they are to be found without a recipe: short, and nothing else that separates in it."""
_LEAST_CELLS = 20
_TWICE_SHARE = 0.02
"""Cells that may have a label twice, by mistake."""
_TEXT_WORDS = 3
"""Words, on average, from which different texts are language; Chinese characters are half a word each."""
_TEXT_SAMPLE = 1000


def infer_fields(
    source: Source, target: str | None, *, exclude: Sequence[str] = ()
) -> tuple[tuple[InputField, ...], tuple[OutputField, ...], list[Decision]]:
    """Tell inputs and output of a data file.

    Args:
        source: the data.
        target: the column to predict; None for the class of an image folder, or a column with one of `TARGET_NAMES`.
        exclude: columns that are something else already.

    Returns:
        Inputs, outputs (one), and what was decided why, columns that were left out among it.

    Raises:
        DataError: no such target, no usable input, or a column of numbers with some other texts in it.
    """
    target, decisions = find_target(source, target)
    output, decision = infer_output(source, target)
    decisions.append(decision)
    inputs, more = infer_inputs(source, (target, *exclude))
    return inputs, (output,), [*decisions, *more]


def find_target(source: Source, target: str | None) -> tuple[str, list[Decision]]:
    """Return the target column, and the decision if it was not named.

    Raises:
        DataError: there is no such column, or none that could be meant.
    """
    if target is not None:
        check_column(source, target)
        return target, []
    if source.target is not None:
        return source.target, [Decision(key="outputs", value=source.target, reason="the folders' names")]
    for name in TARGET_NAMES:
        if name in source.names:
            return name, [Decision(key="outputs", value=name, reason="no target was named, and this is a usual name")]
    raise DataError(
        "which column is to be predicted?",
        where=source.path.name,
        remedy=f"Name it with --target; the columns are {_listed(source.names)}",
    )


def check_column(source: Source, name: str) -> None:
    """Refuse a column that is not there.

    Raises:
        DataError: names the nearest one.
    """
    if name in source.names:
        return
    folded = {known.casefold(): known for known in source.names}
    near = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.6)
    hint = f"Did you mean {folded[near[0]]!r}? " if near else ""
    raise DataError(
        f"there is no column {name!r}",
        where=source.path.name,
        remedy=f"{hint}The columns are {_listed(source.names)}",
    )


def infer_inputs(source: Source, exclude: Sequence[str]) -> tuple[tuple[InputField, ...], list[Decision]]:
    """Return a field for every column that something can be learned from.

    Raises:
        DataError: there is none, or a column of numbers has some other texts in it.
    """
    fields: list[InputField] = []
    decisions = []
    left_out = []
    for name in source.names:
        if name in exclude:
            continue
        field, reason = input_of(source, name)
        decisions.append(Decision(key=f"inputs.{name}", value=_type(field), reason=reason))
        if field is None:
            left_out.append(f"{name} ({reason})")
        else:
            fields.append(field)
    if not fields:
        detail = f": {'; '.join(left_out)}" if left_out else ""
        raise DataError(
            f"no column that can be learned from{detail}",
            where=source.path.name,
            remedy="Give columns of numbers, categories, dates, texts or pictures, or name the inputs in a recipe",
        )
    return tuple(fields), decisions


def infer_output(source: Source, name: str) -> tuple[OutputField, Decision]:
    """Return the output for a target column.

    Raises:
        DataError: its values are no labels or numbers.
    """
    values = source.column(name)
    if source.is_picture(name) or (isinstance(values, np.ndarray) and values.ndim != 1):
        raise DataError(
            "not a column of labels or numbers",
            where=f"{source.path.name}, column {name}",
            remedy="Name another one with --target",
        )
    numbers, wrong = read_numbers(values)
    present = [value for value in _plain(values) if not is_missing(value)]
    if not present:
        raise DataError("every cell of the target is missing", where=f"{source.path.name}, column {name}")
    if len(wrong):
        _refuse_strays(source, name, values, wrong, len(present))
        found = _labels(name, [str(value) for value in present])
        if found is not None:
            return found
        classes = len({category_text(value) for value in present})
        return _class(name, f"{classes} different texts")
    distinct = np.unique(numbers[~np.isnan(numbers)])
    if (
        np.array_equal(distinct, np.floor(distinct))
        and len(distinct) <= MOST_CLASSES
        and len(present) >= LEAST_ROWS * len(distinct)
    ):
        return _class(name, f"{len(distinct)} different whole numbers")
    reason = f"numbers, {len(distinct)} of them different"
    return NumberOutput(name=name), Decision(key=f"outputs.{name}", value="number", reason=reason)


def _labels(name: str, cells: Sequence[str]) -> tuple[OutputField, Decision] | None:
    """Return the output for cells that hold several labels at once; None where that is not plain to see.

    A single category may have the separator in its name, be a path in a tree (``a|b|c``), or put together of parts that
    are always there (``male|yes``). Of those there are no more different cells than parts (a tree has a path for each
    node), or all cells have equally many parts.
    """
    for separator in _SEPARATORS:
        parts = [[part.strip() for part in cell.split(separator)] for cell in cells]
        several = sum(len(each) > 1 for each in parts)
        known = {part for each in parts for part in each}
        if (
            len(cells) < _LEAST_CELLS
            or several <= _DISTINCT_SHARE * len(cells)
            or len(known) > MOST_CLASSES
            or sum(map(len, parts)) < LEAST_ROWS * len(known)
            or not all(_LABEL.fullmatch(part) for part in known)
            or sum(len(set(each)) < len(each) for each in parts) > _TWICE_SHARE * len(cells)
            or len({frozenset(each) for each in parts}) <= len(known)
            or len({len(each) for each in parts}) == 1
        ):
            continue
        reason = (
            f"{several} of {len(cells)} cells hold several of {len(known)} labels, joined by {separator!r}; "
            f"if not, write outputs: [{{name: {name}, type: category}}]"
        )
        decision = Decision(key=f"outputs.{name}", value="labels", reason=reason)
        return LabelsOutput(name=name, separator=separator), decision
    return None


def _class(name: str, reason: str) -> tuple[OutputField, Decision]:
    return CategoryOutput(name=name), Decision(key=f"outputs.{name}", value="category", reason=reason)


def input_of(source: Source, name: str) -> tuple[InputField | None, str]:
    """Return the input that a column makes (None: it is left out), and why.

    Raises:
        DataError: a column of numbers with some other texts in it, or an array that is nothing known.
    """
    if source.is_picture(name):
        return ImageField(name=name), "pictures"
    values = source.column(name)
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return _infer_array(source, name, values)
    return _infer_cells(source, name, values)


def _infer_array(source: Source, name: str, values: NDArray[Any]) -> tuple[InputField | None, str]:
    shape = " x ".join(map(str, values.shape[1:]))
    if values.ndim == 2:
        return VectorField(name=name), f"{shape} numbers a row"
    if _holds_pixels(values):
        return ImageField(name=name), f"whole numbers from 0 to 255, {shape} a row"
    if values.ndim == 3:
        return SequenceField(name=name), f"numbers, {shape} a row (steps x channels)"
    raise DataError(
        f"rows of {values.ndim - 1} dimensions that are no pictures",
        where=f"{source.path.name}, array {name}",
        remedy="Pictures are (rows, height, width, 1, 3 or 4 channels) of whole numbers from 0 to 255",
    )


def _holds_pixels(values: NDArray[Any]) -> bool:
    if values.ndim == 4 and values.shape[3] not in (1, 3, 4):
        return False
    if values.ndim > 4 or values.dtype.kind not in "iuf":
        return False
    if values.dtype == np.uint8:
        return True
    sample = values[:: max(1, len(values) // 256)]
    return bool(np.all((sample >= 0) & (sample <= 255) & (np.floor(sample) == sample)))


def _infer_cells(source: Source, name: str, values: Values) -> tuple[InputField | None, str]:
    numbers, wrong = read_numbers(values)
    if not len(wrong) and not np.isnan(numbers).all():
        return _infer_number(name, numbers, first=name == source.names[0])
    present = [value for value in _plain(values) if not is_missing(value)]
    distinct = len(set(present))
    if not present:
        return None, "left out: every cell is missing"
    if distinct == 1 and len(present) == len(values):
        return None, _CONSTANT
    texts = list(dict.fromkeys(str(value) for value in present))
    if detect_format(texts[:100])[0] is not None:
        form, _ = detect_format(texts)
        if form is not None:
            return DateField(name=name), f"dates such as {texts[0]}"
    _refuse_strays(source, name, values, wrong, len(present))
    if distinct > _DISTINCT_COUNT and distinct > _DISTINCT_SHARE * len(present):
        return _infer_text(name, texts, f"{distinct} of {len(present)} texts are different")
    return CategoryField(name=name), f"{distinct} different texts"


def _infer_text(name: str, texts: Sequence[str], reason: str) -> tuple[InputField | None, str]:
    """Tell language from identifiers, which are different in nearly every row, too."""
    some = texts[:: max(1, len(texts) // _TEXT_SAMPLE)]
    codes = sum(_CODE.fullmatch(text) is not None for text in some) / len(some)
    length = sum(_word_count(text) for text in some) / len(some)
    reason = f"{reason}, of {length:.1f} words"
    if codes > _DISTINCT_SHARE or length < _TEXT_WORDS or _IDENTIFIER.search(name) or _NAMED.search(name):
        return None, f"left out: an identifier, {reason}; {_override(name, 'text')}"
    return TextField(name=name), f"{reason}; {_override(name, 'category')}"


def _override(name: str, kind: str) -> str:
    return f"if not, write inputs: [{{name: {name}, type: {kind}}}]"


def _word_count(text: str) -> float:
    return sum(0.5 if word >= "\u0e00" else 1.0 for word in words(text) if word[0].isalnum())


def _infer_number(name: str, numbers: NDArray[np.float64], *, first: bool) -> tuple[InputField | None, str]:
    present = numbers[~np.isnan(numbers)]
    distinct = len(np.unique(present))
    if distinct == 1 and len(present) == len(numbers):
        return None, _CONSTANT
    if distinct == len(numbers) > 2 and np.array_equal(present, np.floor(present)):
        counts = bool(np.all(np.diff(present) == 1))
        if counts and (present[0] in (0, 1) or _IDENTIFIER.search(name)) and (first or _COUNTER.fullmatch(name)):
            return None, "left out: it counts the rows"
        if _IDENTIFIER.search(name):
            return None, "left out: an identifier, different in every row"
    return NumberField(name=name), f"numbers, {distinct} of them different"


def _refuse_strays(source: Source, name: str, values: Values, wrong: NDArray[np.int64], present: int) -> None:
    """Refuse a column of numbers with a few other texts: a guess either way would hide a mistake.

    Raises:
        DataError: names the rows.
    """
    rows = wrong.tolist()
    if not rows or len(rows) > max(1, _STRAY_SHARE * present) or present < 4 * len(rows):
        return
    cells = _plain(values)
    also = ", ".join(f"{cells[row]!r} in {source.where(row)}" for row in rows[1:EXAMPLES])
    array = isinstance(values, np.ndarray) and values.dtype.kind in "iuf"
    remedy = (
        "Correct these values, or make them NaN if they are not known"
        if array
        else "Correct these cells or leave them empty; or name the column's type in a recipe: "
        f"inputs: [{{name: {name}, type: category}}]"
    )
    raise DataError(
        f"{cells[rows[0]]!r} in a column of numbers ({len(rows)} of {present} "
        f"{'values' if array else 'cells'} {'is' if len(rows) == 1 else 'are'} none{f'; also {also}' if also else ''})",
        where=f"{source.where(rows[0])}, field {name}",
        remedy=remedy,
    )


def _plain(values: Values) -> Sequence[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values


def _type(field: InputField | None) -> str:
    return str(field.__struct_config__.tag) if field is not None else "none"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
