"""A text over every protocol: as JSON, as a form, as the whole body, and as BYTES."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.contract.harness import Workers

from yunmo.core.settings import Settings

PREDICT = "/api/v1/endpoints/texts/predict"
INFER = "/v2/models/texts/infer"
TEXT = "A cat, 猫 — and 🐟"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with Workers(tmp_path_factory.mktemp("home"), settings=Settings(max_body=2_000_000)) as workers:
        workers.deploy("texts", workers.bundle("texts", kind="text"))
        workers.apply()
        with httpx.Client(base_url=workers.url, headers=workers.headers, timeout=20) as client:
            yield client


def answer(client: httpx.Client, text: Any) -> Any:
    reply = client.post(PREDICT, json={"words": text})
    assert reply.status_code == 200, reply.text
    return reply.json()["predictions"][0]["label"]


def test_json_a_form_and_a_raw_body_say_the_same(client: httpx.Client) -> None:
    expected = answer(client, TEXT)
    form = client.post(PREDICT, files={"words": (None, TEXT)})
    file = client.post(PREDICT, files={"words": ("a.txt", TEXT.encode(), "text/plain")})
    raw = [
        client.post(PREDICT, content=TEXT.encode(), headers={"content-type": kind})
        for kind in ("text/plain", "text/plain; charset=utf-8", "Text/Plain;charset=UTF-8")
    ]
    assert [reply.json()["predictions"][0]["label"] for reply in (form, file, *raw)] == [expected] * 5
    assert answer(client, "a") != expected


def test_the_protocol_takes_bytes(client: httpx.Client) -> None:
    tensor = {"name": "words", "shape": [2], "datatype": "BYTES", "data": [TEXT, "a"]}
    reply = client.post(INFER, json={"inputs": [tensor]})
    assert reply.status_code == 200, reply.text
    data = TEXT.encode()
    raw = len(data).to_bytes(4, "little") + data
    head = json.dumps(
        {"inputs": [{"name": "words", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}]}
    ).encode()
    binary = client.post(INFER, content=head + raw, headers={"inference-header-content-length": str(len(head))})
    assert binary.status_code == 200, binary.text
    expected = [answer(client, text)["value"] for text in (TEXT, "a")]
    assert reply.json()["outputs"][0]["data"] == expected
    assert binary.json()["outputs"][0]["data"] == expected[:1]
    wrong = {**tensor, "datatype": "FP32", "data": [1.0, 2.0]}
    assert client.post(INFER, json={"inputs": [wrong]}).status_code == 400


def test_the_schema_and_the_metadata_name_the_text(client: httpx.Client) -> None:
    schema = client.get("/api/v1/endpoints/texts/schema").json()
    assert "text/plain" in schema["accepts"]
    assert "image/png" not in schema["accepts"]
    assert schema["input"]["properties"]["words"]["type"] == ["string", "null"]
    metadata = client.get("/v2/models/texts").json()
    assert metadata["inputs"] == [{"name": "words", "datatype": "BYTES", "shape": [-1]}]


@pytest.mark.parametrize(
    "text",
    ["", None, "\u202eمرحبا", "e\u0301\u0301", "👩‍👩‍👧", "\x00", "never seen", "a cat " * 150_000],
    ids=["empty", "null", "arabic", "marks", "emoji", "control", "unseen", "long"],
)
def test_any_text_has_an_answer(client: httpx.Client, text: str | None) -> None:
    assert answer(client, text)["value"] in ("cat", "dog", "fish")


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"a \xff cat", "text/plain", 422),
        (b"", "text/plain", 422),
        ("猫".encode("gbk"), "text/plain; charset=gbk", 415),
        (b"a", "text/html", 415),
        (b"a", "image/png", 415),
        (b'{"words": "\\ud800"}', "application/json", 422),
        (b'{"words": "\xff"}', "application/json", 422),
        (b'{"words": 5}', "application/json", 422),
        (b'{"words": ["a"]}', "application/json", 422),
        (b"a" * 3_000_000, "text/plain", 413),
    ],
    ids=["not UTF-8", "empty", "gbk", "html", "picture", "surrogate", "JSON not UTF-8", "number", "list", "too large"],
)
def test_what_is_no_text_gets_a_clear_error(client: httpx.Client, content: bytes, kind: str, status: int) -> None:
    reply = client.post(PREDICT, content=content, headers={"content-type": kind})
    assert reply.status_code == status, reply.text
    assert reply.json()["detail"]
