"""Evaluating a signed bundle on a data file: ``python -m yunmo.control.jobs.evaluate``, a process of its own.

It reads an `Order`, and its result is the metrics. The answers are those of the serving path, from raw rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from yunmo.control.jobs.extras import missing_extra
from yunmo.control.jobs.order import carry_out
from yunmo.core.errors import DataError, InvalidInput
from yunmo.core.fields import TensorOutput
from yunmo.core.schema import Spec

if TYPE_CHECKING:
    from yunmo.inference.predictor import Predictor

_CHUNK = 256


class Order(Spec, frozen=True):
    """What is to be evaluated."""

    bundle: str
    """Its folder."""
    public_key: str
    """PEM of the key that must have signed it."""
    data: str
    """Path of the data file."""


def main() -> None:
    """Carry out the order on stdin."""
    carry_out(Order, work)


def work(order: Order) -> dict[str, Any]:
    """Return the metrics.

    Raises:
        MissingExtra: what training needs is not installed.
        YunmoError: as `evaluate_bundle`.
    """
    try:
        return evaluate_bundle(Path(order.bundle), order.public_key, Path(order.data))
    except ImportError as error:
        raise missing_extra(error, "evaluating") or error from error


def evaluate_bundle(folder: Path, public_key: str, path: Path) -> dict[str, Any]:
    """Return the metrics of a bundle on a data file with known answers.

    Args:
        folder: the bundle.
        public_key: PEM of the key that must have signed it.
        path: the data, with a column for every input and output.

    Raises:
        DataError: the data cannot be read, lacks a column, or has answers that the model does not know.
        BundleError: the bundle cannot be used.
    """
    import numpy as np

    from yunmo.bundle.read import open_bundle
    from yunmo.data.cleaning import clean_rows
    from yunmo.data.fields.category import CategoryOutput
    from yunmo.data.fields.labels import LabelsOutput
    from yunmo.data.fields.registry import open_field, open_output
    from yunmo.data.infer import check_column
    from yunmo.data.sources.open import open_source
    from yunmo.inference.predictor import Predictor
    from yunmo.training.evaluate import evaluate, flatten

    bundle = open_bundle(folder, public_key)
    specs = [output for output in bundle.manifest.outputs if not isinstance(output, TensorOutput)]
    if len(specs) < len(bundle.manifest.outputs):
        raise DataError(
            "a model that answers tensors has no metrics",
            where=bundle.manifest.name,
            remedy="Import it with a fields file that says which category or number they are",
        )
    predictor = Predictor.open(folder, public_key_pem=public_key)
    inputs = [open_field(spec, bundle.statistics[spec.name]) for spec in bundle.manifest.inputs]
    outputs = [open_output(spec, bundle.statistics[spec.name]) for spec in specs]
    source = open_source(path, expected={field.column for field in (*inputs, *outputs)})
    try:
        for field in (*inputs, *outputs):
            check_column(source, field.column)
        columns = {field.column: source.column(field.column) for field in (*inputs, *outputs)}
        kept, issues = clean_rows([*inputs, *outputs], columns, source.where, len(source))
        rows = kept.tolist()
        truth: dict[str, Any] = {}
        for field in outputs:
            values = [columns[field.column][row] for row in rows]
            if isinstance(field, (CategoryOutput, LabelsOutput)):
                field.refuse_unknown(values, lambda index: source.where(rows[index]), "is none of the model's")
            truth |= field.encode(values)
        parts: list[dict[str, Any]] = []
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            asked = [{field.name: columns[field.column][row] for field in inputs} for row in chunk]
            parts.append(predictor.run(_encode(predictor, asked, [source.where(row) for row in chunk])))
    finally:
        source.close()
    answers = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    measured = evaluate(specs, bundle.statistics, truth, answers)
    return {**flatten(measured), "cleaning": msgspec.to_builtins(issues), "model": bundle.digest}


def _encode(predictor: Predictor, rows: Sequence[dict[str, Any]], where: Sequence[str]) -> dict[str, Any]:
    """Encode rows of a file; an error names the file and the row in it."""
    try:
        return predictor.encode(rows)
    except InvalidInput:
        for index, row in enumerate(rows):
            try:
                predictor.encode([row])
            except InvalidInput as error:
                field = (error.where or "").rpartition(", ")[2]
                raise DataError(error.message, where=f"{where[index]}, {field}", remedy=error.remedy) from None
        raise


if __name__ == "__main__":
    main()
