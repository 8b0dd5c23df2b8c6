"""The Open Inference Protocol over HTTP, as curl, httpx and bare sockets see it on a real data worker."""

from __future__ import annotations

import base64
import json
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.contract.harness import Workers
from tests.contract.oip_page import examples, surroundings
from tests.fixtures.bundles import png

TABLE = "/v2/models/table/infer"
PICTURES = "/v2/models/pictures/infer"
HEADER = "inference-header-content-length"
AGE = {"name": "age", "shape": [1], "datatype": "FP64", "data": [3]}
CITY = {"name": "city", "shape": [1], "datatype": "BYTES", "data": ["Berlin"]}


@pytest.fixture(scope="module")
def client(workers: Workers) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=workers.url, headers=workers.headers, timeout=20) as client:
        yield client


def body(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def is_error(reply: httpx.Response, status: int, text: str = "") -> None:
    """Hold an answer against the protocol's error object, and against telling of our insides."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    document = reply.json()
    assert list(document) == ["error"]
    assert text in document["error"]
    for inside in ("Traceback", "site-packages", "/tmp", "yunmo.", "simdjson", "numpy", "0x"):  # noqa: S108 (words)
        assert inside not in reply.text


def outputs(reply: httpx.Response) -> dict[str, dict[str, Any]]:
    """Return the outputs by name, binary ones read."""
    assert reply.status_code == 200, reply.text
    length = reply.headers.get(HEADER)
    document = json.loads(reply.content[: int(length)] if length else reply.content)
    place = int(length) if length else 0
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            output["raw"] = reply.content[place : place + size]
            place += size
    assert place in (0, len(reply.content))
    return {output["name"]: output for output in document["outputs"]}


@pytest.mark.parametrize(
    "path",
    ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/table", TABLE, "/v2/models/none/ready", "/v2/nothing"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_no_key_is_401_in_the_protocols_shape(workers: Workers, path: str, method: str) -> None:
    reply = httpx.request(method, workers.url + path)
    is_error(reply, 401, "needs a key")
    assert "Bearer" in reply.headers["www-authenticate"]


def test_health_and_metadata(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2").json() == client.get("/v2/").json()
    assert client.get("/v2").json()["name"] == "yunmo"
    for path in ("/v2/models/table/ready", "/v2/models/table/versions/1/ready"):
        assert client.get(path).json() == {"name": "table", "ready": True}
    for path in ("/v2/models/pictures", "/v2/models/pictures/versions/1"):
        document = client.get(path).json()
        assert document["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 8, 8, 3]}]
        assert document["versions"] == ["1"]
    assert client.head("/v2/models/table").content == b""


def test_the_index(client: httpx.Client, workers: Workers) -> None:
    every = [{"name": name, "version": "1", "state": "READY", "reason": ""} for name in ("pictures", "table")]
    assert client.post("/v2/repository/index").json() == every
    assert client.post("/v2/repository/index", json={"ready": True}).json() == every
    is_error(client.post("/v2/repository/index", content=b"[]"), 400)
    is_error(client.get("/v2/repository/index"), 405)
    only = workers.add_key("predict", endpoints=("table",))
    workers.apply()
    mine = httpx.post(workers.url + "/v2/repository/index", headers={"authorization": f"Bearer {only}"}).json()
    assert [each["name"] for each in mine] == ["table"]


def test_infer_flat_nested_named_and_with_an_id(client: httpx.Client) -> None:
    several = body(
        {"name": "age", "shape": [2], "datatype": "INT32", "data": [3, 70]},
        {"name": "city", "shape": [2], "datatype": "BYTES", "data": ["Berlin", "Beijing"]},
        id="42",
    )
    reply = client.post(TABLE, content=several)
    assert reply.json()["id"] == "42"
    assert reply.json()["model_name"] == "table"
    assert reply.json()["model_version"] == "1"
    found = outputs(reply)
    assert list(found) == ["label", "label.probabilities", "price"]
    assert found["label.probabilities"]["shape"] == [2, 3]
    assert len(found["label.probabilities"]["data"]) == 6
    some = outputs(
        client.post("/v2/models/table/versions/1/infer", content=body(AGE, CITY, outputs=[{"name": "price"}]))
    )
    assert list(some) == ["price"]
    assert some["price"]["data"][0] == pytest.approx(found["price"]["data"][0], abs=1e-6)


def test_a_picture_in_every_form(client: httpx.Client) -> None:
    pixels = np.full((1, 8, 8, 3), 120, np.uint8)
    text = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(png(120)).decode()]}
    flat = {"name": "image", "shape": [1, 8, 8, 3], "datatype": "UINT8", "data": pixels.ravel().tolist()}
    answers = [
        outputs(client.post(PICTURES, content=body(each)))["label.probabilities"]["data"]
        for each in (text, flat, {**flat, "data": pixels.tolist()})
    ]
    raw = struct.pack("<I", len(png(120))) + png(120)
    for datatype, shape, data in (("UINT8", [1, 8, 8, 3], pixels.tobytes()), ("BYTES", [1], raw)):
        given = {"name": "image", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
        head = body(given)
        reply = client.post(PICTURES, content=head + data, headers={HEADER: str(len(head))})
        answers.append(outputs(reply)["label.probabilities"]["data"])
    whole = client.post(PICTURES, content=png(120), headers={HEADER: "0", "content-type": "application/octet-stream"})
    answers.append(outputs(whole)["label.probabilities"]["data"])
    assert all(answer == pytest.approx(answers[0], abs=1e-6) for answer in answers)


def test_binary_outputs(client: httpx.Client) -> None:
    plain = outputs(client.post(TABLE, content=body(AGE, CITY)))
    every = client.post(TABLE, content=body(AGE, CITY, parameters={"binary_data_output": True}))
    assert every.headers["content-type"] == "application/octet-stream"
    found = outputs(every)
    assert (
        found["label"]["raw"] == struct.pack("<I", len(plain["label"]["data"][0])) + plain["label"]["data"][0].encode()
    )
    price = np.frombuffer(found["price"]["raw"], "<f4").tolist()
    assert price == pytest.approx(plain["price"]["data"], abs=1e-6)
    asked = [{"name": "price", "parameters": {"binary_data": False}}, {"name": "label"}]
    mixed = client.post(TABLE, content=body(AGE, CITY, parameters={"binary_data_output": True}, outputs=asked))
    found = outputs(mixed)
    assert "data" in found["price"]
    assert "raw" in found["label"]


NAME_TWICE = b'{"inputs": [{"name": "age", "name": "age", "shape": [1], "datatype": "FP64", "data": [1]}]}'


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "no JSON"),
        (b"\x00\xff" * 50, "not"),
        (b'{"inputs": [', "not valid JSON"),
        (b'{"inputs": []}', "no inputs"),
        (b"[]", "an object is needed"),
        (b"{}", "'inputs' is a list"),
        (b'{"inputs": {}}', "'inputs' is a list"),
        (b'{"inputs": [1]}', "an object is needed"),
        (b'{"inputs": [], "inputs": []}', "comes twice"),
        (NAME_TWICE, "comes twice"),
        (b'{"inputs": [], "input": []}', "unknown key 'input'"),
        (b"[" * 150_000, "not"),
        (b"[" * 5_000 + b"]" * 5_000, "nested too deep"),
        (b'{"inputs": [], "id": 7}', "'id' is a string"),
        (b'{"inputs": [{"name": "age", "shape": [1], "datatype": "FP64", "data": [NaN]}]}', "not valid JSON"),
        (b'{"inputs": [{"name": "age", "shape": [1], "datatype": "FP64", "data": [1e999]}]}', "not valid JSON"),
        (body(AGE), "missing input 'city'"),
        (body(AGE, CITY, CITY), "comes twice"),
        (body(AGE, CITY, {**AGE, "name": "more"}), "unknown input 'more'"),
        (body({**AGE, "datatype": "FP65"}, CITY), "no datatype 'FP65'"),
        (body({**AGE, "datatype": "BYTES", "data": ["3"]}, CITY), "datatype BYTES"),
        (body({**AGE, "shape": [1, 1]}, CITY), "shape [1, 1] where [-1] is needed"),
        (body({**AGE, "shape": []}, CITY), "without dimensions"),
        (body({**AGE, "shape": [2]}, CITY), "1 elements of data where shape [2] has 2"),
        (body({**AGE, "shape": [-1]}, CITY), "negative"),
        (body({**AGE, "shape": [1.0]}, CITY), "whole numbers"),
        (body({**AGE, "shape": [2**62, 2**62]}, CITY), "more elements than can be counted"),
        (body({**AGE, "shape": 1}, CITY), "'shape' is a list"),
        (body({**AGE, "data": ["3"]}, CITY), "a string in data of FP64"),
        (body({**AGE, "data": [True]}, CITY), "a boolean in data of FP64"),
        (body({**AGE, "data": 3}, CITY), "'data' is a list"),
        (body({**AGE, "data": [[3, 4]]}, CITY), "2 elements of data where shape [1] has 1"),
        (body({**AGE, "datatype": "INT8", "data": [300]}, CITY), "beyond INT8"),
        (body({**AGE, "shape": [2], "data": [3, 4]}, CITY), "1 rows where input 'age' has 2"),
        (body({**AGE, "shape": [0], "data": []}, {**CITY, "shape": [0], "data": []}), "no row"),
        (body({**AGE, "parameters": {"content_type": "np"}}, CITY), "'content_type'"),
        (body({**AGE, "parameters": {"binary_data_size": 8}}, CITY), "both here and in binary"),
        (body(AGE, CITY, parameters={"timeout": "soon"}), "'timeout'"),
        (body(AGE, CITY, parameters={"binary_data_output": 1}), "'binary_data_output'"),
        (body(AGE, CITY, outputs=[{"name": "none"}]), "unknown output 'none'"),
        (body(AGE, CITY, outputs=[{"name": "price"}, {"name": "price"}]), "twice"),
        (body(AGE, CITY, outputs=[{"name": "price", "parameters": {"classification": 2}}]), "'classification'"),
        (body(AGE, CITY, outputs=7), "'outputs' is a list"),
    ],
)
def test_bad_documents(client: httpx.Client, content: bytes, text: str) -> None:
    is_error(client.post(TABLE, content=content, headers={"content-type": "application/json"}), 400, text)
    assert client.post(TABLE, content=body(AGE, CITY)).status_code == 200


BINARY_AGE = {"name": "age", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}}
DOCUMENT = body(BINARY_AGE, CITY)


@pytest.mark.parametrize(
    ("length", "data", "text"),
    [
        ("-1", bytes(8), "is not a number"),
        ("1e3", bytes(8), "is not a number"),
        ("9" * 30, bytes(8), "is not a number"),
        ("99999", bytes(8), "99999 bytes where the whole body has"),
        (str(len(DOCUMENT) - 1), bytes(8), "not valid JSON"),
        (str(len(DOCUMENT)), bytes(7), "binary_data_size is 8; 7 bytes are left"),
        (str(len(DOCUMENT)), bytes(9), "1 bytes are left over"),
        (str(len(DOCUMENT)), b"", "0 bytes are left"),
    ],
)
def test_lengths_that_lie(client: httpx.Client, length: str, data: bytes, text: str) -> None:
    is_error(client.post(TABLE, content=DOCUMENT + data, headers={HEADER: length}), 400, text)


@pytest.mark.parametrize("size", [0, 7, 9, 2**63])
def test_sizes_that_lie(client: httpx.Client, size: int) -> None:
    document = body({**BINARY_AGE, "parameters": {"binary_data_size": size}}, CITY)
    reply = client.post(TABLE, content=document + bytes(8), headers={HEADER: str(len(document))})
    assert reply.status_code == 400
    is_error(reply, 400)


def test_a_body_without_a_document_is_for_one_input(client: httpx.Client) -> None:
    is_error(client.post(TABLE, content=bytes(8), headers={HEADER: "0"}), 400, "models of one input")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", TABLE, 405),
        ("PUT", TABLE, 405),
        ("POST", "/v2/models/table", 405),
        ("POST", "/v2/health/live", 405),
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/table/versions/2", 404),
        ("GET", "/v2/models/table/versions/x/ready", 404),
        ("GET", "/v2/models/" + "x" * 200, 404),
        ("GET", "/v2/models/table/infer/more", 404),
        ("GET", "/v2//models", 404),
        ("POST", "/v2/repository/models/table/load", 404),
        ("POST", "/v2/models/none/infer", 404),
        ("POST", "/v2/models/table/versions/7/infer", 404),
    ],
)
def test_paths_and_methods(client: httpx.Client, method: str, path: str, status: int) -> None:
    reply = client.request(method, path, content=body(AGE, CITY) if method == "POST" else None)
    is_error(reply, status)
    if status == 405:
        assert "OPTIONS" in reply.headers["allow"]


def test_types_sizes_and_encodings(client: httpx.Client) -> None:
    is_error(client.post(TABLE, content=body(AGE, CITY), headers={"content-type": "text/csv"}), 415)
    is_error(client.post(TABLE, content=b"x", headers={"content-encoding": "gzip"}), 415)
    is_error(client.post(TABLE, content=b" " * 200_001), 413)
    for kind in ("application/json; charset=utf-8", "application/octet-stream"):
        assert client.post(TABLE, content=body(AGE, CITY), headers={"content-type": kind}).status_code == 200


def test_a_truncated_picture_and_a_bomb(client: httpx.Client) -> None:
    for data in (png(120)[:40], b"", b"x" * 100):
        raw = struct.pack("<I", len(data)) + data
        head = body({"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}})
        is_error(client.post(PICTURES, content=head + raw, headers={HEADER: str(len(head))}), 400)


def test_rights(workers: Workers, client: httpx.Client) -> None:
    only, reader = workers.add_key("predict", endpoints=("table",)), workers.add_key("read")
    workers.apply()

    def ask(key: str, method: str, path: str) -> int:
        content = body(AGE, CITY) if method == "POST" else None
        headers = {"authorization": f"Bearer {key}"}
        return httpx.request(method, workers.url + path, headers=headers, content=content).status_code

    assert ask(only, "POST", TABLE) == 200
    assert ask(only, "POST", PICTURES) == 404
    assert ask(only, "GET", "/v2/models/pictures") == 404
    assert ask(reader, "GET", "/v2/models/pictures") == 200
    assert ask(reader, "POST", TABLE) == 403
    assert client.get("/v2/models/pictures").status_code == 200


def test_curl(workers: Workers, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    assert curl, "curl is a client that must work"
    (tmp_path / "request.json").write_bytes(body(AGE, CITY))
    (tmp_path / "a.png").write_bytes(png(120))
    key = ["-H", f"authorization: Bearer {workers.key}"]
    for arguments in (
        [workers.url + TABLE, "-H", "content-type: application/json", "-d", f"@{tmp_path}/request.json"],
        [
            workers.url + PICTURES,
            *("-H", "content-type: application/octet-stream", "-H", f"{HEADER}: 0"),
            *("--data-binary", f"@{tmp_path}/a.png"),
        ],
    ):
        done = subprocess.run(
            [curl, "-sS", "--fail-with-body", *key, *arguments], check=True, capture_output=True, timeout=20
        )
        assert json.loads(done.stdout)["outputs"], done.stderr


@pytest.mark.parametrize("example", examples("sh"))
def test_the_pages_examples(workers: Workers, tmp_path: Path, example: str) -> None:
    command = ["bash", "-euc", example.replace("curl -sS", "curl -sS --fail-with-body")]
    surrounded = surroundings(workers, tmp_path)
    done = subprocess.run(command, cwd=tmp_path, env=surrounded, capture_output=True, check=True, timeout=20)
    assert json.loads(done.stdout)["outputs"]
