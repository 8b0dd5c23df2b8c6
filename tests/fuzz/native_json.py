"""Fuzzes JSON bodies of the native API: against the standard library's parser, and on into the model's fields."""

from __future__ import annotations

import json
import math
from typing import Any

from tests.fuzz.driver import fuzz, watched

with watched():
    from tests.fuzz.models import opened

    from yunmo.serving.native.bodies import read_json

MODELS = ("table", "pictures", "tensors")
ROWS: tuple[Any, ...] = (
    {"age": 31.5, "city": "Berlin"},
    [{"age": None, "city": "Beijing"}, {"age": -1e300, "city": None}],
    {"image": "iVBORw0KGgo="},
    {"image": [[[0, 255, 1]] * 8] * 8},
    {
        "half": [1.5, 2],
        "single": [[1, 2], [3, 4.25]],
        "double": 1e10,
        "byte": [[0, 255], [1, 2]],
        "short": -3,
        "long": [2**62, -1],
        "unsigned": 2**64 - 1,
        "flag": True,
        "text": ["a", "\u00e9"],
    },
)


def check(data: bytes) -> None:
    """Read a body and encode its rows for a model: that of the first byte."""
    model = opened(MODELS[(data[0] if data else 0) % len(MODELS)])
    body = data[1:]
    rows = read_json(body)
    expected = json.loads(body, object_pairs_hook=_once, parse_constant=_refuse)
    assert _same(rows, expected if isinstance(expected, list) else [expected]), "another value than json's"
    model.encode(rows)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    assert len(made) == len(pairs), "a key that comes twice was taken"
    return made


def _refuse(text: str) -> None:
    raise AssertionError(f"{text} was taken for JSON")


def _same(mine: Any, other: Any) -> bool:
    if isinstance(mine, dict):
        return mine.keys() == other.keys() and all(_same(value, other[key]) for key, value in mine.items())
    if isinstance(mine, list):
        return len(mine) == len(other) and all(map(_same, mine, other))
    if isinstance(mine, float) and not math.isfinite(mine):
        return False
    return bool(mine == other)


if __name__ == "__main__":
    deep = b"[" * 2000 + b"]" * 2000
    fuzz(
        check,
        [
            *(bytes([index]) + json.dumps(rows).encode() for rows in ROWS for index in range(len(MODELS))),
            *(b"\0" + b"[" * 8000, b"\0" + b'{"a":' * 1500, b'\0{"age": ' + deep + b', "city": null}'),
            b'\0{"age": "' + b"x" * 5000 + b'", "city": null}',
            *(b'\1{"image": ' + deep + b"}", b'\1{"image": "' + deep + b'"}'),
            json.dumps(ROWS[-1]).replace("[[1, 2], [3, 4.25]]", f'"{deep.decode()}"').join(("\2", "")).encode(),
        ],
        [
            *(b'"age"', b'"city"', b'"image"', b'"text"', b'"single"', b"null", b"true", b"false", b"NaN", b"[[[[[["),
            *(b"Infinity", b"1e999", b"-0.0", b"18446744073709551616", b"\\ud800", b"\\u0000", b"\xed\xa0\x80", b"{}"),
            *(b'"[[1,2]]"', b'"data:;base64,"'),
        ],
    )
