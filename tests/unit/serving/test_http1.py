"""The entry behind its server, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.unit.serving.parts import KEY, Meter, World, forbid, metered
from tests.unit.serving.wire import Connection, Cut, Served, request, run, serving, until

from yunmo.serving import http
from yunmo.serving.http import ClientGone, Request, Response, json_response
from yunmo.serving.http1.bridge import serve_asgi

AUTH: list[tuple[str, str | bytes]] = [("authorization", f"Bearer {KEY}")]
CHUNKED: list[tuple[str, str | bytes]] = [*AUTH, ("transfer-encoding", "chunked")]
LIMIT = 100_000


def length(size: int) -> list[tuple[str, str | bytes]]:
    return [*AUTH, ("content-length", str(size))]


async def echo(asked: Request) -> Response:
    body = await asked.body(limit=LIMIT)
    return json_response(
        {"path": asked.path, "query": asked.query, "a": asked.header_values("x-a"), "body": body.decode("latin-1")}
    )


async def impatient(asked: Request) -> Response:
    return json_response(len(await asked.body(limit=LIMIT, timeout=0.05)))


async def nothing(asked: Request) -> Response:  # noqa: ARG001 (all handlers are alike)
    return Response(204)


class Control:
    """What is behind: takes a request as ASGI, and is told what to do by the test."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.received = 0
        self.whole: bool | None = None
        self.act: Callable[[Any], Awaitable[None]] = self.reply
        self.step = asyncio.Semaphore(0)
        self.ended = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.receive = receive
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.whole = False
                    raise ClientGone
                self.received += len(message.get("body", b""))
                if not message.get("more_body"):
                    break
            self.whole = True
            await self.act(send)
        finally:
            self.ended.set()

    async def reply(self, send: Any) -> None:
        body = b"%d" % self.received
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Bench:
    """A world, its server, and what can be waited for."""

    def __init__(self, served: Served, world: World, control: Control, meter: Meter, hold: Hold) -> None:
        self.served = served
        self.world = world
        self.control = control
        self.meter = meter
        self.hold = hold

    async def connect(self) -> Connection:
        return await self.served.connect()

    async def settled(self, *codes: str) -> None:
        """Wait until all requests have ended, then hold their outcomes against those expected."""
        await until(lambda: len(self.world.log.lines) >= len(codes) and not self.world.activity.requests)
        self.world.check(*codes)


