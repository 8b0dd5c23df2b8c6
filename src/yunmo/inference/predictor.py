"""A bundle opened for prediction: raw rows in, predictions out. No torch.

The way of a row: its names are checked here, each value is encoded by its field (`yunmo.data.fields`, the same code
as in training), the graph runs in ONNX Runtime, and the answers get their names back.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yunmo.bundle.files import GOLDEN, GRAPH
from yunmo.bundle.read import Bundle, open_bundle
from yunmo.core.errors import BodyTooLarge, BundleError, InvalidInput, ModelFailed
from yunmo.core.fields import (
    CategoryField,
    CategoryOutput,
    DateField,
    FieldStatistics,
    ImageField,
    InputField,
    NumberField,
)
from yunmo.data.fields.base import Field
from yunmo.data.fields.pixels import MAX_PIXELS
from yunmo.data.fields.registry import open_field
from yunmo.inference.compare import TOLERANCE, difference
from yunmo.inference.schema import input_schema, output_schema
from yunmo.inference.session import Arrays, Session

CHUNK = 16
"""Rows in one run of the graph; more at once are no faster on a CPU and take more memory."""

_NULLABLE = (NumberField, CategoryField, DateField)
_MANY_NAMES = 8


class Predictor:
    """A verified, loaded and tried bundle. Make it with `Predictor.open`; threads may share it."""

    def __init__(self, bundle: Bundle, fields: Mapping[str, Field], session: Session) -> None:
        # Not the bundle itself: golden pictures need not stay in memory.
        self.manifest = bundle.manifest
        """What the bundle says of itself."""
        self.digest = bundle.digest
        """The bundle's digest, ``sha256:…``."""
        self._fields = dict(fields)
        self._names = self._fields.keys()
        self._session = session
        self._categories: dict[str, list[str] | None] = {
            output.name: list(output.categories or ()) if isinstance(output, CategoryOutput) else None
            for output in bundle.manifest.outputs
        }
        self.input_schema = input_schema(self._fields)
        """JSON Schema of one row."""
        self.output_schema = output_schema(
            bundle.manifest.outputs, {name: names for name, names in self._categories.items() if names is not None}
        )
        """JSON Schema of one prediction."""

    @classmethod
    def open(cls, folder: Path, *, public_key_pem: str, threads: int = 1, max_pixels: int = MAX_PIXELS) -> Predictor:
        """Verify a bundle, load it, and run its golden examples (which warms it up).

        Args:
            folder: the bundle.
            public_key_pem: the key that must have signed it.
            threads: how many one call may use.
            max_pixels: most pixels of a picture that is decoded.

        Raises:
            IntegrityError: not signed with that key, or a file was changed, removed or added.
            BundleError: made by a newer Yunmo, or it does not give its golden answers.
        """
        bundle = open_bundle(folder, public_key_pem)
        fields = _open_fields(bundle, max_pixels)
        predictor = cls(bundle, fields, Session(bundle.read(GRAPH), bundle.manifest.tensors, threads=threads))
        predictor._check_golden(bundle)
        return predictor

    @property
    def inputs(self) -> tuple[InputField, ...]:
        """Specifications of the fields that a row has."""
        return self.manifest.inputs

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Answer rows, in their order.

        Args:
            rows: raw values by field: as JSON holds them, or as a file does (str cells, bytes of pictures).

        Returns:
            For each row and output, a category's ``value``, ``probability`` and ``probabilities`` by name, or a
            number's ``value``.

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
            yield from self.decode(self._session.run(self._encode(chunk, first)))
            first += len(chunk)

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> Arrays:
        """Return the graph's inputs for rows: one tensor by name, a row in each place of the first axis.

        Raises:
            InvalidInput: as `predict`.
        """
        return self._encode(rows, 0)

    def run(self, tensors: Mapping[str, Any]) -> Arrays:
        """Return the graph's outputs for encoded rows, computed in chunks of `CHUNK`.

        Returns:
            By output: probabilities float32 [N, categories], or numbers float32 [N].

        Raises:
            ModelFailed: the graph failed (wrong tensors, no memory).
        """
        total = min((len(tensor) for tensor in tensors.values()), default=0)
        if total <= CHUNK:
            return self._session.run(tensors)
        parts = [
            self._session.run({name: tensor[start : start + CHUNK] for name, tensor in tensors.items()})
            for start in range(0, total, CHUNK)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def decode(self, answers: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Turn the graph's outputs into predictions, one for each row.

        Raises:
            ModelFailed: an answer is NaN or infinite.
        """
        columns: list[tuple[str, list[dict[str, Any]]]] = []
        for name, categories in self._categories.items():
            answer = answers[name]
            if not np.isfinite(answer).all():
                raise ModelFailed(f"the model answered {name!r} with something that is no number")
            columns.append((name, _numbers(answer) if categories is None else _labels(answer, categories)))
        names = [name for name, _ in columns]
        return [dict(zip(names, row, strict=True)) for row in zip(*(column for _, column in columns), strict=True)]

    def single_input(self, media_type: str) -> str | None:
        """Return the field that a raw request body of a media type fills alone, None if there is none.

        A model with one picture as its only field takes ``image/*`` and ``application/octet-stream``.
        """
        kind = media_type.partition(";")[0].strip().lower()
        picture = len(self.inputs) == 1 and isinstance(self.inputs[0], ImageField)
        takes = kind.startswith("image/") or kind == "application/octet-stream"
        return self.inputs[0].name if picture and takes else None

    def _encode(self, rows: Sequence[Mapping[str, Any]], first: int) -> Arrays:
        for index, row in enumerate(rows, first):
            if row.keys() != self._names:
                raise self._wrong_names(row, index)
        tensors: Arrays = {}
        for name, field in self._fields.items():
            values = [row[name] for row in rows]
            try:
                tensors.update(field.encode(values))
            except (InvalidInput, BodyTooLarge) as error:
                raise _locate(field, values, first) or error from None
        return tensors

    def _wrong_names(self, row: Mapping[str, Any], index: int) -> InvalidInput:
        for name in row:
            if name not in self._fields:
                known = ", ".join(itertools.islice(self._fields, _MANY_NAMES))
                more = ", …" if len(self._fields) > _MANY_NAMES else ""
                return InvalidInput(
                    f"unknown field {str(name)[:100]!r}", where=f"row {index}", remedy=f"The model has: {known}{more}"
                )
        missing = next(name for name in self._fields if name not in row)
        nullable = isinstance(self._fields[missing].spec, _NULLABLE)
        return InvalidInput(
            f"missing field {missing!r}",
            where=f"row {index}",
            remedy="Give it, or null if it is not known" if nullable else "Give it",
        )

    def _check_golden(self, bundle: Bundle) -> None:
        golden = bundle.golden
        try:
            answers = self.run(self.encode(golden.rows))
        except (InvalidInput, BodyTooLarge, ModelFailed) as error:
            raise BundleError(f"a golden example fails: {error}", where=GOLDEN) from None
        for name in self._categories:
            found, expected = answers[name], np.asarray(golden.answers.get(name), dtype=np.float64)
            if found.shape != expected.shape:
                raise BundleError(f"golden answers of {name!r} have another shape", where=GOLDEN)
            deviation = None if self._categories[name] is not None else _deviation(bundle.statistics.get(name))
            off = difference(found, expected, deviation)
            if not (off <= TOLERANCE).all():
                raise BundleError(
                    f"{name!r} of golden example {off.argmax()} is off by {off.max():.2g}, more than {TOLERANCE:g}",
                    where=GOLDEN,
                    remedy="Train it again with this version of Yunmo",
                )


def _open_fields(bundle: Bundle, max_pixels: int) -> dict[str, Field]:
    """Return the input fields by name.

    Raises:
        BundleError: a field was encoded by a version of the code that this Yunmo does not have.
    """
    fields: dict[str, Field] = {}
    for spec in bundle.manifest.inputs:
        field = fields[spec.name] = open_field(spec, bundle.statistics.get(spec.name), max_pixels=max_pixels)
        version = bundle.manifest.encode_versions.get(spec.name)
        if version != field.ENCODE_VERSION:
            newer = version is None or version > field.ENCODE_VERSION
            raise BundleError(
                f"encoded by version {version} of its field type; this Yunmo has version {field.ENCODE_VERSION}",
                where=f"field {spec.name}",
                remedy="Upgrade Yunmo" if newer else "Train it again with this version of Yunmo",
            )
    return fields


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


def _numbers(answer: Any) -> list[dict[str, Any]]:
    return [{"value": value} for value in answer.tolist()]
