"""Trying an imported graph on a few rows: alone, together, and again. What it answers becomes the golden answers."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from yunmo.core import fields as specs
from yunmo.core.errors import BundleError, InvalidInput, ModelFailed
from yunmo.data.fields import pixels as px
from yunmo.data.fields.base import Field, encode_rows
from yunmo.data.fields.number import join_numbers
from yunmo.inference.compare import TOLERANCE, tensor_difference
from yunmo.inference.session import Arrays, Session
from yunmo.packaging.imported.safety import first_line

ROWS = 3
_SEED = 20261101
_FREE_SIZES = (8, 16, 32, 64, 96, 128, 224, 256, 1, 3)
"""Sizes tried for an axis that the graph leaves open (networks for pictures often want a multiple of 32)."""
_MOST_VALUES = 400_000
"""Values of all golden rows together; with larger inputs there are fewer rows."""
_STEP = 16
"""Made-up numbers are sixteenths, which every float type holds exactly and JSON writes briefly."""
_GROWTH = 6.0
_SUM = 0.02
_EXAMPLES = "Give rows that it can answer under 'examples:' in the fields file"


@dataclass(frozen=True)
class Tried:
    """What a trial found."""

    rows: tuple[dict[str, Any], ...]
    """The golden rows, raw."""
    answers: Arrays
    """The graph's answers to them."""
    free: int | None
    """The size that open axes had; None if there are none."""


class BatchMatters(BundleError):
    """The graph does not answer a batch as it answers its rows one by one."""


def try_graph(
    session: Session, fields: Mapping[str, Field], joined: Sequence[str], examples: Sequence[Mapping[str, Any]]
) -> Tried:
    """Run a graph on a few rows and hold its answers against each other.

    Args:
        session: the graph.
        fields: its inputs.
        joined: the number fields that come in one tensor.
        examples: raw rows to use; none: made-up ones.

    Raises:
        BatchMatters: it fails on more than one row, or answers rows of a batch otherwise than alone.
        BundleError: it fails on one row, or answers the same rows differently the second time.
        InvalidInput: an example does not fit.
    """
    failure: ModelFailed | None = None
    for rows, free in _candidates(fields, examples):
        encoded = join_numbers(encode_rows(fields, rows), joined)
        first = {name: array[:1] for name, array in encoded.items()}
        try:
            session.run(first)
        except ModelFailed as error:
            failure = failure or error
            continue
        answers = _as_one(session, encoded)
        _as_alone(session, encoded, answers)
        _as_again(session, encoded, answers)
        kept = min(len(rows), _kept(encoded))
        return Tried(tuple(rows[:kept]), {name: array[:kept] for name, array in answers.items()}, free)
    why = first_line(failure.message) if failure else "there is no row"
    raise BundleError(f"it fails on made-up values: {why}", remedy=_EXAMPLES)


def check_probabilities(name: str, answers: Any) -> None:
    """Refuse what are no probabilities: a wrong ``from`` would answer nonsense.

    Raises:
        InvalidInput: below 0, or a sum other than 1.
    """
    if not np.isfinite(answers).all():
        raise InvalidInput(
            "answers made-up rows with NaN or infinity", where=f"fields file, outputs, {name}", remedy=_EXAMPLES
        )
    if (answers < -_SUM).any() or (np.abs(answers.sum(axis=1) - 1) > _SUM).any():
        raise InvalidInput(
            "the values are no probabilities: they do not add up to 1",
            where=f"fields file, outputs, {name}",
            remedy="Say from: logits if they come before a softmax; or make it a tensor if several may be true",
        )