class Hold:
    """Work that lasts until it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.entered = 0
        self.cancelled = 0

    async def work(self) -> object:
        self.entered += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return {"done": True}


@contextlib.asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    control, meter, hold = Control(), Meter(), Hold()
    handlers = {
        "echo": echo,
        "impatient": impatient,
        "nothing": nothing,
        "no": forbid,
        "wait": metered(meter, hold.work),
    }
    world = World(control, handlers)
    world.watcher.meters["p", "pets", 1] = meter
    async with serving(world.entry.handle) as served:
        yield Bench(served, world, control, meter, hold)


Work = Callable[[Bench], Awaitable[None]]


def on(work: Work) -> None:
    """Run a test on a server."""

    async def main() -> None:
        async with bench() as made:
            await work(made)

    run(main)


def test_bodies_of_known_and_unknown_length() -> None:
    @on
    async def _(bench: Bench) -> None:
        connection = await bench.connect()
        for body in (b"", b"abc", bytes(range(256)), b"x" * LIMIT):
            assert (await connection.ask("POST", "/t/echo", AUTH, body)).json["body"] == body.decode("latin-1")
            pieces = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part)
            await connection.send(request("POST", "/t/echo", CHUNKED, None) + pieces + b"0\r\n\r\n")
            assert (await connection.answer()).json["body"] == body.decode("latin-1")
        assert (await connection.ask("GET", "/t/echo", AUTH)).json["body"] == ""
        expecting = [*AUTH, ("expect", "100-continue")]
        await connection.send(request("POST", "/t/echo", expecting, b"abc"))
        assert (await connection.answer()).json["body"] == "abc"
        await bench.settled(*["ok"] * 10)


@pytest.mark.parametrize("known", [True, False])
def test_a_body_that_is_too_large_ends_the_connection(known: bool) -> None:
    @on
    async def _(bench: Bench) -> None:
        connection = await bench.connect()
        # The body's last bytes are never sent: the answer has to come without them.
        sent = b"x" * (LIMIT + 1)
        if known:
            await connection.send(request("POST", "/t/echo", length(2 * LIMIT), None))
        else:
            await connection.send(request("POST", "/t/echo", CHUNKED, None), b"%x\r\n" % len(sent) + sent + b"\r\n")
        answer = await connection.answer()
        assert answer.status == 413
        assert answer.header("connection") == "close"
        assert await connection.closed()
        await bench.settled("too_large")


@pytest.mark.parametrize("head", [length(10), CHUNKED])
def test_a_slow_body_is_given_up(head: Any) -> None:
    @on
    async def _(bench: Bench) -> None:
        connection = await bench.connect()
        await connection.send(request("POST", "/t/impatient", head, None), b"3\r\nabc\r\n")
        answer = await connection.answer()
        assert (answer.status, answer.header("connection")) == (408, "close")
        assert await connection.closed()
        await bench.settled("slow_body")


CUT = [
    (length(10), b"abc"),
    (length(10), b""),
    (CHUNKED, b"3\r\nabc\r\n"),
    (CHUNKED, b"3\r\nab"),
    (CHUNKED, b""),
]


@pytest.mark.parametrize("path", ["/t/echo", "/api/v1/datasets"])
@pytest.mark.parametrize("body", [b"3\r\nabc\r\nrubbish\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n", b"3\r\nabcd"])
def test_a_body_in_chunks_that_are_none_is_refused_at_once(path: str, body: bytes) -> None:
    @on
    async def _(bench: Bench) -> None:
        connection = await bench.connect()
        await connection.send(request("POST", path, CHUNKED, None) + body)
        assert (await connection.answer()).status == 400
        assert await connection.closed()
        assert not bench.control.whole
        await bench.settled("malformed_request")


@pytest.mark.parametrize("half", [True, False], ids=["half-closed", "closed"])
@pytest.mark.parametrize("path", ["/t/echo", "/api/v1/datasets"])
def test_a_body_that_is_cut_never_passes_for_a_whole_one(path: str, half: bool) -> None:
    @on
    async def _(bench: Bench) -> None:
        lines = bench.world.log.lines
        for number, (head, body) in enumerate(CUT):
            connection = await bench.connect()
            await connection.send(request("POST", path, head, None) + body)
            await until(lambda number=number: bench.world.activity.requests or len(lines) > number)
            if half:
                connection.writer.write_eof()
                answer = None
                with contextlib.suppress(Cut):
                    answer = await connection.answer()
                assert answer is None or answer.status in (400, 422)
            else:
                await connection.close()
            await until(lambda number=number: len(lines) > number)
            assert not bench.control.whole
        await until(lambda: not bench.world.activity.requests)
        assert len(bench.world.watcher.told) == len(CUT)
        assert set(bench.world.watcher.told) <= {"client_gone", "malformed_request"}


def test_paths_and_queries_are_decoded_once() -> None:
    @on
    async def _(bench: Bench) -> None:
        connection = await bench.connect()
        for target, path, query in (
            ("/t/echo?a=b&c", "/t/echo", "a=b&c"),
            ("/t/ech%6F?a=%20%C3%A4", "/t/echo", "a=%20%C3%A4"),
            ("/%74/echo", "/t/echo", ""),
        ):
            answer = await connection.ask("GET", target, AUTH)
            assert (answer.json["path"], answer.json["query"]) == (path, query)
        assert (await connection.ask("GET", "/t/ech%256F", AUTH)).status == 404
        assert (await connection.ask("GET", "/t/%FF%00%C3%A4", AUTH)).status == 404
        await bench.settled(*["ok"] * 3, *["not_found"] * 2)


def test_control_gets_the_path_that_was_asked_for() -> None:
    @on
    async def _(bench: Bench) -> None:
        connection = await bench.connect()
        for target, path, query in (
            ("/api/v1/models", "/api/v1/models", b""),
            ("/api/v1/a%20b/%C3%A4?q=%C3%A4&r", "/api/v1/a b/ä", b"q=%C3%A4&r"),
            ("/api/v1/%252F%3F%23", "/api/v1/%2F?#", b""),
        ):
            assert (await connection.ask("GET", target, AUTH)).status == 201
            scope = bench.control.scopes[-1]
            assert (scope["path"], scope["query_string"]) == (path, query)
        await bench.settled(*["ok"] * 3)


def test_a_query_of_odd_characters_hurts_nobody() -> None:
    @on
    async def _(bench: Bench) -> None:
        for path in (b"/api/v1/x?", b"/t/echo?"):
            for query in ("ä中".encode(), b"\xe4\xff", b"%", b"%zz"):
                connection = await bench.connect()
                head = b"GET %b%b HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n\r\n" % (path, query, KEY.encode())
                await connection.send(head)
                assert (await connection.answer()).status in (200, 201, 400)
        assert (await (await bench.connect()).ask("GET", "/t/echo", AUTH)).status == 200


def test_headers_come_one_by_one() -> None:
    @on
    async def _(bench: Bench) -> None:
        connection = await bench.connect()
        several: list[tuple[str, str | bytes]] = [*AUTH, ("x-a", "1"), ("X-A", "2, 3"), ("x-a", "")]
        assert (await connection.ask("GET", "/t/echo", several)).json["a"] == ["1", "2, 3", ""]
        await connection.ask("GET", "/api/v1/x", [*several, ("x-yunmo-principal", "forged"), ("accept", "a")])
        pairs = [pair for pair in bench.control.scopes[-1]["headers"] if pair[0] != b"host"]
        assert pairs == [(b"x-a", b"1"), (b"x-a", b"2, 3"), (b"x-a", b""), (b"accept", b"a")]
        await bench.settled("ok", "ok")


@pytest.mark.parametrize("odd", [b"\xe4", b"\xff\xfe", "ä中".encode(), b"a\tb", b"\x80"])
def test_header_values_of_odd_bytes_hurt_nobody(odd: bytes) -> None:
    @on
    async def _(bench: Bench) -> None:
        connection = await bench.connect()
        for path, status in (("/t/echo", 200), ("/api/v1/x", 201)):
            answer = await connection.ask("GET", path, [*AUTH, ("x-a", odd), ("content-type", odd)])
            assert answer.status == status
            assert (await connection.ask("GET", path, [("authorization", b"Bearer " + odd)])).status == 401
            assert (await connection.ask("GET", path, [("authorization", odd), ("x-a", odd)])).status == 401
        await bench.settled("ok", "ok", *["unauthenticated"] * 4)


def test_several_keys_are_none() -> None:
    @on
    async def _(bench: Bench) -> None:
        connection = await bench.connect()
        for second in (f"Bearer {KEY}", "Bearer x", ""):
            assert (await connection.ask("GET", "/t/echo", [*AUTH, ("Authorization", second)])).status == 401


def test_head_options_and_answers_without_content() -> None:
    @on
    async def _(bench: Bench) -> None:
        connection = await bench.connect()
        whole = await connection.ask("GET", "/t/echo", AUTH)
        head = await connection.ask("HEAD", "/t/echo", AUTH)
        assert head.status == 200
        assert head.header("content-length") == whole.header("content-length")
        empty = await connection.ask("GET", "/t/nothing", AUTH)
        assert (empty.status, empty.body) == (204, b"")
        assert empty.header("content-length") is None
        options = await connection.ask("OPTIONS", "/t/echo", AUTH)
        assert (options.status, options.header("allow")) == (204, "GET, HEAD, POST, OPTIONS")
        assert (await connection.ask("HEAD", "/t/no", AUTH)).status == 403
        for method in ("HEAD", "GET"):
            assert (await connection.ask(method, "/api/v1/x", AUTH)).all("content-length") == ["1"]
        for answer in (whole, head, empty, options):
            assert len(answer.all("x-request-id")) == 1
        await bench.settled(*["ok"] * 6, "forbidden")


def test_a_connection_goes_on_after_errors() -> None:
    @on
    async def _(bench: Bench) -> None:
        connection = await bench.connect()
        for _ in range(3):
            assert (await connection.ask("POST", "/t/no", AUTH, b"not read" * 100)).status == 403
            assert (await connection.ask("POST", "/t/none", AUTH, b"{}")).status == 404
            assert (await connection.ask("POST", "/t/echo", [], b"{}")).status == 401
            assert (await connection.ask("PUT", "/t/echo", AUTH, b"{}")).status == 405
            assert (await connection.ask("POST", "/t/echo", AUTH, b"abc")).json["body"] == "abc"


def test_pipelined_requests_are_answered_in_order() -> None:
    @on
    async def _(bench: Bench) -> None:
        connection = await bench.connect()
        bodies = [b"%d" % number * number for number in range(20)]
        paths = ["/api/v1/x" if number % 7 == 3 else "/t/echo" for number in range(20)]
        stream = b"".join(request("POST", path, AUTH, body) for path, body in zip(paths, bodies, strict=True))
        await connection.send(stream)
        for path, body in zip(paths, bodies, strict=True):
            answer = await connection.answer()
            assert answer.status == (200 if path == "/t/echo" else 201)
            if path == "/t/echo":
                assert answer.json["body"] == body.decode()
        await bench.settled(*["ok"] * 20)


def test_every_one_of_many_connections_gets_its_own_answers() -> None:
    @on
    async def _(bench: Bench) -> None:
        async def talk(number: int) -> None:
            connection = await bench.connect()
            for turn in range(20):
                marker = f"{number}:{turn}"
                assert (await connection.ask("POST", "/t/echo", AUTH, marker.encode())).json["body"] == marker

        await asyncio.gather(*(talk(number) for number in range(30)))
        await bench.settled(*["ok"] * 600)


@pytest.mark.parametrize("how", ["close", "abort", "half"])
def test_a_client_that_leaves_frees_its_place(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "WATCH_AFTER", 0.01)

    @on
    async def _(bench: Bench) -> None:
        stays = await bench.connect()
        await stays.send(request("POST", "/t/wait", AUTH, b"{}"))
        for number in range(3):
            leaves = await bench.connect()
            await leaves.send(request("POST", "/t/wait", AUTH, b"{}"))
            await until(lambda number=number: bench.hold.entered == number + 2)
            if how == "half":
                leaves.writer.write_eof()
            elif how == "abort":
                leaves.writer.transport.abort()
            else:
                await leaves.close()
            await until(lambda number=number: bench.hold.cancelled == number + 1)
        assert bench.world.activity.requests == 1
        bench.hold.go.set()
        assert (await stays.answer()).json == {"done": True}
        await bench.settled("ok", *["client_gone"] * 3)
        assert bench.meter.begun == len(bench.meter.ended) == 4


def test_a_client_that_leaves_at_once_is_noticed_too() -> None:
    """Before anybody looks for it."""

    @on
    async def _(bench: Bench) -> None:
        for _ in range(5):
            leaves = await bench.connect()
            await leaves.send(request("POST", "/t/wait", AUTH, b"{}"))
            await until(lambda: bench.world.activity.requests)
            await leaves.close()
            await until(lambda: not bench.world.activity.requests)
        assert bench.hold.cancelled == bench.hold.entered
        await bench.settled(*["client_gone"] * 5)


def test_a_large_upload_streams_and_is_slowed_down_by_who_takes_it() -> None:
    @on
    async def _(bench: Bench) -> None:
        size, taken = 24_000_000, asyncio.Event()
        plain = bench.control.__call__

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await taken.wait()
            await plain(scope, receive, send)

        bench.world.entry._otherwise = slow
        connection = await bench.connect()
        await connection.send(request("POST", "/api/v1/datasets", length(size), None))
        sent = 0

        async def upload() -> None:
            nonlocal sent
            while sent < size:
                await connection.send(b"x" * 100_000)
                sent += 100_000

        task = asyncio.ensure_future(upload())
        done, _ = await asyncio.wait((task,), timeout=0.5)
        assert not done, "nobody takes the body, and yet all of it was sent"
        taken.set()
        await task
        assert (await connection.answer()).body == b"%d" % size
        await bench.settled("ok")


def test_events_come_as_they_happen() -> None:
    @on
    async def _(bench: Bench) -> None:
        control = bench.control

        async def events(send: Any) -> None:
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for number in range(3):
                await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
                await control.step.acquire()
            await send({"type": "http.response.body", "body": b""})

        control.act = events
        connection = await bench.connect()
        await connection.send(request("GET", "/api/v1/runs/1/events", AUTH))
        status, headers = await connection.head()
        assert status == 200
        assert ("content-type", "text/event-stream") in headers
        for number in range(3):
            assert await connection.chunk() == b"data: %d\n\n" % number
            assert bench.world.activity.requests == 1
            control.step.release()
        assert await connection.chunk() == b""
        await bench.settled("ok")
        control.act = control.reply
        assert (await connection.ask("GET", "/api/v1/x", AUTH)).status == 201


def test_a_reader_of_events_that_leaves_ends_them() -> None:
    @on
    async def _(bench: Bench) -> None:
        control = bench.control

        async def events(send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"data\n\n", "more_body": True})
            while (await control.receive())["type"] != "http.disconnect":
                pass
            raise ClientGone

        control.act = events
        connection = await bench.connect()
        await connection.send(request("GET", "/api/v1/runs/1/events", AUTH))
        await connection.head()
        assert await connection.chunk() == b"data\n\n"
        await connection.close()
        await asyncio.wait_for(control.ended.wait(), 20)
        await bench.settled("client_gone")


@pytest.mark.parametrize("error", [ConnectionResetError("cut"), ValueError("defect")])
def test_half_an_answer_of_known_length_never_passes_for_a_whole_one(error: Exception) -> None:
    @on
    async def _(bench: Bench) -> None:
        async def breaks(send: Any) -> None:
            headers = [(b"content-length", b"100")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise error

        bench.control.act = breaks
        connection = await bench.connect()
        await connection.send(request("GET", "/api/v1/models/a/1/bundle", AUTH))
        with pytest.raises(Cut):
            await connection.answer()
        await bench.settled("ok" if isinstance(error, ConnectionError) else "internal")


def test_an_answer_before_the_end_of_the_body_gets_through() -> None:
    @on
    async def _(bench: Bench) -> None:
        async def early(_scope: Any, _receive: Any, send: Any) -> None:
            await bench.control.reply(send)

        bench.world.entry._otherwise = early
        connection = await bench.connect()
        await connection.send(request("POST", "/api/v1/datasets", length(10_000_000), None), b"x" * 1000)
        assert (await connection.answer()).status == 201
        await bench.settled("ok")


def test_control_that_fails_before_its_answer_is_an_error_of_ours() -> None:
    @on
    async def _(bench: Bench) -> None:
        async def fails(_send: Any) -> None:
            raise ValueError("/secret")

        bench.control.act = fails
        answer = await (await bench.connect()).ask("GET", "/api/v1/x", AUTH)
        assert answer.status == 500
        assert answer.header("content-type") == "application/problem+json"
        assert answer.json["instance"] == answer.header("x-request-id")
        assert b"secret" not in answer.body
        await bench.settled("internal")


ODD_ANSWERS: dict[str, tuple[int | None, list[bytes], str]] = {
    "/": (None, [b"abc"], "ends"),
    "/short": (10, [b"abc"], "ends"),
    "/long": (3, [b"abc", b"defghi"], "ends"),
    "/half": (None, [b"abc"], "raises"),
    "/forgets": (None, [b"abc"], "returns"),
    "/late": (3, [], "ends and raises"),
    "/empty": (0, [], "ends"),
}
"""What an application answers: the length that it says, the parts, and what it does then."""


class Strange:
    """An ASGI application that answers as `ODD_ANSWERS` say; ``/nothing``: not at all; ``/endless``: for ever."""

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        if scope["path"] == "/nothing":
            raise ZeroDivisionError
        length, parts, then = ODD_ANSWERS.get(scope["path"], (None, [], ""))
        headers = [] if length is None else [(b"content-length", b"%d" % length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        while scope["path"] == "/endless":
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
            self.sent += 100_000
        if "ends" in then:
            await send({"type": "http.response.body", "body": b"abc" if scope["path"] == "/late" else b""})
        if "raises" in then:
            raise ZeroDivisionError


def strange(work: Callable[[Served, Strange], Awaitable[None]]) -> None:
    """Run a test on a server as control's is."""

    async def main() -> None:
        app = Strange()
        async with serving(serve_asgi(app)) as served:
            await work(served, app)

    run(main)


