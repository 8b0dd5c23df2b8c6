"""Bad input to the native API, against a real data worker: a problem document that says what is wrong, and no more."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from tests.contract.pictures import huge_png, jpeg, lying_png, text_bomb_png
from tests.contract.watch import INSIDE

from yunmo.core.errors import ERRORS

TABLE = "/api/v1/endpoints/table/predict"
PICTURES = "/api/v1/endpoints/pictures/predict"
TENSORS = "/api/v1/endpoints/tensors/predict"
JSON = "application/json"
DEEP = b"[" * 90_000
GOOD_TENSORS: dict[str, Any] = {
    "half": [1, 2],
    "single": [[1, 2]],
    "double": 1,
    "byte": [[1, 2], [3, 4]],
    "short": 1,
    "long": [1, 2],
    "unsigned": 1,
    "flag": True,
    "text": ["a", "b"],
}


pytestmark = pytest.mark.usefixtures("survived")


def is_problem(reply: httpx.Response, status: int, *words: str) -> dict[str, Any]:
    """Hold an answer against RFC 9457, and against telling of our insides."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = reply.json()
    assert document["status"] == status
    assert ERRORS[document["code"]].status == status
    assert document["type"] == f"urn:yunmo:error:{document['code']}"
    assert document["instance"] == reply.headers["x-request-id"]
    assert len(reply.content) < 2000
    for word in words:
        assert word in reply.text, f"{word!r} is not in {reply.text}"
    for inside in INSIDE:
        assert inside not in reply.text
    return document


def row(**values: Any) -> bytes:
    return json.dumps({"age": 3, "city": "Berlin"} | values).encode()


def tensors(**values: Any) -> bytes:
    return json.dumps(GOOD_TENSORS | values).encode()


def form(*parts: tuple[str, bytes], end: bytes = b"--B--\r\n") -> bytes:
    return b"".join(b"--B\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts) + end


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ("JSON",)),
        (b"{", ("JSON",)),
        (b"\x00", ("JSON",)),
        (b"\xff\xfe{}", ("JSON",)),
        (b"\xef\xbb\xbf{}", ("JSON",)),
        (b"null", ("object of fields",)),
        (b"[[]]", ("object of fields", "row 0")),
        (b'[{"age": 1, "city": "x"}, 7]', ("object of fields", "row 1")),
        (row() + b"{}", ("JSON",)),
        (row(age=True), ("age",)),
        (row(age="many"), ("'many' is not a finite number", "row 0, field age")),
        (row(age="9" * 400), ("finite number",)),
        (row(age="x" * 100_000), ("finite number",)),
        (row(age=10**400), ("finite number",)),
        (row(age=[1]), ("finite number",)),
        (row(age={"a": 1}), ("finite number",)),
        (b'{"age": NaN, "city": "x"}', ("JSON",)),
        (b'{"age": -Infinity, "city": "x"}', ("JSON",)),
        (b'{"age": 1e999, "city": "x"}', ("JSON",)),
        (row(age="1e999"), ("finite number",)),
        (b'{"age": 1}', ("missing field 'city'", "null if it is not known")),
        (row(extra=1), ("unknown field 'extra'", "age, city")),
        (row(**{"x" * 50_000: 1}), ("unknown field",)),
        (b'{"age": 1, "age": 2, "city": "x"}', ("'age' comes twice",)),
        (b'{"age": 1, "\\u0061ge": 2, "city": "x"}', ("'age' comes twice",)),
        (b'{"age": {"a": 1, "a": 2}, "city": "x"}', ("'a' comes twice",)),
        (DEEP, ("too deep",)),
        (DEEP + b"]" * len(DEEP), ("too deep",)),
        (b'{"age":' * 20_000, ("too deep",)),
        (b'{"age": "\\ud800", "city": "x"}', ()),
        (b"[" + b"{}," * 10_000 + b"{}]", ("missing field", "row 0")),
    ],
)
def test_json(client: httpx.Client, body: bytes, words: tuple[str, ...]) -> None:
    is_problem(client.post(TABLE, content=body, headers={"content-type": JSON}), 422, *words)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (tensors(double=[1]), ("double", "shape")),
        (tensors(half=[1, 2, 3]), ("half", "shape")),
        (tensors(half=[1, [2]]), ("half", "different lengths")),
        (tensors(half=[1, 1e9]), ("half", "beyond float16")),
        (tensors(byte=[[1, 2], [3, 256]]), ("byte", "beyond uint8")),
        (tensors(byte=[[1, 2], [3, -1]]), ("byte", "beyond uint8")),
        (tensors(byte=[[1, 2], [3, 0.5]]), ("byte", "fraction")),
        (tensors(short=None), ("short", "null")),
        (tensors(long=[1, 2**63]), ("long", "beyond int64")),
        (tensors(unsigned=2**64), ("unsigned", "beyond uint64")),
        (tensors(flag=1), ("flag", "booleans")),
        (tensors(text=["a", 1]), ("text", "text is needed")),
        (tensors(text=["a", "b" * 10]).replace(b"bbbbbbbbbb", b"\xff"), ("JSON",)),
        (tensors(single=[]), ("single", "shape")),
        (tensors(single="[" * 50_000), ("single", "not a list")),
        (tensors(single="[" * 50_000 + "]" * 50_000), ("single", "not a list")),
        (tensors(double="x" * 100_000), ("double",)),
        (tensors(single=[[{}, 1]]), ("single",)),
    ],
)
def test_tensors(client: httpx.Client, body: bytes, words: tuple[str, ...]) -> None:
    assert client.post(TENSORS, content=tensors(), headers={"content-type": JSON}).status_code == 200
    is_problem(client.post(TENSORS, content=body, headers={"content-type": JSON}), 422, *words)


