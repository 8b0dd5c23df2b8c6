"""Fuzzes JSON infer requests of the Open Inference Protocol: numbers against the standard library's parser."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from tests.fuzz.driver import fuzz, watched
from tests.fuzz.tensors import EXAMPLES, MODELS, WORDS, go_on

with watched():
    from yunmo.protocol.tensors import held
    from yunmo.serving.oip.body import InferRequest, read_request


def check(data: bytes) -> None:
    """Read a document and hold it against a model: that of the first byte."""
    body = data[1:]
    asked = read_request(body, len(body))
    compare(asked, body)
    go_on(data[0] if data else 0, asked.tensors, list(asked.outputs))


def compare(asked: InferRequest, text: bytes) -> None:
    """Hold what was read of a document against json's reading of it."""
    document = json.loads(text)
    assert [each["name"] for each in document["inputs"]] == [tensor.name for tensor in asked.tensors]
    assert [each["name"] for each in document.get("outputs") or ()] == list(asked.outputs)
    assert document.get("id") == asked.id
    for described, tensor in zip(document["inputs"], asked.tensors, strict=True):
        assert described["shape"] == list(tensor.array.shape)
        assert described["datatype"] == tensor.datatype
        if described.get("data") is not None:
            found = tensor.array.ravel().tolist()
            expected = [_element(tensor.datatype, value) for value in _leaves(described["data"])]
            assert len(found) == len(expected)
            assert all(map(_same, found, expected)), f"{found[:20]} where json has {expected[:20]}"


def _leaves(data: Any) -> list[Any]:
    return [leaf for each in data for leaf in _leaves(each)] if isinstance(data, list) else [data]


def _element(datatype: str, value: Any) -> Any:
    kind = held(datatype)
    if kind.kind != "f":
        return value
    return kind.type(math.nan if value is None else float(value)).item()


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, float) and math.isnan(expected):
        return math.isnan(found)
    return type(found) is type(expected) and bool(found == expected) and found not in (math.inf, -math.inf)


def document(name: str, *, nested: bool = False, **more: Any) -> bytes:
    """Return an example as a request."""
    inputs = [
        {
            "name": each,
            "datatype": datatype,
            "shape": shape,
            "data": np.array(values, object).reshape(shape).tolist() if nested else values,
        }
        for each, datatype, shape, values in EXAMPLES[name]
    ]
    return json.dumps({"inputs": inputs, **more}).encode()


if __name__ == "__main__":
    made = [
        bytes([index]) + document(name, nested=nested, **more)
        for index, name in enumerate(MODELS)
        for nested in (False, True)
        for more in (
            {},
            {"id": "7", "parameters": {"timeout": 1000, "priority": 1, "binary_data_output": True}},
            {"outputs": [{"name": "label", "parameters": {"binary_data": False}}, {"name": "price"}]},
        )
    ]
    deep = b"\0" + document("table").replace(b"[31.5, null]", b"[" * 1500 + b"]" * 1500)
    fuzz(
        check,
        [*made, deep, b"\0" + b"[" * 8000, b"\0" + b'{"inputs":' * 700],
        [
            *WORDS,
            *(b'"inputs"', b'"outputs"', b'"data"', b'"shape"', b'"datatype"', b'"name"', b'"parameters"', b'"id"'),
            *(b'"binary_data_size"', b"null", b"true", b"1e999", b"1e39", b"-0.0", b"18446744073709551616", b"[[[["),
            *(b"9223372036854775808", b"4.9e-324", b"0.1", b"65520", b"\\ud800", b"\\u0000", b"\xed\xa0\x80", b"[]"),
        ],
    )