@pytest.mark.parametrize("path", ["/short", "/half", "/nothing", "/forgets"])
def test_half_an_answer_of_an_application_is_cut(path: str) -> None:
    @strange
    async def _(served: Served, _app: Strange) -> None:
        for _ in range(3):
            connection = await served.connect()
            with pytest.raises(Cut):
                await connection.ask("GET", path)
        assert (await (await served.connect()).ask("GET", "/")).body == b"abc"


def test_what_is_more_than_was_promised_never_passes_for_another_answer() -> None:
    @strange
    async def _(served: Served, _app: Strange) -> None:
        connection = await served.connect()
        await connection.send(request("GET", "/long") + request("GET", "/"))
        answers = []
        with contextlib.suppress(Cut):
            while True:
                answers.append((await connection.answer()).body)
        assert answers in ([], [b"abc"])


def test_an_error_after_the_whole_answer_takes_nothing_from_it() -> None:
    @strange
    async def _(served: Served, _app: Strange) -> None:
        connection = await served.connect()
        for _ in range(3):
            assert (await connection.ask("GET", "/late")).body == b"abc"
        assert (await connection.ask("GET", "/")).body == b"abc"


def test_the_length_is_said_once() -> None:
    @strange
    async def _(served: Served, _app: Strange) -> None:
        connection = await served.connect()
        for method in ("GET", "HEAD"):
            for path, length in (("/empty", ["0"]), ("/late", ["3"])):
                answer = await connection.ask(method, path)
                assert answer.all("content-length") == length
                assert answer.header("transfer-encoding") is None


