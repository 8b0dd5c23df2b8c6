"""The forms of questions and answers: native, Open Inference Protocol (JSON, binary), and plain JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from benchmarks.proof.echo import INPUT, OUTPUT, WIDTH, Rows

FormName = Literal["native", "oip-json", "oip-binary", "plain", "grpc"]
FORMS: tuple[FormName, ...] = ("native", "oip-json", "oip-binary", "plain", "grpc")
_HEAD = "inference-header-content-length"


@dataclass(frozen=True)
class Answered:
    """What a good answer holds: rows, the request's id where the form has one, and the version where it says so."""

    rows: Rows
    request_id: str | None = None
    version: str | None = None


class Form(Protocol):
    """Rows as the body of a request, and back."""

    def encode(self, rows: Rows, request_id: str) -> tuple[str, dict[str, str], bytes]:
        """Return path, headers and body."""
        ...

    def decode(self, headers: Mapping[str, str], body: bytes) -> Answered:
        """Return what an answer holds.

        Raises:
            ValueError, KeyError, TypeError, IndexError: it is no such answer.
        """
        ...


class Native:
    """Yunmo's own JSON."""

    def __init__(self, endpoint: str) -> None:
        self._path = f"/api/v1/endpoints/{endpoint}/predict"

    def encode(self, rows: Rows, request_id: str) -> tuple[str, dict[str, str], bytes]:  # noqa: ARG002  # has no id
        """Return the rows as objects."""
        body = json.dumps([{INPUT: row} for row in rows.tolist()]).encode()
        return self._path, {"content-type": "application/json"}, body

    def decode(self, headers: Mapping[str, str], body: bytes) -> Answered:  # noqa: ARG002  # JSON always
        """Read the predictions."""
        document = json.loads(body)
        rows = [each[OUTPUT] for each in document["predictions"]]
        rows = [each["value"] if isinstance(each, dict) else each for each in rows]
        return Answered(_rows(rows), version=str(document["version"]))


class Oip:
    """The Open Inference Protocol over HTTP; ``binary``: tensors as bytes after the JSON."""

    def __init__(self, endpoint: str, *, binary: bool) -> None:
        self._path = f"/v2/models/{endpoint}/infer"
        self._binary = binary

    def encode(self, rows: Rows, request_id: str) -> tuple[str, dict[str, str], bytes]:
        """Return the rows as one tensor."""
        tensor: dict[str, Any] = {"name": INPUT, "shape": list(rows.shape), "datatype": "FP32"}
        document: dict[str, Any] = {"id": request_id, "inputs": [tensor]}
        if not self._binary:
            tensor["data"] = rows.ravel().tolist()
            return self._path, {"content-type": "application/json"}, json.dumps(document).encode()
        data = rows.tobytes()
        tensor["parameters"] = {"binary_data_size": len(data)}
        document["parameters"] = {"binary_data_output": True}
        head = json.dumps(document).encode()
        return self._path, {"content-type": "application/octet-stream", _HEAD: str(len(head))}, head + data

    def decode(self, headers: Mapping[str, str], body: bytes) -> Answered:
        """Read the tensor, wherever it is."""
        length = headers.get(_HEAD)
        document = json.loads(body[: int(length)] if length else body)
        (tensor,) = document["outputs"]
        if "data" in tensor:
            rows = _rows(np.asarray(tensor["data"], np.float32).reshape(tensor["shape"]))
        else:
            rows = _rows(np.frombuffer(body[int(length or 0) :], np.float32).reshape(tensor["shape"]))
        return Answered(rows, document.get("id"), document.get("model_version"))


class Plain:
    """JSON as hand-written services have it: ``{"inputs": rows}`` to ``{"outputs": rows}``."""

    def __init__(self, path: str) -> None:
        self._path = path

    def encode(self, rows: Rows, request_id: str) -> tuple[str, dict[str, str], bytes]:  # noqa: ARG002  # has no id
        """Return the rows as lists."""
        return self._path, {"content-type": "application/json"}, json.dumps({"inputs": rows.tolist()}).encode()

    def decode(self, headers: Mapping[str, str], body: bytes) -> Answered:  # noqa: ARG002  # JSON always
        """Read the rows."""
        return Answered(_rows(json.loads(body)["outputs"]))


def form(name: FormName, target: str) -> Form:
    """Return a form for an endpoint's name (plain: a path). gRPC is none of these: see `callers`."""
    match name:
        case "native":
            return Native(target)
        case "plain":
            return Plain(target)
        case _:
            return Oip(target, binary=name == "oip-binary")


def _rows(values: Any) -> Rows:
    rows = np.asarray(values, np.float32)
    if rows.ndim != 2 or rows.shape[1] != WIDTH:
        raise ValueError(f"rows of shape {rows.shape}")
    return rows
