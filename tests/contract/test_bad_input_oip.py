"""Bad input to the Open Inference Protocol's REST face, against a real data worker: its error object, and no more."""

from __future__ import annotations

import json
import struct
from typing import Any

import httpx
import numpy as np
import pytest
from tests.contract.pictures import jpeg, lying_png
from tests.contract.watch import INSIDE

TABLE = "/v2/models/table/infer"
PICTURES = "/v2/models/pictures/infer"
TENSORS = "/v2/models/tensors/infer"
HEADER = "inference-header-content-length"
AGE = {"name": "age", "shape": [1], "datatype": "FP64", "data": [3]}
CITY = {"name": "city", "shape": [1], "datatype": "BYTES", "data": ["Berlin"]}
GOOD: dict[str, tuple[str, list[int], list[Any]]] = {
    "half": ("FP16", [1, 2], [1, 2]),
    "single": ("FP32", [1, 1, 2], [1, 2]),
    "double": ("FP64", [1], [1]),
    "byte": ("UINT8", [1, 2, 2], [1, 2, 3, 4]),
    "short": ("INT16", [1], [1]),
    "long": ("INT64", [1, 2], [1, 2]),
    "unsigned": ("UINT64", [1], [1]),
    "flag": ("BOOL", [1], [True]),
    "text": ("BYTES", [1, 2], ["a", "b"]),
}


pytestmark = pytest.mark.usefixtures("survived")