def test_an_answer_in_parts_to_an_old_client_is_not_chunked() -> None:
    """RFC 9112, 6.1: HTTP/1.0 knows no chunks; the end of the connection is the end of the answer."""

    @strange
    async def _(served: Served, _app: Strange) -> None:
        for more in ("", "connection: keep-alive\r\n"):
            connection = await served.connect()
            await connection.send(f"GET / HTTP/1.0\r\nhost: x\r\n{more}\r\n".encode())
            answer = await connection.answer()
            assert answer.header("transfer-encoding") is None
            assert answer.body == b"abc"


def test_a_slow_reader_slows_down_who_writes_and_one_that_leaves_ends_it() -> None:
    @strange
    async def _(served: Served, app: Strange) -> None:
        connection = await served.connect()
        await connection.send(request("GET", "/endless"))
        await connection.head()
        sent = -1
        while sent != app.sent:  # until nothing more is taken
            sent = app.sent
            await asyncio.sleep(0.1)
        assert sent < 20_000_000
        for _ in range(50):
            await connection.chunk()
        await until(lambda: app.sent > sent)
        await connection.close()
        before = await (await served.connect()).ask("GET", "/")
        assert before.body == b"abc"


END = b"0\r\n\r\n"


def malformed(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    "rubbish",
    [
        malformed(b"GET / HTTP/1.1"),
        malformed(b"GET / HTTP/1.1", b"host: a", b"host: b"),
        malformed(b"GET / HTTP/9.9", b"host: x"),
        malformed(b"GET /"),
        malformed(b"BREW / HTTP/1.1", b"host: x"),
        malformed(b"CONNECT x:1 HTTP/1.1", b"host: x"),
        malformed(b"GET / HTTP/1.1", b"host: x", b"x y: 1"),
        malformed(b"GET / HTTP/1.1", b"host: x", b"x : 1"),
        malformed(b"GET / HTTP/1.1", b"host: x", b" folded: 1"),
        malformed(b"GET / HTTP/1.1", b"host: x", b"x: a\x00b"),
        malformed(b"GET / HTTP/1.1", b"host: x", b"x: a\rb"),
        malformed(b"GET /\xc3\xa4 HTTP/1.1", b"host: x"),
        malformed(b"POST / HTTP/1.1", b"host: x", b"content-length: 5", b"content-length: 6", body=b"hello!"),
        malformed(b"POST / HTTP/1.1", b"host: x", b"content-length: +5", body=b"hello"),
        malformed(b"POST / HTTP/1.1", b"host: x", b"content-length: 5, 5", body=b"hello"),
        malformed(b"POST / HTTP/1.1", b"host: x", b"content-length: -1"),
        malformed(b"POST / HTTP/1.1", b"host: x", b"content-length: " + b"9" * 30),
        malformed(b"POST / HTTP/1.1", b"host: x", b"content-length: 5", b"transfer-encoding: chunked", body=END),
        malformed(b"POST / HTTP/1.1", b"host: x", b"transfer-encoding: chunked", b"content-length: 5", body=END),
        malformed(b"POST / HTTP/1.1", b"host: x", b"transfer-encoding: chunked, identity", body=b"0\r\n\r\n"),
        malformed(b"POST / HTTP/1.1", b"host: x", b"transfer-encoding: xchunked", body=b"0\r\n\r\n"),
        malformed(b"GET / HTTP/1.1", b"host: x", b"x: " + b"y" * 70_000),
        malformed(b"GET /" + b"y" * 70_000 + b" HTTP/1.1", b"host: x"),
        malformed(b"GET / HTTP/1.1", b"host: x", *[b"x: y"] * 200),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 100,
    ],
)
def test_what_is_no_request_is_refused_and_nothing_after_it_is_read(rubbish: bytes) -> None:
    asked = []

    async def main() -> None:
        async def note(scope: Any, _receive: Any, _send: Any) -> None:
            asked.append(scope["path"])

        async with serving(serve_asgi(note)) as served:
            connection = await served.connect()
            with contextlib.suppress(OSError):
                await connection.send(rubbish + request("GET", "/smuggled"))
            answer = None
            with contextlib.suppress(Cut):
                answer = await connection.answer()
            assert answer is None or 400 <= answer.status < 500

    run(main)
    assert "/smuggled" not in asked


