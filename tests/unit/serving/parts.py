"""What an entry is made of in tests: keys, an observer that remembers, a face with a path for each kind of answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import msgspec
from tests.unit.serving.wire import Answer, run, serving, until

from yunmo.core.access import PREFIX_LENGTH, KeyRecord, Scope, hash_key, key_prefix
from yunmo.core.errors import Forbidden, NotFound, YunmoError
from yunmo.core.snapshot import Deployment, Variant
from yunmo.inference.predictor import Predictor
from yunmo.serving.dataplane import Call
from yunmo.serving.entry import Entry
from yunmo.serving.gate import Gate, Keyring
from yunmo.serving.http import (
    App,
    Attended,
    Handler,
    Request,
    Response,
    allow,
    error_headers,
    json_response,
    problem_response,
)
from yunmo.serving.lane import Lane
from yunmo.serving.log import RequestLog
from yunmo.serving.observer import Activity, LaneMeter, Silent

KEY = f"ym_{'k' * PREFIX_LENGTH}_{'s' * 43}"
"""A key that is always the same: test names have it in them."""
AUTHORIZATION: dict[str, str] = {"authorization": f"Bearer {KEY}"}


def record(key: str = KEY, *scopes: Scope, **more: Any) -> KeyRecord:
    """Return what is known of a key of project ``p``."""
    known = {"id": "key_1", "project_id": "p", "name": "k", "scopes": scopes or ("predict",)} | more
    return KeyRecord(prefix=key_prefix(key) or "", hash=hash_key(key), **known)


def keyring(*records: KeyRecord) -> Keyring:
    ring = Keyring()
    ring.replace(records or (record(),))
    return ring


class Meter:
    """A lane's meter that remembers."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended: list[tuple[str, str]] = []
        self.batches: list[tuple[int, int, str]] = []
        self.waits: list[float] = []
        self.depths: list[int] = []
        self.shadows: list[bool | None] = []
        self.closed = 0

    def begin(self) -> None:
        self.begun += 1

    def request(self, face: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.ended.append((face, code))

    def waiting(self, rows: int) -> None:
        self.depths.append(rows)

    def batch(self, requests: int, rows: int, waits: Sequence[float], run_seconds: float, reason: str) -> None:
        assert len(waits) == requests
        assert run_seconds >= 0
        self.batches.append((requests, rows, reason))
        self.waits += waits

    def shadow(self, agrees: bool | None) -> None:
        self.shadows.append(agrees)

    def close(self) -> None:
        self.closed += 1


class Watcher:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.meters: dict[tuple[str, str, int], Meter] = {}
        self.requests: list[tuple[str, str, str, str]] = []

    def lane(self, project: str, endpoint: str, model: str, version: int) -> LaneMeter:  # noqa: ARG002 (the protocol's)
        return self.meters.setdefault((project, endpoint, version), Meter())

    def request(self, project: str, endpoint: str, face: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.requests.append((project, endpoint, face, code))

    @property
    def told(self) -> list[str]:
        """The codes of all requests that anybody was told of."""
        codes = [code for *_, code in self.requests]
        return codes + [code for meter in self.meters.values() for _, code in meter.ended]


def make_lane(deployment: Deployment, variant: Variant, predictor: Predictor) -> Lane:
    """Make a lane as it comes, which tells nobody what happens there."""
    meter = Silent().lane(deployment.project_id, deployment.endpoint, variant.model, variant.version)
    return Lane(predictor, meter)


class Lines:
    """A request log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def write(self, facts: dict[str, Any]) -> None:
        self.lines.append(dict(facts))


class Table:
    """A face: each path under its prefix is answered by a function; errors are its own kind of document."""

    def __init__(self, handlers: dict[str, Callable[[Request], Awaitable[Response]]], prefix: str = "/t/") -> None:
        self.name = "oip"
        self._handlers = handlers
        self._prefix = prefix

    def owns(self, path: str) -> bool:
        return path.startswith(self._prefix)

    def find(self, request: Request) -> Handler | None:
        handler = self._handlers.get(request.path.removeprefix(self._prefix))
        if handler is None:
            raise NotFound("no such path")
        return allow(self, request, ("GET", "HEAD", "POST"), handler)

    def refuse(self, error: YunmoError, request: Request) -> Response:  # noqa: ARG002 (the protocol's)
        return json_response({"error": error.message}, status=error.status, headers=error_headers(error))


class Rest:
    """The last face: it answers nothing but the open paths, so all else is for control."""

    def __init__(self) -> None:
        self.name = "native"

    def owns(self, path: str) -> bool:  # noqa: ARG002 (the protocol's)
        return True

    def find(self, request: Request) -> Handler | None:
        if request.path in ("/healthz", "/readyz"):
            return allow(self, request, ("GET", "HEAD"), say({"status": "ok"}))
        return None

    def refuse(self, error: YunmoError, request: Request) -> Response:
        return problem_response(error, request.id)


class World:
    """An entry and everything around it."""

    def __init__(
        self,
        control: App,
        handlers: dict[str, Callable[[Request], Awaitable[Response]]] | None = None,
        keys: Keyring | None = None,
        faces: Sequence[Any] | None = None,
        activity: Activity | None = None,
    ) -> None:
        self.watcher = Watcher()
        self.log = Lines()
        self.activity = activity or Activity()
        self.keyring = keys or keyring()
        faces = faces or [Table(handlers or {}), Rest()]
        self.entry = Entry(Gate(self.keyring), faces, control, self.watcher, cast(RequestLog, self.log), self.activity)

    def ask(
        self, method: str, path: str, headers: dict[str, str] | list[tuple[str, str | bytes]], body: bytes = b""
    ) -> Answer:
        """Ask over a connection of its own, and wait until all has been told and logged."""
        answers: list[Answer] = []
        pairs = list(headers.items()) if isinstance(headers, dict) else headers

        async def main() -> None:
            async with serving(self.entry.handle) as served:
                answers.append(await (await served.connect()).ask(method, path, pairs, body))
                await until(lambda: not self.activity.requests)

        run(main)
        return answers[0]

    def check(self, *codes: str) -> None:
        """Hold what was told and logged against the outcomes of all requests so far."""
        self.check_told(*codes)
        assert self.activity.requests == 0
        outcomes = ["client_gone" if line.get("client_gone") else line.get("error", "ok") for line in self.log.lines]
        assert sorted(outcomes) == sorted(codes)

    def check_told(self, *codes: str) -> None:
        """Hold what the observer and the meters were told against the outcomes of all requests but probes."""
        assert sorted(self.watcher.told) == sorted(codes)


def say(value: object) -> Handler:
    """Return a handler that always gives one answer."""

    async def handler(request: Request) -> Response:  # noqa: ARG001 (all handlers are alike)
        return json_response(value)

    return handler


def json_app(value: object) -> App:
    """Return an ASGI application that always gives one answer, when it has the whole body."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        body = msgspec.json.encode(value)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def metered(meter: Meter, work: Callable[[], Awaitable[object]]) -> Handler:
    """Return a handler that answers as an endpoint does: a version is chosen, then something runs."""

    async def handler(request: Request) -> Response:
        body = await request.body(limit=1_000_000)
        call = request.call = Call("pets", request.principal, size=len(body))
        call.meter = meter
        meter.begin()
        with Attended(request):
            return json_response(await work())

    return handler


async def forbid(request: Request) -> Response:  # noqa: ARG001 (all handlers are alike)
    raise Forbidden("not yours")