def is_error(reply: httpx.Response, status: int, *words: str) -> None:
    """Hold an answer against the protocol's error object, and against telling of our insides."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    document = reply.json()
    assert list(document) == ["error"]
    assert len(reply.content) < 2000
    for word in words:
        assert word in document["error"], f"{word!r} is not in {reply.text}"
    for inside in INSIDE:
        assert inside not in reply.text


def body(*inputs: Any, **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def tensors(**changed: dict[str, Any]) -> bytes:
    """Return a request for the endpoint of every kind of tensor, some of them changed."""
    inputs = [
        {"name": name, "datatype": datatype, "shape": shape, "data": data, **changed.get(name, {})}
        for name, (datatype, shape, data) in GOOD.items()
    ]
    return body(*inputs)


def binary(parts: bytes, *inputs: dict[str, Any], length: int | str | None = None) -> tuple[bytes, dict[str, str]]:
    """Return a body with binary data, and its headers; ``length`` is what the header says instead of the truth."""
    text = body(*inputs)
    return text + parts, {HEADER: str(len(text) if length is None else length)}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("JSON",)),
        (b"{", ("JSON",)),
        (b"\xff", ("JSON",)),
        (b"[]", ("an object is needed",)),
        (b"{}", ("'inputs' is a list",)),
        (b'{"inputs": {}}', ("'inputs' is a list",)),
        (body(), ("no inputs",)),
        (body(7), ("input 0", "object")),
        (body({}), ("'name' is a string",)),
        (body({"name": ""}), ("'name' is a string",)),
        (body({"name": 7, "shape": [1], "datatype": "FP32", "data": [1]}), ("'name' is a string",)),
        (body({**AGE, "name": "x" * 100_000}, CITY), ("unknown input",)),
        (body({**AGE, "extra": 1}, CITY), ("unknown key 'extra'", "Known: data, datatype")),
        (body(AGE), ("missing input 'city'",)),
        (body(AGE, CITY, {**AGE, "name": "other"}), ("unknown input 'other'", "age, city")),
        (body(AGE, CITY, AGE), ("input age", "twice")),
        (body({**AGE, "datatype": "FP8"}, CITY), ("no datatype 'FP8'", "FP16")),
        (body({**AGE, "datatype": "fp64"}, CITY), ("no datatype",)),
        (body({**AGE, "datatype": 7}, CITY), ("'datatype' is a string",)),
        (body({**AGE, "datatype": "BOOL", "data": [True]}, CITY), ("datatype BOOL", "FP64")),
        (body({**AGE, "datatype": "BYTES", "data": ["1"]}, CITY), ("datatype BYTES",)),
        (body({**AGE, "shape": []}, CITY), ("input age",)),
        (body({**AGE, "shape": [2]}, CITY), ("1 elements", "[2] has 2")),
        (body({**AGE, "shape": [1, 1]}, CITY), ("[1, 1]", "[-1]")),
        (body({**AGE, "shape": [-1]}, CITY), ("negative",)),
        (body({**AGE, "shape": [0, 2**60, 8]}, CITY), ("more elements than can be counted",)),
        (body({**AGE, "shape": [2**63]}, CITY), ("input age",)),
        (body({**AGE, "shape": [1.0]}, CITY), ("whole numbers",)),
        (body({**AGE, "shape": [True]}, CITY), ("whole numbers",)),
        (body({**AGE, "shape": "1"}, CITY), ("whole numbers",)),
        (body({**AGE, "shape": [1] * 40}, CITY), ("40 dimensions",)),
        (body({**AGE, "data": None}, CITY), ("'data' is a list",)),
        (body({**AGE, "data": 3}, CITY), ("'data' is a list",)),
        (body({**AGE, "data": ["3"]}, CITY), ("a string in data of FP64",)),
        (body({**AGE, "data": [[3], [4]]}, CITY), ("2 elements of data where shape [1] has 1",)),
        (body({**AGE, "shape": [2], "data": [[[3, 4]]]}, {**CITY, "shape": [2]}), ("nested",)),
        (body({**AGE, "data": [{}]}, CITY), ("an object in data",)),
        (body({**AGE, "data": [True]}, CITY), ("a boolean in data",)),
        (body(AGE, CITY).replace(b"[3]", b"[NaN]"), ("JSON",)),
        (body(AGE, CITY).replace(b"[3]", b"[1e999]"), ()),
        (body(AGE, CITY).replace(b"[3]", b"[1e309]"), ()),
        (body({**AGE, "datatype": "FP32", "data": [1e39]}, CITY), ("beyond FP32",)),
        (body({**AGE, "datatype": "FP16", "data": [65520]}, CITY), ("beyond FP16",)),
        (body({**AGE, "datatype": "INT8", "data": [128]}, CITY), ("beyond INT8", "-128 to 127")),
        (body({**AGE, "datatype": "UINT64", "data": [-1]}, CITY), ("UINT64",)),
        (body({**AGE, "datatype": "INT64", "data": [0.5]}, CITY), ("a fraction in data of INT64",)),
        (body({**AGE, "datatype": "INT64", "data": [None]}, CITY), ("null in data of INT64",)),
        (body(AGE, {**CITY, "data": [7]}), ("a whole number in data of BYTES",)),
        (body({**AGE, "shape": [2], "data": [3, 4]}, CITY), ("1 rows", "'age' has 2")),
        (body(AGE, CITY, outputs=[{"name": "none"}]), ("unknown output 'none'", "label.probabilities")),
        (body(AGE, CITY, outputs=[{"name": "label"}] * 2), ("asked for twice",)),
        (body(AGE, CITY, outputs=[{}]), ("'name' is a string",)),
        (body(AGE, CITY, outputs="label"), ("'outputs' is a list",)),
        (body(AGE, CITY, outputs=[{"name": "label", "parameters": {"classification": 3}}]), ("'classification'",)),
        (body(AGE, CITY, id=7), ("'id' is a string",)),
        (body(AGE, CITY, parameters={"sequence_id": 7}), ("unknown key 'sequence_id'",)),
        (body(AGE, CITY, parameters={"timeout": -1}), ("'timeout' is a whole number",)),
        (body(AGE, CITY, parameters={"timeout": "1"}), ("'timeout' is a whole number",)),
        (body(AGE, CITY, parameters={"binary_data_output": 1}), ("'binary_data_output' is true or false",)),
        (body(AGE, CITY, parameters=[]), ("an object is needed",)),
        (body(AGE, CITY, more=1), ("unknown key 'more'",)),
        (b'{"inputs": [], "inputs": []}', ("'inputs' comes twice",)),
        (body(AGE, CITY).replace(b'"shape"', b'"name": "age", "shape"', 1), ("'name' comes twice",)),
        (b"[" * 90_000, ("JSON",)),
        (b'{"inputs":' * 15_000, ("JSON",)),
        (body(AGE, CITY).replace(b"[3]", b"[" * 50_000 + b"]" * 50_000), ("nested too deep",)),
        (body(AGE, CITY).replace(b"[3]", b"[" * 900 + b"]" * 900), ("input age",)),
        (body(AGE, CITY).replace(b'"Berlin"', b'"\xed\xa0\x80"'), ("UTF-8",)),
        (body(AGE, CITY) + b"{}", ("JSON",)),
        (body({**AGE, "parameters": {"binary_data_size": 8}}, CITY), ("both here and in binary",)),
        (body({**AGE, "data": None, "parameters": {"binary_data_size": 8}}, CITY), ("binary_data_size is 8",)),
    ],
)
def test_documents(client: httpx.Client, content: bytes, words: tuple[str, ...]) -> None:
    is_error(client.post(TABLE, content=content), 400, *words)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"half": {"data": [1, 1e6]}}, ("input half", "beyond FP16")),
        ({"half": {"datatype": "FP32"}}, ("input half", "datatype FP32", "FP16")),
        ({"single": {"shape": [1, 2]}}, ("input single", "[-1, -1, 2]")),
        ({"single": {"shape": [1, 2, 1]}}, ("input single",)),
        ({"byte": {"data": [1, 2, 3, 256]}}, ("input byte", "0 to 255")),
        ({"byte": {"data": [[1, 2], [3, 4]]}}, ("input byte", "nested")),
        ({"byte": {"data": [[[1, 2, 3], [4]]]}}, ("input byte", "nested")),
        ({"short": {"data": [40_000]}}, ("input short", "beyond INT16")),
        ({"long": {"data": [1, 2**63]}}, ("input long",)),
        ({"unsigned": {"data": [2**64]}}, ()),
        ({"flag": {"data": [1]}}, ("input flag", "true or false")),
        ({"text": {"data": ["a", None]}}, ("input text", "null")),
        ({"text": {"shape": [2, 1]}}, ("input text", "2 rows")),
    ],
)
def test_tensors(client: httpx.Client, changed: dict[str, Any], words: tuple[str, ...]) -> None:
    assert client.post(TENSORS, content=tensors()).status_code == 200
    is_error(client.post(TENSORS, content=tensors(**changed)), 400, *words)


RAW_AGE = {"name": "age", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}}
RAW_CITY = {"name": "city", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}}
EIGHT = struct.pack("<d", 3.0)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (binary(EIGHT, RAW_AGE, CITY, length=10**6), ("whole body has",)),
        (binary(EIGHT, RAW_AGE, CITY, length=-1), ("not a number",)),
        (binary(EIGHT, RAW_AGE, CITY, length="1e2"), ("not a number",)),
        (binary(EIGHT, RAW_AGE, CITY, length="0x10"), ("not a number",)),
        (binary(EIGHT, RAW_AGE, CITY, length="9" * 30), ("not a number",)),
        (binary(EIGHT, RAW_AGE, CITY, length=10), ("JSON",)),
        (binary(EIGHT, RAW_AGE, CITY, length=0), ("models of one input",)),
        (binary(b"", RAW_AGE, CITY), ("binary_data_size is 8", "0 bytes are left")),
        (binary(EIGHT[:7], RAW_AGE, CITY), ("7 bytes are left",)),
        (binary(EIGHT + b"x", RAW_AGE, CITY), ("1 bytes are left over",)),
        (binary(b"1234567", {**RAW_AGE, "parameters": {"binary_data_size": 7}}, CITY), ("7 bytes of data where FP64",)),
        (binary(EIGHT, {**RAW_AGE, "parameters": {"binary_data_size": -8}}, CITY), ("whole number",)),
        (binary(EIGHT, {**RAW_AGE, "parameters": {"binary_data_size": 2**63}}, CITY), ("input age",)),
        (binary(EIGHT, {**RAW_AGE, "parameters": {"binary_data_size": 8.0}}, CITY), ("whole number",)),
        (binary(EIGHT, {**RAW_AGE, "shape": [2**40]}, CITY), ("8 bytes of data where",)),
        (binary(EIGHT, {**RAW_AGE, "shape": [0, 2**60]}, CITY), ("input age",)),
        (binary(EIGHT * 2, {**RAW_AGE, "parameters": {"binary_data_size": 16}}, CITY), ("16 bytes of data where",)),
        (binary(struct.pack("<d", np.inf), RAW_AGE, CITY), ("not a finite number",)),
        (binary(struct.pack("<d", -np.inf), RAW_AGE, CITY), ("not a finite number",)),
        (
            binary(
                struct.pack("<e", np.inf),
                {**RAW_AGE, "datatype": "FP16", "parameters": {"binary_data_size": 2}},
                CITY,
            ),
            ("not a finite number",),
        ),
        (binary(b"\xff\xff\xff\xffab", AGE, RAW_CITY), ("says it has 4294967295 bytes",)),
        (binary(b"\2\0\0\0\xff\xfe", AGE, RAW_CITY), ()),
        (binary(b"\1\0\0\0ab", AGE, RAW_CITY), ("1 bytes of data are left over",)),
        (binary(b"\2\0\0\0ab", AGE, {**RAW_CITY, "shape": [2**33]}), ("too few",)),
        (binary(b"\2\0\0\0ab", AGE, {**RAW_CITY, "shape": [2]}), ("too few",)),
    ],
)
def test_binary(client: httpx.Client, made: tuple[bytes, dict[str, str]], words: tuple[str, ...]) -> None:
    reply = client.post(TABLE, content=made[0], headers=made[1])
    if not words and reply.status_code == 200:
        return  # a text that is not UTF-8 is an unknown category, as it is in a file
    is_error(reply, 400, *words)


@pytest.mark.parametrize(
    ("content", "headers", "status", "words"),
    [
        (bytes(191), {HEADER: "0"}, 400, ("picture",)),
        (jpeg(256)[:-1000], {HEADER: "0"}, 400, ("damaged picture",)),
        (lying_png(), {HEADER: "0"}, 413, ("too many pixels",)),
        (b"", {HEADER: "0"}, 400, ()),
        (
            body({"name": "image", "shape": [1, 9, 8, 3], "datatype": "UINT8", "data": [0] * 216}),
            {},
            400,
            ("[-1, 8, 8, 3]",),
        ),
        (
            body({"name": "image", "shape": [1, 8, 8, 3], "datatype": "FP32", "data": [0] * 192}),
            {},
            400,
            ("UINT8 or BYTES",),
        ),
        (body({"name": "image", "shape": [1], "datatype": "BYTES", "data": ["%"]}), {}, 400, ("base64",)),
        (body({"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": ["%"]}), {}, 400, ("[-1, 8, 8, 3]",)),
    ],
)
def test_pictures(
    client: httpx.Client, content: bytes, headers: dict[str, str], status: int, words: tuple[str, ...]
) -> None:
    reply = client.post(PICTURES, content=content, headers=headers)
    if "[-1, 8, 8, 3]" in words and "BYTES" in content.decode("latin-1"):
        words = ("[-1]",)  # the form of that datatype
    is_error(reply, status, *words)


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"content-type": "text/plain"}, 415, ("text/plain",)),
        ({"content-type": "multipart/form-data; boundary=B"}, 415, ()),
        ({"content-type": "x" * 10_000}, 415, ()),
        ({"content-encoding": "gzip"}, 415, ("compressed",)),
        ({"content-encoding": "deflate"}, 415, ("compressed",)),
    ],
)
def test_headers(client: httpx.Client, headers: dict[str, str], status: int, words: tuple[str, ...]) -> None:
    is_error(client.post(TABLE, content=body(AGE, CITY), headers=headers), status, *words)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit(client: httpx.Client, chunked: bool) -> None:
    content = iter([b" " * 100_000] * 3) if chunked else b" " * 200_001
    try:
        reply = client.post(TABLE, content=content)
    except httpx.TransportError:
        assert chunked  # it was still sending when the answer came and the connection ended
    else:
        is_error(reply, 413, "more than 200000 bytes")


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("POST", "/v2/models/none/infer", 404, ("no endpoint 'none'",)),
        ("POST", "/v2/models/%00/infer", 404, ()),
        ("POST", "/v2/models/%2e%2e%2f/infer", 404, ()),
        ("POST", f"/v2/models/{'x' * 5000}/infer", 404, ("no such path",)),
        ("POST", "/v2/models/table/versions/9/infer", 404, ("version 9",)),
        ("POST", "/v2/models/table/versions/one/infer", 404, ("no version 'one'",)),
        ("POST", "/v2/models/table/versions/-1/infer", 404, ("no version '-1'",)),
        ("POST", f"/v2/models/table/versions/{'9' * 60}/infer", 404, ("no version",)),
        ("POST", "/v2/models/table/versions/%D9%A1/infer", 404, ("no version",)),
        ("GET", "/v2/models/table/infer", 405, ()),
        ("DELETE", "/v2/models/table", 405, ()),
        ("POST", "/v2/models/table/explain", 404, ("no such path",)),
        ("POST", "/v2/repository/models/table/load", 404, ("no such path",)),
    ],
)
def test_paths(client: httpx.Client, method: str, path: str, status: int, words: tuple[str, ...]) -> None:
    is_error(client.request(method, path, content=body(AGE, CITY)), status, *words)


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"ready": "yes"}', b"\xff", b"[" * 90_000, b"7"])
def test_the_index(client: httpx.Client, content: bytes) -> None:
    is_error(client.post("/v2/repository/index", content=content), 400, "request for the index")