@pytest.mark.parametrize(
    ("kind", "body", "status", "words"),
    [
        ("image/jpeg", jpeg(256)[:-1000], 422, ("damaged picture",)),
        ("image/jpeg", jpeg(256)[:300], 422, ("not a JPEG",)),
        ("image/jpeg", jpeg()[:20] + b"\0" * 500, 422, ()),
        ("image/jpeg", b"\xff\xd8", 422, ("not a JPEG",)),
        ("image/jpeg", b"no picture", 422, ("not a JPEG, PNG, WebP, BMP or GIF",)),
        ("image/png", b"%PDF-1.7", 422, ("not a JPEG",)),
        ("image/png", b"II*\0" + bytes(100), 422, ("not a JPEG",)),
        ("image/svg+xml", b"<svg/>", 422, ("not a JPEG",)),
        ("image/png", lying_png(), 413, ("far too many pixels",)),
        ("image/png", lying_png()[:5000], 413, ("far too many pixels",)),
        ("image/png", lying_png(8_000), 413, ("8000 x 8000 pixels", "max_pixels")),
        ("image/png", huge_png(20_000), 413, ("far too many pixels",)),
        ("image/png", text_bomb_png(), 422, ("picture",)),
        ("image/jpeg", b"", 422, ("empty",)),
    ],
)
def test_pictures(client: httpx.Client, kind: str, body: bytes, status: int, words: tuple[str, ...]) -> None:
    is_problem(client.post(PICTURES, content=body, headers={"content-type": kind}), status, *words)
    packed = json.dumps({"image": base64.b64encode(body).decode()}).encode()
    is_problem(client.post(PICTURES, content=packed, headers={"content-type": JSON}), status, *(words if body else ()))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("%%%", ("not base64",)),
        ("data:image/png;base64,%%%", ("not base64",)),
        (7, ()),
        (None, ("missing",)),
        ([], ("shape",)),
        ([[1, 2], [3]], ("different lengths",)),
        ([[[0, 0, 300]]], ("0 to 255",)),
        ([[[0, 0, 0.5]]], ("0 to 255",)),
        ([[["a", "b", "c"]]], ("0 to 255",)),
        ([[[1] * 7]], ("shape",)),
        ({"a": 1}, ()),
    ],
)
def test_pictures_in_json(client: httpx.Client, value: Any, words: tuple[str, ...]) -> None:
    body = json.dumps({"image": value}).encode()
    is_problem(client.post(PICTURES, content=body, headers={"content-type": JSON}), 422, *words)


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({}, 415, ("no content type", "multipart/form-data")),
        ({"content-type": "text/csv"}, 415, ("text/csv",)),
        ({"content-type": "application/x-www-form-urlencoded"}, 415, ()),
        ({"content-type": "application/octet-stream"}, 415, ()),
        ({"content-type": "image/png"}, 415, ()),
        ({"content-type": "json"}, 415, ()),
        ({"content-type": "application/json; charset=utf-16"}, 415, ("utf-16", "UTF-8")),
        ({"content-type": "application/json; charset=" + "x" * 5000}, 415, ()),
        ({"content-type": "x" * 10_000}, 415, ()),
        ({"content-type": JSON, "content-encoding": "gzip"}, 415, ("compressed",)),
        ({"content-type": JSON, "content-encoding": "br, gzip"}, 415, ("compressed",)),
        ({"content-type": JSON, "yunmo-timeout": "soon"}, 422, ("yunmo-timeout",)),
        ({"content-type": JSON, "yunmo-timeout": "-1"}, 422, ("yunmo-timeout",)),
        ({"content-type": JSON, "yunmo-timeout": "1e9"}, 422, ("yunmo-timeout",)),
        ({"content-type": "multipart/form-data"}, 422, ("boundary is missing",)),
        ({"content-type": "multipart/form-data; boundary*=utf-8''B"}, 422, ("boundary is missing",)),
        ({"content-type": "multipart/form-data; a*0; a*="}, 422, ("boundary is missing",)),
        ({"content-type": "multipart/form-data; boundary=B"}, 422, ("form",)),
    ],
)
def test_headers(client: httpx.Client, headers: dict[str, str], status: int, words: tuple[str, ...]) -> None:
    is_problem(client.post(TABLE, content=row(), headers=headers), status, *words)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (form(), ("missing field",)),
        (form(("Content-Disposition: form-data", b"1")), ("no name",)),
        (form(("X: y", b"1")), ("no name",)),
        (form(("Content-Disposition: form-data; name*=utf-8''age", b"1")), ("no name",)),
        (form(('Content-Disposition: form-data; name="age"', b"1")), ("missing field 'city'",)),
        (form(*[('Content-Disposition: form-data; name="age"', b"1")] * 2), ("'age' comes twice",)),
        (form(*[(f'Content-Disposition: form-data; name="f{n}"', b"") for n in range(1500)]), ("1000 parts",)),
        (form(('Content-Disposition: form-data; name="age"', b"\xff\xfe")), ("not UTF-8", "age")),
        (form(('Content-Disposition: form-data; name="age"', b"1"), end=b""), ("ends in the middle",)),
        (form(('Content-Disposition: form-data; name="' + "x" * 50_000 + '"', b"1")), ()),
        (form(("X: " + "y" * 100_000, b"1")), ()),
        (b"--B\r\n" + b"X: y\r\n" * 30_000, ()),
        (b"--B" * 60_000, ()),
    ],
)
def test_forms(client: httpx.Client, body: bytes, words: tuple[str, ...]) -> None:
    headers = {"content-type": "multipart/form-data; boundary=B"}
    is_problem(client.post(TABLE, content=body, headers=headers), 422, *words)


@pytest.mark.parametrize("path", [TABLE, PICTURES])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit(client: httpx.Client, path: str, chunked: bool) -> None:
    content = iter([b" " * 100_000] * 3) if chunked else b" " * 200_001
    kind = JSON if path == TABLE else "image/png"
    try:
        reply = client.post(path, content=content, headers={"content-type": kind})
    except httpx.TransportError:
        assert chunked  # it was still sending when the answer came and the connection ended
    else:
        is_problem(reply, 413, "more than 200000 bytes", "max_body")


@pytest.mark.parametrize(
    "name", ["none", "x" * 64, "x" * 300, "..", "%2e%2e%2fetc%2fpasswd", "%00", "%ff", "tab%0d%0aX-Evil: 1"]
)
def test_endpoints_that_are_not_there(client: httpx.Client, name: str) -> None:
    reply = client.post(f"/api/v1/endpoints/{name}/predict", content=row(), headers={"content-type": JSON})
    assert reply.status_code in (404, 503)  # what is no endpoint's path at all is control's, which is not there
    is_problem(reply, reply.status_code)
    assert "x-evil" not in reply.headers
