"""A bundle opened for prediction: raw rows in, predictions out. No torch.

The way of a row: its names are checked here, each value is encoded by its field (`yunmo.data.fields`, the same code
as in training), the graph runs in ONNX Runtime, and the answers get their names back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import operator
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yunmo.bundle.files import GOLDEN, GRAPH, MANIFEST, STATISTICS
from yunmo.bundle.read import Bundle, Golden, open_bundle
from yunmo.core.errors import BodyTooLarge, BundleError, InvalidInput, ModelFailed
from yunmo.core.fields import (
    JOINED_NUMBERS,
    CategoryOutput,
    FieldStatistics,
    LabelsOutput,
    ModelInput,
    TensorOutput,
    TextField,
)
from yunmo.data.fields.base import Field
from yunmo.data.fields.labels import held_labels
from yunmo.data.fields.number import NumberBlock, join_numbers
from yunmo.data.fields.number import NumberField as NumberFieldType
from yunmo.data.fields.pixels import MAX_PIXELS
from yunmo.data.fields.registry import open_field
from yunmo.data.fields.tensor import plain_tensor
from yunmo.inference.compare import INT8_TOLERANCE, TOLERANCE, check_finite, difference, tensor_difference
from yunmo.inference.isolated import IsolatedSession, Kill
from yunmo.inference.schema import input_schema, output_schema
from yunmo.inference.session import Arrays, Graph, Session, Stop

CHUNK = 16
"""Rows in one run of the graph; more at once are no faster on a CPU and take more memory."""

_BATCHES = (1, 2, 4, 8, 16)
"""Sizes of a batch that are tried when a model is loaded."""
_BATCH_SECONDS = 300e-6
"""Seconds that a batch costs beside its run, about: joining, handing over and taking apart, and that the code of all
else is out of the processor's caches after it."""
_MEASURE_SECONDS = 0.25
"""No further size is tried once measuring took so long."""
_TRIES = 5
_ABOUT = 1.05

_MANY_NAMES = 8
_LEAST_JOINED = 2
_LOOP = b'"\x04Loop'
"""How a node that is a loop begins its type in an ONNX file: field 4, four bytes, the name."""


