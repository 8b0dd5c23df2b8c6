"""A small real HTTP server that answers like the management API; it keeps what it was asked."""

from __future__ import annotations

import hashlib
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

from yunmo.core.errors import Conflict, InvalidInput, NotFound, Unauthenticated, YunmoError, problem
from yunmo.core.events import (
    Decision,
    Envelope,
    EpochFinished,
    RecipeResolved,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    TrainingProgress,
)

KEY = "ym_abcdefgh_" + "k" * 43
RUN = "run_1"


@dataclass
class State:
    """What the service knows, and how it is to misbehave."""

    uploads: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    dataset: dict[str, Any] = field(default_factory=dict)
    run_request: dict[str, Any] = field(default_factory=dict)
    deployed: str = "pets:1"
    trial: dict[str, Any] = field(default_factory=dict)
    """What the last deployment asked for: a canary's percent, or a shadow."""
    limits: dict[str, Any] = field(default_factory=dict)
    sticky: str = "request"
    events: list[Any] = field(default_factory=list)
    break_after: int | None = None
    """Cut the event stream once, after so many events."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    until_cancelled: bool = False
    status: str = "succeeded"
    slow: float = 0.0
    refuse_rows_with: str | None = None
    """Text of a row (as JSON) at which a prediction is refused."""

    def named(self, method: str, path: str) -> list[tuple[str, str, dict[str, str], bytes]]:
        return [request for request in self.requests if request[:2] == (method, path)]


def happy_events() -> list[Any]:
    return [
        RunStarted(attempt=1),
        StepStarted(step="prepare"),
        StepFinished(step="prepare", seconds=0.5),
        RecipeResolved(recipe={}, decisions=(Decision(key="train.epochs", value="2", reason="the budget"),)),
        StepStarted(step="train"),
        TrainingProgress(epoch=1, epochs=2, step=3, steps=9, loss=0.7, rows_per_second=100, seconds_left=8.0),
        EpochFinished(
            epoch=1,
            epochs=2,
            train_loss=0.6,
            validation_loss=0.5,
            metric="accuracy",
            value=0.75,
            best=True,
            lr=0.01,
            seconds=2.0,
        ),
        StepFinished(step="train", seconds=4.0),
        RunFinished(model="pets", version=1, summary={"accuracy": 0.9}),
    ]


def failed_events() -> list[Any]:
    return [RunStarted(attempt=1), RunFailed(problem=problem(NotFound("gone", where="x.csv, row 7", remedy="Look")))]


REPORT: dict[str, Any] = {
    "name": "pets",
    "test": {
        "label": {
            "type": "category",
            "rows": 200,
            "accuracy": 0.9,
            "f1": 0.89,
            "intervals": {"accuracy": [0.85, 0.94]},
            "per_class": {"cat": {"precision": 0.9, "recall": 0.8, "f1": 0.85, "support": 100}},
            "confusions": [{"true": "cat", "predicted": "dog", "count": 20}],
            "notes": ["a note"],
        }
    },
    "baselines": {
        "label": {
            "linear": {"name": "logistic regression", "metrics": {"accuracy": 0.6, "f1": 0.6}},
            "simple": {"name": "majority class", "metrics": {"accuracy": 0.5, "f1": 0.3}},
        }
    },
    "verdicts": {"label": {"best": "network", "sentence": "The network is better than a linear model"}},
    "training": {
        "history": [
            {"epoch": 1, "metric": "accuracy", "value": 0.75, "train_loss": 0.7},
            {"epoch": 2, "metric": "accuracy", "value": 0.9, "train_loss": 0.3},
        ]
    },
    "recipe": {"evaluate": {"metrics": ["accuracy", "f1"]}},
}

SCHEMA = {
    "model": "pets",
    "version": 1,
    "input": {"type": "object", "properties": {"age": {"type": ["number", "null"]}, "city": {"type": "string"}}},
    "output": {
        "type": "object",
        "properties": {
            "label": {"type": "object", "properties": {"value": {}, "probability": {}, "probabilities": {}}}
        },
    },
}


def version(number: int, aliases: list[str]) -> dict[str, Any]:
    return {
        "id": f"ver_{number}",
        "model": "pets",
        "version": number,
        "digest": f"sha256:{number:064}",
        "size": 1234567,
        "run_id": RUN,
        "summary": {"accuracy": 0.9},
        "aliases": aliases,
        "created_at": 1.0,
        "added_by_a_newer_service": True,
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, *_: object) -> None:
        return

    def address_string(self) -> str:
        return "client"

    def _serve(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length)
        headers = {key.lower(): value for key, value in self.headers.items()}
        path = self.path
        self.state.requests.append((self.command, path, headers, body))
        time.sleep(self.state.slow)
        try:
            if headers.get("authorization") != f"Bearer {KEY}":
                raise Unauthenticated("the key is not valid", remedy="Ask for another")
            if path.endswith("/events"):
                self._events(int(headers.get("last-event-id", 0)))
                return
            answer = self._answer(self.command, path.removeprefix("/api/v1/"), headers, body)
        except YunmoError as error:
            self._send(error.status, msgspec.json.encode(problem(error)), "application/problem+json")
            return
        raw = isinstance(answer, bytes)
        self._send(200, answer if raw else json.dumps(answer).encode(), "text/html" if raw else "application/json")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _events(self, after: int) -> None:
        state = self.state
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        events = list(state.events)
        self.wfile.write(b": hello\n\n")
        for sequence, event in enumerate(events, 1):
            if sequence <= after:
                continue
            envelope = Envelope(
                sequence=sequence, id=f"evt_{sequence}", time=1.0, project_id="default", subject=RUN, event=event
            )
            self._event(sequence, msgspec.json.encode(envelope))
            if state.break_after == sequence:
                state.break_after = None
                return
        if state.until_cancelled and state.cancelled.wait(20):
            last = len(events) + 1
            envelope = Envelope(
                sequence=last, id="evt", time=1.0, project_id="default", subject=RUN, event=RunCancelled()
            )
            self._event(last, msgspec.json.encode(envelope))

    def _event(self, sequence: int, data: bytes) -> None:
        self.wfile.write(b"id: %d\nevent: x\ndata: %s\n\n" % (sequence, data))
        self.wfile.write(b'data: {"sequence": 0, "event": {"event": "run.of_the_future"}}\n\n')
        self.wfile.flush()

    def _run(self) -> dict[str, Any]:
        return {
            "id": RUN,
            "name": "pets",
            "status": self.state.status,
            "dataset": "pets:1",
            "recipe": {},
            "resolved": None,
            "model": "pets",
            "version": 1,
            "summary": {"accuracy": 0.9},
            "problem": None,
            "attempt": 1,
            "created_at": 1.0,
            "updated_at": 2.0,
        }

    def _job(self, endpoint: str) -> dict[str, Any]:
        return {
            "id": "job_1",
            "endpoint": endpoint,
            "model": "pets",
            "version": 1,
            "dataset": "rows:2",
            "split": "train",
            "status": "succeeded",
            "rows": 3,
            "done": 3,
            "output": "told:1",
            "problem": None,
            "attempt": 1,
            "created_at": 1.0,
            "updated_at": 2.0,
        }

    def _endpoint(self, name: str) -> dict[str, Any]:
        model, _, number = self.state.deployed.partition(":")
        trial = self.state.trial
        weight = trial.get("canary") or 0

        def part(version: int, weight: int) -> dict[str, Any]:
            return {"model": model, "version": version, "digest": "sha256:0", "weight": weight, "ready": True}

        return {
            "id": "ep_1",
            "name": name,
            "live": part(1 if trial else int(number), 100 - weight),
            "canary": part(int(number), weight) if weight else None,
            "shadow": part(int(number), 100) if trial.get("shadow") else None,
            "previous": None,
            "limits": {"concurrency": None, "queue": None, "timeout": None, **self.state.limits},
            "sticky": self.state.sticky,
            "ready": True,
            "created_at": 1.0,
            "updated_at": 1.0,
        }

    def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Any:  # noqa: C901 - a table of routes
        state = self.state
        data = json.loads(body) if headers.get("content-type") == "application/json" and body else {}
        key = {"id": "key_1", "name": "app", "prefix": "abcdefgh", "scopes": ["predict"], "endpoints": None}
        key |= {"created_at": 1.0, "expires_at": None}
        match (method, *path.split("/")):
            case ("POST", "uploads"):
                digest = hashlib.sha256(body).hexdigest()
                state.uploads[digest] = body
                return {"digest": digest, "size": len(body)}
            case ("POST", "datasets"):
                state.dataset = data
                return self._dataset()
            case ("GET", "datasets"):
                return [self._dataset()]
            case ("GET", "datasets", _, *_):
                return self._dataset()
            case ("POST", "runs"):
                state.run_request = data
                return self._run()
            case ("GET", "runs"):
                return [self._run()]
            case ("GET", "runs", "run_1"):
                return self._run()
            case ("POST", "runs", "run_1", "cancel"):
                state.cancelled.set()
                return self._run()
            case ("POST", "runs", "run_1", "resume"):
                if state.status == "succeeded":
                    raise Conflict("there is nothing to resume", where=RUN)
                state.events = [*state.events, *happy_events()]
                state.status = "succeeded"
                return self._run()
            case ("GET", "runs", "run_1", "log"):
                return b"what the process wrote\n"
            case ("GET", "runs", "run_1", "report"):
                return b"<html>report</html>" if headers.get("accept") == "text/html" else REPORT
            case ("GET", "models") | ("GET", "models", "pets"):
                return [version(1, ["champion"]), version(2, [])]
            case ("GET", "models", "pets", number):
                return version(int(number), [])
            case ("GET", "models", "pets", number, "verify"):
                return {"model": "pets", "version": int(number), "valid": number == "1", "detail": "graph.onnx"}
            case ("GET", "models", "pets", _, "bundle"):
                return b"BUNDLE" * 1000
            case ("GET", "models", "pets", _, "bom"):
                return {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"type": "data"}]}
            case ("GET", "models", "pets", _, "report"):
                return REPORT
            case ("POST", "models"):
                return version(3, [])
            case ("PUT", "models", "pets", "aliases", alias):
                return version(data["version"], [alias])
            case ("POST", "models", "pets", _, "evaluate"):
                return {"output": "label", **REPORT["test"]["label"]}
            case ("PUT", "endpoints", name):
                state.deployed = data["model"]
                state.trial = {key: data[key] for key in ("canary", "shadow") if data[key]}
                return self._endpoint(name)
            case ("GET", "endpoints"):
                return [self._endpoint("pets")]
            case ("GET", "endpoints", "pets"):
                return self._endpoint("pets")
            case ("PATCH", "endpoints", name):
                state.limits |= {key: value for key, value in data.items() if key != "sticky"}
                state.sticky = data.get("sticky", state.sticky)
                return self._endpoint(name)
            case ("POST", "endpoints", name, "rollback"):
                state.trial = {}
                return self._endpoint(name)
            case ("DELETE", "endpoints" | "keys", _):
                return b""
            case ("GET", "endpoints", _, "schema"):
                return SCHEMA
            case ("POST", "endpoints", _, "predict"):
                rows = data if isinstance(data, list) else [data]
                if state.refuse_rows_with and state.refuse_rows_with in body.decode():
                    place = body.decode().partition(state.refuse_rows_with)[0].count("{") - 1
                    raise InvalidInput("too old", where=f"row {place}, field age")
                answer = {"label": {"value": "cat", "probability": 0.9, "probabilities": {"cat": 0.9, "dog": 0.1}}}
                return {"predictions": [answer for _ in rows]}
            case ("GET", "endpoints", name, "jobs"):
                return [self._job(name)]
            case ("POST" | "GET", "endpoints", name, "jobs", *_):
                return self._job(name)
            case ("GET", "keys"):
                return [key]
            case ("POST", "keys"):
                return {"secret": KEY, "key": key}
        raise NotFound(f"nothing is at {path}")

    def _dataset(self) -> dict[str, Any]:
        splits = self.state.dataset.get("splits", {"train": {"digest": "0", "filename": "a.csv", "size": 5}})
        return {
            "id": "ds_1",
            "name": self.state.dataset.get("name", "pets"),
            "version": 1,
            "splits": splits,
            "kind": "csv",
            "rows": {"train": 3},
            "schema": [{"name": "age", "type": "number", "role": "input"}],
            "created_at": 1.0,
        }


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def serve(state: State, uds: Path | None = None) -> Iterator[str]:
    """Serve until the block ends; gives the base URL."""
    handler = type("Handler", (_Handler,), {"state": state})
    server: Any = _UnixServer(str(uds), handler) if uds else ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield "http://localhost" if uds else f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        state.cancelled.set()
        server.shutdown()
        server.server_close()
        thread.join()
