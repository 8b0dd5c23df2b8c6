"""What the fuzzers of tensors share: a way on into the model, and examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tests.fuzz.driver import watched

with watched():
    from tests.fuzz.models import opened

    from yunmo.protocol.tensors import to_raw
    from yunmo.serving.oip.signature import Tensor, row_count, signature

MODELS = ("table", "pictures", "tensors")
Example = tuple[str, str, list[int], list[Any]]

EXAMPLES: dict[str, list[Example]] = {
    "table": [("age", "FP64", [2], [31.5, None]), ("city", "BYTES", [2], ["Berlin", "Oslo"])],
    "pictures": [("image", "UINT8", [1, 8, 8, 3], [7] * 192)],
    "tensors": [
        ("half", "FP16", [1, 2], [1.5, -2.0]),
        ("single", "FP32", [1, 2, 2], [1.0, 2.0, 3.0, 4.25]),
        ("double", "FP64", [1], [1e300]),
        ("byte", "UINT8", [1, 2, 2], [0, 255, 1, 2]),
        ("short", "INT16", [1], [-3]),
        ("long", "INT64", [1, 2], [2**62, -1]),
        ("unsigned", "UINT64", [1], [2**64 - 1]),
        ("flag", "BOOL", [1], [True]),
        ("text", "BYTES", [1, 2], ["a", "\u00e9"]),
    ],
}
"""By model: name, datatype, shape and elements of each input."""

WORDS = (
    *(b"BOOL", b"UINT8", b"UINT16", b"UINT32", b"UINT64", b"INT8", b"INT16", b"INT32", b"INT64", b"FP16", b"FP32"),
    *(b"FP64", b"BF16", b"BYTES", b"age", b"city", b"image", b"half", b"single", b"double", b"text", b"flag", b"long"),
    *(b"label", b"price", b"label.probabilities", b"timeout", b"priority"),
)


def array(datatype: str, shape: Sequence[int], values: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Return an example's elements as an array."""
    if datatype == "BYTES":
        return np.array(values, object).reshape(shape)
    return np.array([np.nan if value is None else value for value in values]).reshape(shape)


def raw(example: Example) -> bytes:
    """Return an example's elements as raw bytes."""
    _, datatype, shape, values = example
    return to_raw(datatype, array(datatype, shape, values))


def go_on(which: int, tensors: list[Tensor], outputs: list[str]) -> None:
    """Hold tensors against a model and encode them for its graph."""
    model = opened(MODELS[which % len(MODELS)])
    rows = row_count(tensors)
    form = signature(model)
    form.choose(outputs)
    encoded = model.encode_columns(form.columns(tensors), rows)
    if MODELS[which % len(MODELS)] == "table":
        assert all(np.isfinite(each).all() for each in encoded.values()), "a number that is none reaches the graph"
