"""The management API as a test sees it."""

import asyncio
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from yunmo.control.context import Context
from yunmo.control.jobs.runner import Runner
from yunmo.control.rest.app import create_app
from yunmo.control.services.runs import Runs
from yunmo.core.access import Principal, Scope
from yunmo.core.events import StepStarted
from yunmo.core.resources import Run


class Api:
    """The management API as one principal sees it: the application itself, and what the gate would tell it."""

    def __init__(self, context: Context, *scopes: Scope, project_id: str = "default") -> None:
        self.app = create_app(context)
        self.principal = Principal(key_id="key_test", project_id=project_id, scopes=frozenset(scopes))

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
            await self.app({**scope, "yunmo.principal": self.principal}, receive, send)

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", f"/api/v1{path}", **options)

    def post(self, path: str, json: Any = None, **options: Any) -> httpx.Response:
        return self.request("POST", f"/api/v1{path}", json=json, **options)

    def put(self, path: str, json: Any = None, **options: Any) -> httpx.Response:
        return self.request("PUT", f"/api/v1{path}", json=json, **options)

    def delete(self, path: str) -> httpx.Response:
        return self.request("DELETE", f"/api/v1{path}")

    def add(self, name: str, file: Path) -> dict[str, Any]:
        """Upload a file as a dataset's train split."""
        digest = self.post("/uploads", content=file.read_bytes()).json()["digest"]
        answer = self.post("/datasets", {"name": name, "splits": {"train": {"digest": digest, "filename": file.name}}})
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found


def wait_for(context: Context, run_id: str, done: Callable[[Run], bool], seconds: float = 120.0) -> Run:
    """Wait until a run is as wanted."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run = Runs(context).get("default", run_id)
        if done(run):
            return run
        time.sleep(0.05)
    raise AssertionError(f"still {run.status}: {context.events.last(run_id)}")


def ended(run: Run) -> bool:
    return run.status not in ("queued", "running")


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert (found["status"], found["code"]) == (status, code), response.text
    assert found["instance"].startswith("req_")
    return found


@contextmanager
def running(context: Context) -> Iterator[Runner]:
    runner = Runner(context)
    runner.start()
    try:
        yield runner
    finally:
        runner.stop()


def steps(context: Context, run_id: str) -> list[str]:
    return [each.event.step for each in context.events.read(subject=run_id) if isinstance(each.event, StepStarted)]


def begin(api: Api, data: Path, recipe: dict[str, Any], target: str | None = None) -> str:
    api.add(data.stem, data)
    answer = api.post("/runs", {"recipe": {"data": {"dataset": data.stem}, **recipe}, "target": target})
    assert answer.status_code == 202, answer.text
    run_id: str = answer.json()["id"]
    return run_id


def long(count: int) -> dict[str, Any]:
    return {"train": {"epochs": count, "batch_size": 32, "early_stopping": None}}