def test_an_upgrade_is_not_taken_up() -> None:
    """RFC 9110, 7.8. It is how some clients ask for HTTP/2, with their request's body behind it."""

    @on
    async def _(bench: Bench) -> None:
        for protocol in ("websocket", "h2c"):
            for body in (b"", b"abc"):
                connection = await bench.connect()
                asks = [*AUTH, ("connection", "upgrade"), ("upgrade", protocol)]
                answer = await connection.ask("POST", "/t/echo", asks, body)
                assert (answer.status, answer.json["body"]) == (200, body.decode())
        await bench.settled(*["ok"] * 4)


@pytest.mark.parametrize("head", [length(6), CHUNKED])
def test_a_request_whose_body_is_still_coming_is_answered_when_the_server_stops(head: Any) -> None:
    parts = (b"abc", b"def") if head is not CHUNKED else (b"3\r\nabc\r\n", b"3\r\ndef\r\n0\r\n\r\n")

    @on
    async def _(bench: Bench) -> None:
        idle, busy, beginning = [await bench.connect() for _ in range(3)]
        assert (await idle.ask("GET", "/t/echo", AUTH)).status == 200
        await beginning.send(b"GET / HTTP/1.1\r\nhost:")
        await busy.send(request("POST", "/t/echo", head, None) + parts[0])
        await until(lambda: bench.world.activity.requests)
        bench.served.stop()
        assert await idle.closed()
        assert await beginning.closed()
        await busy.send(parts[1])
        answer = await busy.answer()
        assert (answer.json["body"], answer.header("connection")) == ("abcdef", "close")
        assert await busy.closed()
        await bench.settled("ok", "ok")
