"""NVIDIA's clients for Triton, unchanged, in an environment of their own, against a real data worker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.contract.harness import Workers
from tests.contract.oip_page import examples, surroundings
from tests.fixtures.bundles import png

DRIVER = Path(__file__).with_name("triton_driver.py")
VERSION = "2.73.0"
NO_NETWORK = (
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "No matching distribution",
)


@pytest.fixture(scope="module")
def triton(request: pytest.FixtureRequest) -> Path:
    """The Python of an environment that has tritonclient; made once and kept beside pytest's cache."""
    assert request.config.cache is not None
    folder = request.config.cache.mkdir(f"tritonclient-{VERSION}-{sys.version_info[0]}.{sys.version_info[1]}")
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, timeout=120)
        command = [python, "-m", "pip", "install", "--quiet", f"tritonclient[http,grpc]=={VERSION}"]
        installed = subprocess.run(command, check=False, capture_output=True, text=True, timeout=280)
        if installed.returncode and any(reason in installed.stderr for reason in NO_NETWORK):
            pytest.skip("tritonclient is not installed, and no package index can be reached to get it from")
        assert installed.returncode == 0, installed.stderr
        done.touch()
    return python


@pytest.fixture(scope="module")
def seen(triton: Path, workers: Workers) -> dict[str, Any]:
    """What the clients saw."""
    http_url = f"{workers.listening.address}:{workers.listening.port}"
    grpc_url = f"{workers.grpc.address}:{workers.grpc.port}"
    command = [triton, DRIVER, http_url, grpc_url, workers.key, png(120).hex()]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(params=["http", "grpc"])
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_health(seen: dict[str, Any], face: str) -> None:
    for question in ("live", "ready", "model_ready", "version_ready"):
        assert seen[face][question] is True, question


def test_metadata(seen: dict[str, Any], face: str) -> None:
    server, metadata, index = (seen[face][name] for name in ("server", "metadata", "index"))
    assert server["name"] == "yunmo"
    assert "binary_tensor_data" in server["extensions"]
    assert metadata["name"] == "table"
    assert metadata["versions"] == ["1"]

    def tensors(which: str) -> list[tuple[str, str, list[int]]]:
        return [(each["name"], each["datatype"], [int(size) for size in each["shape"]]) for each in metadata[which]]

    assert tensors("inputs") == [("age", "FP64", [-1]), ("city", "BYTES", [-1])]
    assert tensors("outputs") == [
        ("label", "BYTES", [-1]),
        ("label.probabilities", "FP32", [-1, 3]),
        ("price", "FP32", [-1]),
    ]
    assert [(each["name"], each["version"], each["state"]) for each in index] == [
        ("pictures", "1", "READY"),
        ("table", "1", "READY"),
    ]


def test_answers_are_the_same_over_http_grpc_and_json(seen: dict[str, Any]) -> None:
    http, grpc = seen["http"], seen["grpc"]
    for question in ("table", "missing", "versioned", "file", "pixels", "timeout", "priority"):
        assert http[question] == grpc[question], question
    assert http["json"]["label"] == http["table"]["label"]
    assert http["json"]["price"] == http["table"]["price"]
    assert http["versioned"]["price"] == http["table"]["price"]


def test_answers_have_their_shapes(seen: dict[str, Any], face: str) -> None:
    probabilities = np.array(seen[face]["table"]["label.probabilities"])
    assert probabilities.shape == (2, 3)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    best = [("cat", "dog", "fish")[index] for index in probabilities.argmax(axis=1)]
    assert seen[face]["table"]["label"] == best


def test_a_picture_is_the_same_as_a_file_and_as_pixels(seen: dict[str, Any], face: str) -> None:
    file, pixels = seen[face]["file"], seen[face]["pixels"]
    assert pixels["label"] == file["label"] * 2
    assert np.allclose(pixels["label.probabilities"], file["label.probabilities"] * 2, atol=1e-6)


def test_a_missing_number_is_nan_and_a_missing_text_empty(seen: dict[str, Any], face: str) -> None:
    first, second = seen[face]["missing"]["price"]
    assert first == pytest.approx(seen[face]["table"]["price"][0], abs=1e-6)
    assert np.isfinite(second)


def test_request_ids_come_back(seen: dict[str, Any], face: str) -> None:
    assert seen[face]["id"] == "abc 1"


@pytest.mark.parametrize(
    ("question", "status", "code", "text"),
    [
        ("unknown_model", "404", "NOT_FOUND", "no endpoint 'none'"),
        ("unknown_version", "404", "NOT_FOUND", "version 9"),
        ("no_key", "401", "UNAUTHENTICATED", "needs a key"),
        ("missing_input", "400", "INVALID_ARGUMENT", "missing input 'city'"),
        ("wrong_type", "400", "INVALID_ARGUMENT", "UINT8 or BYTES"),
        ("bad_picture", "400", "INVALID_ARGUMENT", "not a JPEG"),
        ("parameter", "400", "INVALID_ARGUMENT", "'colour'"),
        ("sequence", "400", "INVALID_ARGUMENT", "sequence_"),
    ],
)
def test_errors(seen: dict[str, Any], face: str, question: str, status: str, code: str, text: str) -> None:
    error = seen[face][question]
    assert error["status"] == (status if face == "http" else f"StatusCode.{code}")
    assert text in error["message"]


def test_methods_of_triton_that_the_protocol_has_not(seen: dict[str, Any]) -> None:
    assert seen["grpc"]["no_such_method"]["status"] == "StatusCode.UNIMPLEMENTED"
    assert seen["grpc"]["no_such_method_no_key"]["status"] == "StatusCode.UNAUTHENTICATED"


def test_many_at_a_time(seen: dict[str, Any]) -> None:
    alone = {"price": seen["http"]["table"]["price"]}
    for answers in (seen["http"]["async"], seen["grpc"]["async"], seen["aio"]["http"], seen["aio"]["grpc"]):
        assert len(answers) == 20
        for answer in answers:
            assert answer["price"] == pytest.approx(alone["price"], abs=1e-5)


@pytest.mark.parametrize("example", examples("python"))
def test_the_pages_examples(triton: Path, workers: Workers, tmp_path: Path, example: str) -> None:
    command = [triton, "-W", "ignore", "-c", example]
    surrounded = surroundings(workers, tmp_path)
    done = subprocess.run(
        command, cwd=tmp_path, env=surrounded, check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[")