def _candidates(
    fields: Mapping[str, Field], examples: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[list[dict[str, Any]], int | None]]:
    if examples:
        given = [{name: example.get(name) for name in fields} for example in examples]
        for index, example in enumerate(examples):
            if example.keys() != fields.keys():
                raise InvalidInput(
                    f"the fields are {', '.join(fields)}", where=f"fields file, examples[{index}]", remedy="Give each"
                )
        yield [given[index % len(given)] for index in range(max(ROWS, len(given)))], None
        return
    free = any(isinstance(field.spec, specs.TensorField) and None in field.spec.shape for field in fields.values())
    for size in _FREE_SIZES if free else (None,):
        random = np.random.default_rng(_SEED)
        yield (
            [{name: _made_up(field, random, size, row) for name, field in fields.items()} for row in range(ROWS)],
            size,
        )


def _made_up(field: Field, random: np.random.Generator, free: int | None, row: int) -> Any:
    spec = field.spec
    if isinstance(spec, specs.ImageField):
        pixels = random.integers(0, 256, [size or 1 for size in field.tensors()[0].shape], np.uint8)
        return base64.b64encode(px.to_png(pixels)).decode()
    if isinstance(spec, specs.CategoryField):
        return str(random.choice(np.array(spec.categories or ("",), object)))
    if isinstance(spec, specs.NumberField):
        return float(_numbers(random, (), row))
    if isinstance(spec, specs.VectorField):
        return _numbers(random, field.known().shape, row).tolist()
    if not isinstance(spec, specs.TensorField):
        raise TypeError(f"no made-up values for {type(spec).__name__}")
    shape = tuple((free or 1) if size is None else size for size in spec.shape)
    if spec.datatype == "string":
        return np.full(shape, "a").tolist()
    if spec.datatype == "bool":
        return (random.random(shape) < 0.5).tolist()
    if spec.datatype.startswith("float"):
        return _numbers(random, shape, row).tolist()
    if spec.datatype == "uint8":
        return random.integers(0, 256, shape).tolist()
    return random.integers(0, 2, shape).tolist()  # small: it may be an index into something


def _numbers(random: np.random.Generator, shape: tuple[int, ...], row: int) -> Any:
    """Return normal numbers; those of a table grow from row to row, since what a column is like is not known."""
    size = _GROWTH**row if len(shape) < 2 else 1.0
    return np.round(random.normal(0, size, shape) * _STEP) / _STEP


def _as_one(session: Session, encoded: Arrays) -> Arrays:
    rows = len(next(iter(encoded.values())))
    try:
        answers = session.run(encoded)
    except ModelFailed as error:
        raise BatchMatters(f"it answers one row, but not {rows} at once: {first_line(error.message)}") from None
    for name, array in answers.items():
        if not isinstance(array, np.ndarray):
            raise BundleError(f"the output {name!r} is no tensor", remedy="Export the model with tensors as outputs")
        if array.ndim == 0 or len(array) != rows:
            raise BatchMatters(
                f"the output {name!r} has the shape {list(array.shape)} for {rows} rows: the first axis is not theirs"
            )
    return answers


def _as_alone(session: Session, encoded: Arrays, answers: Arrays) -> None:
    for row in range(len(next(iter(encoded.values())))):
        alone = session.run({name: array[row : row + 1] for name, array in encoded.items()})
        for name, array in answers.items():
            if alone[name].shape != (1, *array.shape[1:]):
                raise BatchMatters(f"the output {name!r} has another shape for one row than for several")
            off = tensor_difference(alone[name], array[row : row + 1]).max()
            if off > TOLERANCE:
                raise BatchMatters(f"the output {name!r} of a row depends on the other rows of its batch")


def _as_again(session: Session, encoded: Arrays, answers: Arrays) -> None:
    again = session.run(encoded)
    for name, array in answers.items():
        equal_nan = array.dtype.kind == "f"
        if not np.array_equal(again[name], array, equal_nan=equal_nan):
            raise BundleError(
                f"the output {name!r} differs when the same rows are run again",
                remedy="Export the model in inference mode, without dropout or sampling",
            )


def _kept(encoded: Arrays) -> int:
    values = sum(array.size for array in encoded.values() if array.dtype != np.uint8)
    row = max(1, values // len(next(iter(encoded.values()))))
    return max(1, min(ROWS, _MOST_VALUES // row))