class Predictor:
    """A verified, loaded and tried bundle. Make it with `Predictor.open`; threads may share it."""

    def __init__(self, bundle: Bundle, fields: Mapping[str, Field], session: Graph) -> None:
        # Not the bundle itself: golden pictures need not stay in memory.
        self.manifest = bundle.manifest
        """What the bundle says of itself."""
        self.digest = bundle.digest
        """The bundle's digest, ``sha256:…``."""
        self.fields = dict(fields)
        """The fields of a row, by name."""
        self._names = self.fields.keys()
        self._joined = bundle.manifest.tensors.joined
        self._block = NumberBlock(_numbers_of(self.fields, self._joined)) if self._joined else None
        self._pick = operator.itemgetter(*self._joined) if self._joined else None
        self._apart = {name: field for name, field in self.fields.items() if name not in self._joined}
        self._session = session
        self._texts = tuple(
            tensor.name
            for tensor in bundle.manifest.tensors.inputs
            if tensor.shape == (None,) and isinstance(getattr(self.fields.get(tensor.name), "spec", None), TextField)
        )
        self._one_by_one = bundle.recipe is not None and bundle.recipe.pack.precision == "int8"
        """Whether a run has one row: what a quantised graph answers to a row would depend on those beside it."""
        self.isolated = not isinstance(session, Session)
        """Whether the graph runs in a process of its own."""
        self.inline = not self.isolated
        """Whether its runs are as long as the shapes of their inputs say; else one of them may never end."""
        self.categories: dict[str, list[str] | None] = {
            output.name: list(output.categories or ()) if isinstance(output, (CategoryOutput, LabelsOutput)) else None
            for output in bundle.manifest.outputs
        }
        """By output: the names of its categories or labels in order, None where it has none."""
        self.labels = {output.name: output for output in bundle.manifest.outputs if isinstance(output, LabelsOutput)}
        """The outputs that are several labels at once, by name."""
        self._plain = frozenset(output.name for output in bundle.manifest.outputs if isinstance(output, TensorOutput))
        self.run_seconds = 0.0
        """Seconds that a run of one row takes, measured with a golden example."""
        self.batch_rows = 1
        """Rows beyond which a larger batch takes no less time a row, measured likewise."""
        self.input_schema = input_schema(self.fields)
        """JSON Schema of one row."""
        self.output_schema = output_schema(
            bundle.manifest.outputs, {name: names for name, names in self.categories.items() if names is not None}
        )
        """JSON Schema of one prediction."""

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        public_key_pem: str,
        threads: int = 1,
        max_pixels: int = MAX_PIXELS,
        isolated: bool = False,
        timeout: float | None = None,
    ) -> Predictor:
        """Verify a bundle, load it, and run its golden examples (which warms it up).

        Args:
            folder: the bundle.
            public_key_pem: the key that must have signed it.
            threads: how many one call may use.
            max_pixels: most pixels of a picture that is decoded.
            isolated: run the graph in a process of its own; `close` ends it.
            timeout: seconds after which loading it and running its golden examples is given up; None: never.

        Raises:
            IntegrityError: not signed with that key, or a file was changed, removed or added.
            BundleError: made by a newer Yunmo, or it does not give its golden answers.
        """
        bundle = open_bundle(folder, public_key_pem)
        fields = _open_fields(bundle, max_pixels)
        stop = Kill() if isolated else Stop()
        with _stopped_after(timeout, stop), contextlib.ExitStack() as opened:
            if isinstance(stop, Kill):
                lean = dataclasses.replace(bundle, golden=Golden((), {}))
                manifest = bundle.manifest
                session = IsolatedSession(
                    lean.read_graph,
                    manifest.tensors,
                    threads=threads,
                    name=manifest.name,
                    folder=bundle.mapped,
                    stop=stop,
                )
                predictor = cls(bundle, fields, session)
            else:
                data = bundle.read(GRAPH)
                tensors = bundle.manifest.tensors
                predictor = cls(bundle, fields, Session(data, tensors, threads=threads, folder=bundle.mapped))
                predictor.inline = _LOOP not in data
                del data
            opened.callback(predictor.close)
            predictor._measure(predictor._check_golden(bundle, stop), stop)
            opened.pop_all()
        return predictor

    def close(self) -> None:
        """Let go of the graph; a run in progress may end with an error."""
        self._session.close()

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        """Specifications of the fields that a row has."""
        return self.manifest.inputs

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Answer rows, in their order.

        Args:
            rows: raw values by field: as JSON holds them, or as a file does (str cells, bytes of pictures).

        Returns:
            For each row and output, a category's ``value``, ``probability`` and ``probabilities`` by name, the list of
            labels that hold as ``value`` and the ``probabilities`` of all by name, or a number's ``value``.

        Raises:
            InvalidInput: a row lacks a field, has one too many, or a value does not fit; with row (from 0) and field.
            BodyTooLarge: a picture of too many pixels.
            ModelFailed: the graph failed or answered something that is no number.
        """
        return list(self.stream(rows))

    def stream(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Answer rows one after the other, as they come, in chunks of `CHUNK`.

        Raises:
            InvalidInput: as `predict`, when it comes to that row; those before it are answered.
            ModelFailed: as `predict`.
        """
        first = 0
        iterator = iter(rows)
        while chunk := list(itertools.islice(iterator, CHUNK)):
            yield from self.decode(self._run(self._encode(chunk, first)))
            first += len(chunk)

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> Arrays:
        """Return the graph's inputs for rows: one tensor by name, a row in each place of the first axis.

        Raises:
            InvalidInput: as `predict`.
        """
        return self._encode(rows, 0)

    def encode_columns(self, columns: Mapping[str, Sequence[Any]], rows: int) -> Arrays:
        """Return the graph's inputs for rows that come as columns.

        Args:
            columns: raw values by field, ``rows`` of each; arrays are read as they are.
            rows: how many there are.

        Raises:
            InvalidInput: as `predict`, or a column of another length.
        """
        for name in columns:
            if name not in self.fields:
                raise InvalidInput(f"unknown field {str(name)[:100]!r}", remedy=f"The model has: {self._known()}")
        for name in self.fields:
            if name not in columns:
                raise InvalidInput(f"missing field {name!r}", remedy="Give it")
            if len(columns[name]) != rows:
                raise InvalidInput(f"{len(columns[name])} rows where another field has {rows}", where=f"field {name}")
        joined = [columns[name] for name in self._joined]
        # Arrays are read by their fields, which look at an array as a whole.
        lists = joined and not any(isinstance(values, np.ndarray) for values in joined)
        numbers = list(zip(*joined, strict=True)) if lists else None
        return self._encode_fields(columns.__getitem__, numbers, 0)

    def new_stop(self) -> Any:
        """Return what can end a `run` from another thread, by its method ``set``."""
        return self._session.new_stop()

    def run(self, tensors: Mapping[str, Any], stop: Any = None) -> Arrays:
        """Return the graph's outputs for encoded rows, computed in chunks of `CHUNK`.

        Args:
            tensors: as `encode` returns them.
            stop: what `new_stop` made; ends the run when it is set.

        Returns:
            By output: probabilities float32 [N, categories] or [N, labels], or numbers float32 [N].

        Raises:
            ModelFailed: the graph failed (wrong tensors, no memory).
        """
        total = min((len(tensor) for tensor in tensors.values()), default=0)
        if total <= CHUNK:
            return self._run(tensors, stop)
        parts = [
            self._run({name: tensor[start : start + CHUNK] for name, tensor in tensors.items()}, stop)
            for start in range(0, total, CHUNK)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run(self, tensors: Mapping[str, Any], stop: Any = None) -> Arrays:
        """Run the graph on texts that are cut to the longest of them, where it takes any length."""
        rows = min((len(tensor) for tensor in tensors.values()), default=0)
        if self._one_by_one and rows > 1:
            parts = [
                self._run({name: tensor[row : row + 1] for name, tensor in tensors.items()}, stop)
                for row in range(rows)
            ]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if self._texts:
            tensors = dict(tensors)
            for name in self._texts:
                tensors[name] = tensors[name][:, : max(1, int(tensors[f"{name}_length"].max(initial=1)))]
        return self._session.run(tensors, stop)

    def decode(self, answers: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Turn the graph's outputs into predictions, one for each row.

        Raises:
            ModelFailed: an answer is NaN or infinite.
        """
        columns: list[tuple[str, list[dict[str, Any]]]] = []
        for name, categories in self.categories.items():
            answer = answers[name]
            if name in self._plain:
                columns.append((name, [{"value": row} for row in plain_tensor(answer)]))
                continue
            check_finite(name, answer)
            if name in self.labels:
                columns.append((name, _label_sets(answer, self.labels[name])))
            else:
                columns.append((name, _numbers(answer) if categories is None else _labels(answer, categories)))
        if len(columns) == 1:
            ((name, column),) = columns
            return [{name: value} for value in column]
        names = [name for name, _ in columns]
        return [dict(zip(names, row, strict=True)) for row in zip(*(column for _, column in columns), strict=True)]

    def single_input(self, media_type: str) -> str | None:
        """Return the field that a raw request body of a media type fills alone, None if there is none."""
        kind = media_type.partition(";")[0].strip().lower()
        return next((field.name for field in self._alone if field.reads(kind)), None)

    @property
    def raw_types(self) -> tuple[str, ...]:
        """The media types of such a body that clients are told of."""
        return tuple(itertools.chain.from_iterable(field.MEDIA_TYPES for field in self._alone))

    @property
    def _alone(self) -> tuple[Field, ...]:
        """The only field, if there is one."""
        return tuple(self.fields.values()) if len(self.fields) == 1 else ()

    def _encode(self, rows: Sequence[Mapping[str, Any]], first: int) -> Arrays:
        for index, row in enumerate(rows, first):
            if row.keys() != self._names:
                raise self._wrong_names(row, index)
        numbers = list(map(self._pick, rows)) if self._pick is not None else None
        return self._encode_fields(lambda name: [row[name] for row in rows], numbers, first)

    def _encode_fields(
        self, column: Callable[[str], Sequence[Any]], numbers: Sequence[Sequence[Any]] | None, first: int
    ) -> Arrays:
        """Encode fields, those that share a tensor at once if they can be.

        Args:
            column: returns the values of a field.
            numbers: of each row, the values of the fields that share a tensor; None: each field reads its own.
            first: number of the first row.
        """
        table = self._block.encode(numbers) if self._block is not None and numbers is not None else None
        tensors: Arrays = {}
        for name, field in (self.fields if table is None else self._apart).items():
            values = column(name)
            try:
                tensors.update(field.encode(values))
            except (InvalidInput, BodyTooLarge) as error:
                raise _locate(field, values, first) or error from None
        if table is None:
            return join_numbers(tensors, self._joined)
        tensors[JOINED_NUMBERS] = table
        return tensors

    def _wrong_names(self, row: Mapping[str, Any], index: int) -> InvalidInput:
        for name in row:
            if name not in self.fields:
                return InvalidInput(
                    f"unknown field {str(name)[:100]!r}",
                    where=f"row {index}",
                    remedy=f"The model has: {self._known()}",
                )
        missing = next(name for name in self.fields if name not in row)
        nullable = getattr(self.fields[missing].spec, "missing", "drop") != "drop"
        return InvalidInput(
            f"missing field {missing!r}",
            where=f"row {index}",
            remedy="Give it, or null if it is not known (in a form: an empty part)" if nullable else "Give it",
        )

    def _known(self) -> str:
        more = ", …" if len(self.fields) > _MANY_NAMES else ""
        return ", ".join(itertools.islice(self.fields, _MANY_NAMES)) + more

    def _measure(self, example: Mapping[str, Any], stop: Any) -> None:
        """Learn how long a row takes and how large a batch is worth it.

        Args:
            example: encoded rows, at least one.
            stop: ends it when it is set.
        """
        each: dict[int, float] = {}
        for rows in _BATCHES:
            index = np.arange(rows) % min(len(tensor) for tensor in example.values())
            batch = {name: tensor[index] for name, tensor in example.items()}
            seconds = min(self._time(batch, stop) for _ in range(_TRIES))
            each[rows] = (seconds + _BATCH_SECONDS) / rows
            if rows == 1:
                self.run_seconds = seconds
            if _TRIES * sum(rows * one for rows, one in each.items()) > _MEASURE_SECONDS:
                break
        # The smallest batch that is about as good as the best: latency counts too, and measuring has its noise.
        self.batch_rows = min(rows for rows, one in each.items() if one <= _ABOUT * min(each.values()))

    def _time(self, batch: Mapping[str, Any], stop: Any) -> float:
        began = time.perf_counter()
        self._run(batch, stop)
        return time.perf_counter() - began

    def _check_golden(self, bundle: Bundle, stop: Any) -> Arrays:
        """Run the golden examples; return them encoded."""
        golden = bundle.golden
        try:
            encoded = self.encode(golden.rows)
            answers = self.run(encoded, stop)
        except (InvalidInput, BodyTooLarge, ModelFailed) as error:
            raise BundleError(f"a golden example fails: {error}", where=GOLDEN) from None
        for name in self.categories:
            # As objects: texts, and whole numbers beyond what a float holds.
            found, expected = answers[name], np.asarray(golden.answers.get(name), dtype=object)
            if found.shape != expected.shape:
                raise BundleError(f"golden answers of {name!r} have another shape", where=GOLDEN)
            if name in self._plain:
                off = tensor_difference(found, expected)
            else:
                deviation = None if self.categories[name] is not None else _deviation(bundle.statistics.get(name))
                off = difference(found, expected, deviation)
            tolerance = INT8_TOLERANCE if self._one_by_one else TOLERANCE
            if not (off <= tolerance).all():
                raise BundleError(
                    f"{name!r} of golden example {off.argmax()} is off by {off.max():.2g}, more than {tolerance:g}",
                    where=GOLDEN,
                    remedy="Train it again with this version of Yunmo",
                )
        return encoded


@contextlib.contextmanager
def _stopped_after(seconds: float | None, stop: Stop | Kill) -> Iterator[None]:
    """Set ``stop`` if the block takes longer."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, stop.set)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _open_fields(bundle: Bundle, max_pixels: int) -> dict[str, Field]:
    """Return the input fields by name.

    Raises:
        BundleError: a field was encoded by a version of the code that this Yunmo does not have.
    """
    fields: dict[str, Field] = {}
    for spec in bundle.manifest.inputs:
        if spec.name not in bundle.statistics:
            raise BundleError(f"nothing is said of field {spec.name!r}", where=STATISTICS)
        field = fields[spec.name] = open_field(spec, bundle.statistics[spec.name], max_pixels=max_pixels)
        version = bundle.manifest.encode_versions.get(spec.name)
        if version != field.ENCODE_VERSION:
            newer = version is None or version > field.ENCODE_VERSION
            raise BundleError(
                f"encoded by version {version} of its field type; this Yunmo has version {field.ENCODE_VERSION}",
                where=f"field {spec.name}",
                remedy="Upgrade Yunmo" if newer else "Train it again with this version of Yunmo",
            )
    return fields


def _numbers_of(fields: Mapping[str, Field], names: Sequence[str]) -> list[NumberFieldType]:
    """Return the number fields of these names.

    Raises:
        BundleError: one of them is none.
    """
    found = [field for name in names if isinstance(field := fields.get(name), NumberFieldType)]
    if len(found) < max(len(names), _LEAST_JOINED):
        raise BundleError("the graph joins what are no numbers", where=MANIFEST)
    return found


def _locate(field: Field, values: Sequence[Any], first: int) -> InvalidInput | BodyTooLarge | None:
    """Find which value a field refuses, and name its row in the whole batch."""
    for index, value in enumerate(values):
        try:
            field.encode([value])
        except (InvalidInput, BodyTooLarge) as error:
            return type(error)(
                error.message, where=f"row {first + index}, field {field.spec.name}", remedy=error.remedy
            )
    return None


def _deviation(statistics: FieldStatistics | None) -> float:
    return statistics.deviation[0] if statistics and statistics.deviation else 0.0


def _labels(answer: Any, categories: list[str]) -> list[dict[str, Any]]:
    labels = []
    for best, probabilities in zip(answer.argmax(axis=1).tolist(), answer.tolist(), strict=True):
        by_name = dict(zip(categories, probabilities, strict=True))
        labels.append({"value": categories[best], "probability": probabilities[best], "probabilities": by_name})
    return labels


def _label_sets(answer: Any, output: LabelsOutput) -> list[dict[str, Any]]:
    names = output.categories or ()
    return [
        {"value": value, "probabilities": dict(zip(names, probabilities, strict=True))}
        for value, probabilities in zip(held_labels(answer, output), answer.tolist(), strict=True)
    ]


def _numbers(answer: Any) -> list[dict[str, Any]]:
    return [{"value": value} for value in answer.tolist()]
