"""What is in a data file, field by field, as JSON-able data."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from yunmo.core.errors import BodyTooLarge, DataError, InvalidInput
from yunmo.core.fields import LabelsOutput
from yunmo.data.fields.base import Values, is_missing
from yunmo.data.fields.category import category_text
from yunmo.data.fields.labels import split_labels
from yunmo.data.fields.number import read_numbers
from yunmo.data.fields.pixels import measure
from yunmo.data.infer import find_target, infer_output, input_of
from yunmo.data.sources.base import Source

_TOP = 10
_PICTURES = 500


def profile(source: Source, target: str | None = None) -> dict[str, Any]:
    """Describe a data file: its kind, rows, notes, and each column.

    A column has its name, role (input, output or none), type, the reason for it, how many cells it has and how many are
    missing, and by type: minimum, mean, maximum; of texts, of their number of characters; the most frequent values;
    picture sizes; the shape of a row. A column that cannot be used as it is has a ``problem`` instead of a type.

    Args:
        source: the data.
        target: the column to predict; None for the usual one, if there is one.

    Raises:
        DataError: there is no column ``target``.
    """
    try:
        target, _ = find_target(source, target)
    except DataError:
        if target is not None:
            raise
    columns = [_column(source, name, target) for name in source.names]
    return {
        "file": source.path.name,
        "kind": source.kind,
        "rows": len(source),
        "target": target,
        "notes": list(source.notes),
        "fields": columns,
    }


def _column(source: Source, name: str, target: str | None) -> dict[str, Any]:
    values = source.column(name)
    found: dict[str, Any] = {"name": name, "role": "output" if name == target else "input", "count": len(values)}
    try:
        if name == target:
            output, decision = infer_output(source, name)
            kind, reason = output.__struct_config__.tag, decision.reason
        else:
            field, reason = input_of(source, name)
            kind = field.__struct_config__.tag if field is not None else None
            found["role"] = "input" if field is not None else "none"
    except DataError as error:
        return {**found, "type": None, "problem": str(error)}
    found |= {"type": kind, "reason": reason}
    if source.is_picture(name):
        return {**found, **_pictures(values)}
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return {**found, **_array(values)}
    if kind == "text":
        return {**found, **_texts(values)}
    separator = output.separator if name == target and isinstance(output, LabelsOutput) else None
    return {**found, **(_numbers(values) if kind == "number" else _names(values, separator))}


def _pictures(values: Values) -> dict[str, Any]:
    """Read the headers of up to `_PICTURES` pictures, spread evenly."""
    sizes: Counter[str] = Counter()
    gray = unreadable = missing = 0
    chosen = np.unique(np.linspace(0, len(values) - 1, min(_PICTURES, len(values))).astype(np.int64))
    for row in chosen.tolist():
        if values[row] is None:
            missing += 1
            continue
        try:
            height, width, is_gray = measure(values[row].read())
        except (InvalidInput, BodyTooLarge):
            unreadable += 1
            continue
        sizes[f"{height} x {width}"] += 1
        gray += is_gray
    return {
        "looked_at": len(chosen),
        "missing": missing,
        "unreadable": unreadable,
        "gray": gray,
        "sizes": [{"size": size, "count": count} for size, count in sizes.most_common(_TOP)],
    }


def _array(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    sample = values[:: max(1, len(values) // 1000)].astype(np.float64)
    finite = sample[np.isfinite(sample)]
    found: dict[str, Any] = {"shape": list(values.shape[1:]), "dtype": str(values.dtype)}
    return found | (_spread(finite) if finite.size else {})


def _numbers(values: Values) -> dict[str, Any]:
    numbers, _ = read_numbers(values)
    present = numbers[~np.isnan(numbers)]
    return {"missing": len(values) - len(present), "distinct": len(np.unique(present)), **_spread(present)}


def _spread(numbers: np.ndarray[Any, Any]) -> dict[str, float]:
    return {"minimum": float(numbers.min()), "mean": float(numbers.mean()), "maximum": float(numbers.max())}


def _texts(values: Values) -> dict[str, Any]:
    present = [str(value) for value in values if not is_missing(value)]
    lengths = np.array([len(text) for text in present])
    found = {"missing": len(values) - len(present), "distinct": len(set(present))}
    return {**found, "characters": _spread(lengths)} if present else found


def _names(values: Values, separator: str | None) -> dict[str, Any]:
    """Count categories, or labels where several are in a cell."""
    plain = values.tolist() if isinstance(values, np.ndarray) else values
    present = [value for value in plain if not is_missing(value)]
    counts: Counter[str | None] = Counter()
    for value in present:
        counts.update({category_text(value)} if separator is None else set(split_labels(value, separator)))
    return {
        "missing": len(values) - len(present),
        "distinct": len(counts),
        "top": [{"value": value, "count": count} for value, count in counts.most_common(_TOP)],
    }
