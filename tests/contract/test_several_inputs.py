"""A picture, a text, a number and a category to one model, each missing in turn, over every protocol."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.contract.harness import Workers
from tests.fixtures.bundles import png

from yunmo.cli.predict_rows import answer_to_file
from yunmo.client.client import Client
from yunmo.core.settings import Settings
from yunmo.inference.predictor import Predictor

PREDICT = "/api/v1/endpoints/several/predict"
INFER = "/v2/models/several/infer"
PICTURE = png(200)
WHOLE: dict[str, Any] = {
    "image": base64.b64encode(PICTURE).decode(),
    "words": "a cat",
    "age": 31.5,
    "city": "Berlin",
}
WITHOUT = [(), *((name,) for name in WHOLE), tuple(WHOLE)]
EACH = pytest.mark.parametrize("without", WITHOUT, ids=lambda names: "-".join(names) or "none")


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with Workers(tmp_path_factory.mktemp("home"), settings=Settings()) as workers:
        workers.deploy("several", workers.bundle("several", kind="several"))
        workers.apply()
        yield workers


@pytest.fixture(scope="module")
def client(workers: Workers) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=workers.url, headers=workers.headers, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def offline(workers: Workers) -> Predictor:
    return Predictor.open(workers.bundle("offline", kind="several"), public_key_pem=workers.public)


def row(without: tuple[str, ...]) -> dict[str, Any]:
    return {name: None if name in without else value for name, value in WHOLE.items()}


def close(found: Any, expected: Any) -> bool:
    return bool(
        found["price"]["value"] == pytest.approx(expected["price"]["value"], rel=1e-5)
        and found["label"]["probabilities"] == pytest.approx(expected["label"]["probabilities"], rel=1e-4)
    )


def test_each_missing_input_changes_the_answer(offline: Predictor) -> None:
    prices = [offline.predict([row(without)])[0]["price"]["value"] for without in WITHOUT]
    assert len({round(price, 4) for price in prices}) == len(WITHOUT)


@EACH
def test_null_in_json(client: httpx.Client, offline: Predictor, without: tuple[str, ...]) -> None:
    reply = client.post(PREDICT, json=[row(without), WHOLE])
    assert reply.status_code == 200, reply.text
    expected = offline.predict([row(without), WHOLE])
    assert all(map(close, reply.json()["predictions"], expected))


@EACH
def test_an_empty_part_of_a_form(client: httpx.Client, offline: Predictor, without: tuple[str, ...]) -> None:
    parts: dict[str, Any] = {name: (None, str(value)) for name, value in WHOLE.items()}
    parts["image"] = ("a.png", PICTURE)
    # What a browser sends of a file that nobody chose, and of an empty line.
    parts |= {name: ("", b"") if name == "image" else (None, "") for name in without}
    reply = client.post(PREDICT, files=parts)
    assert reply.status_code == 200, reply.text
    assert close(reply.json()["predictions"][0], offline.predict([row(without)])[0])


@EACH
def test_empty_bytes_and_nan_in_the_open_inference_protocol(
    client: httpx.Client, offline: Predictor, without: tuple[str, ...]
) -> None:
    tensors, data = [], b""
    for name, kind in (("image", "BYTES"), ("words", "BYTES"), ("city", "BYTES"), ("age", "FP64")):
        if kind == "BYTES":
            value = PICTURE if name == "image" else WHOLE[name].encode()
            raw = b"".join(
                len(each).to_bytes(4, "little") + each for each in (b"" if name in without else value, value)
            )
        else:
            raw = np.array([np.nan if name in without else WHOLE[name], WHOLE[name]]).tobytes()
        tensors.append({"name": name, "shape": [2], "datatype": kind, "parameters": {"binary_data_size": len(raw)}})
        data += raw
    head = json.dumps({"inputs": tensors}).encode()
    reply = client.post(INFER, content=head + data, headers={"inference-header-content-length": str(len(head))})
    assert reply.status_code == 200, reply.text
    found = {output["name"]: output["data"] for output in reply.json()["outputs"]}
    expected = offline.predict([row(without), WHOLE])
    assert found["price"] == pytest.approx([each["price"]["value"] for each in expected], rel=1e-5)
    assert found["label"] == [each["label"]["value"] for each in expected]


def test_an_empty_cell_of_a_file(workers: Workers, offline: Predictor, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    cells = {**WHOLE, "image": "a.png"}
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(cells)
        writer.writerows([["" if name in without else cells[name] for name in cells] for without in WITHOUT])
    answers = tmp_path / "answers.csv"
    with Client(workers.url, key=workers.key) as client:
        assert answer_to_file(client, "several", tmp_path / "rows.csv", answers, quiet=True) == len(WITHOUT)
    with answers.open(newline="") as file:
        found = [float(each["predicted_price"]) for each in csv.DictReader(file)]
    expected = [offline.predict([row(without)])[0]["price"]["value"] for without in WITHOUT]
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", WHOLE)
def test_a_field_that_is_left_out_is_an_error_that_says_what_to_send(client: httpx.Client, name: str) -> None:
    rest = {other: value for other, value in WHOLE.items() if other != name}
    replies = [
        client.post(PREDICT, json=rest),
        client.post(PREDICT, files={other: (None, str(value)) for other, value in rest.items()}),
    ]
    for reply in replies:
        assert reply.status_code == 422
        assert f"missing field {name!r}" in reply.json()["detail"]
        assert "null if it is not known (in a form: an empty part)" in reply.text
    tensor = {"name": "words", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    assert "missing input" in client.post(INFER, json={"inputs": [tensor]}).json()["error"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"image": ("a.png", PICTURE[:40])}, "field image"),
        ({"image": ("a.txt", b"a cat")}, "not a JPEG"),
        ({"image": (None, "a.png")}, "not base64"),
        ({"words": ("a.png", PICTURE)}, "is not UTF-8"),
        ({"age": ("a.png", PICTURE)}, "is not a finite number"),
    ],
    ids=["cut off", "a text as picture", "a path as picture", "a picture as text", "a picture as number"],
)
def test_one_input_in_the_place_of_another_is_named(client: httpx.Client, changed: Any, words: str) -> None:
    parts: dict[str, Any] = {name: (None, str(value)) for name, value in WHOLE.items()}
    reply = client.post(PREDICT, files={**parts, "image": ("a.png", PICTURE), **changed})
    assert reply.status_code == 422, reply.text
    assert words in reply.text
    assert len(reply.content) < 1000


def test_the_schema_says_which_inputs_may_be_null(client: httpx.Client) -> None:
    properties = client.get("/api/v1/endpoints/several/schema").json()["input"]["properties"]
    assert {"type": "null", "description": "a missing picture"} in properties["image"]["anyOf"]
    assert all("null" in properties[name]["type"] for name in ("words", "age", "city"))
