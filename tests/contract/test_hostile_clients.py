"""Clients that mean harm, on bare sockets against real data workers: each is answered or cut, and nobody else notices.

Where a server has to give up on somebody, its times are those of `impatient_worker`; what a test waits for is the
server's act, never a time.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from tests.contract.harness import Workers
from tests.contract.raw import BODY, PREFACE, Answer, answers, frame, headers, request, talk
from tests.contract.watch import INSIDE, MEBIBYTE, PREDICT, Watch

from yunmo.app.process import allow_many_connections
from yunmo.core.settings import Settings
from yunmo.protocol import oip_pb2 as pb

CLOSE = "connection: close"
CHUNKED = "transfer-encoding: chunked"
TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(190)
SMUGGLED = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


class Impatient(Workers):
    """Workers that give slow clients a second."""

    module = "tests.contract.impatient_worker"


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    home = tmp_path_factory.mktemp("home")
    with Impatient(home, settings=Settings(max_body=200_000, request_log="off")) as workers:
        workers.deploy("table", workers.bundle("table"))
        workers.apply()
        yield workers


@pytest.fixture
def watch(impatient: Workers) -> Iterator[Watch]:
    """The worker must come through, and be no larger."""
    watch = Watch(impatient)
    yield watch
    watch.settled()


def clean(data: bytes) -> list[Answer]:
    """Take answers apart, and hold them against telling of our insides."""
    for inside in INSIDE:
        assert inside.encode() not in data
    return answers(data)


def one(data: bytes, status: int, *words: str) -> None:
    """Hold what came against being exactly one answer."""
    (answer,) = clean(data)
    assert answer.status == status, answer
    for word in words:
        assert word.encode() in answer.body, answer


def chunks(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


# Slow clients.


def dribble(workers: Workers, begin: bytes, drop: bytes) -> bytes:
    """Send a beginning and then byte after byte, until the server has had enough; return what it said."""
    got = bytearray()
    with workers.connect(0.05) as connection:
        connection.sendall(begin)
        for _ in range(2000):  # 100 seconds
            try:
                connection.sendall(drop)
                piece = connection.recv(65536)
            except TimeoutError:
                continue
            except ConnectionError:
                return bytes(got)
            if not piece:
                return bytes(got)
            got += piece
    raise AssertionError("the server let it go on")


@pytest.mark.parametrize(
    ("begin", "drop"),
    [
        (b"", b"G"),
        (b"POST / HTTP/1.1\r\nhost: x\r\nx: ", b"y"),
        (b"POST / HTTP/1.1\r\nhost: x", b"\r\nx: y"),
        (SMUGGLED + b"GET / HT", b"T"),
    ],
)
def test_a_head_that_dribbles_is_cut(impatient: Workers, watch: Watch, begin: bytes, drop: bytes) -> None:
    found = clean(dribble(impatient, begin, drop))
    assert found[-1].status in (400, 408)
    assert len(found) == 1 + begin.startswith(SMUGGLED)
    watch.good()


@pytest.mark.parametrize("target", [PREDICT, "/v2/models/table/infer"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_dribbles_is_cut(impatient: Workers, watch: Watch, target: str, chunked: bool) -> None:
    begin = request(impatient, CHUNKED if chunked else "content-length: 100000", body=b"", target=target, length=False)
    one(dribble(impatient, begin, b"1\r\n \r\n" if chunked else b" "), 408, "not complete within")
    watch.good()


def test_many_slow_clients_at_once_hinder_nobody(impatient: Workers, watch: Watch) -> None:
    allow_many_connections()
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(impatient.connect(60)) for _ in range(400)]
        for number, connection in enumerate(crowd):
            connection.sendall(request(impatient)[: -5 if number % 2 else 40])
        for _ in range(20):
            watch.good()
        for connection in crowd:
            one(_rest(connection), 408)


def _rest(connection: socket.socket) -> bytes:
    got = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            got += piece
    return got


def test_who_says_nothing_is_sent_away(impatient: Workers, watch: Watch) -> None:
    for begin in (b"", SMUGGLED):
        with impatient.connect(60) as connection:
            connection.sendall(begin)
            assert [answer.status for answer in clean(_rest(connection))] == [200] * bool(begin)
    watch.good()


# Many clients.


def test_two_thousand_idle_connections_hinder_nobody(attacked: Workers) -> None:
    allow_many_connections()
    watch = Watch(attacked)
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(attacked.connect(60)) for _ in range(2000)]
        for connection in crowd[::2]:
            connection.sendall(SMUGGLED)
        for _ in range(50):
            watch.good()
        assert all(connection.recv(65536).startswith(b"HTTP/1.1 200 ") for connection in crowd[::2])
        assert watch.memory
    watch.settled(memory=64 * MEBIBYTE)


def test_aborted_uploads_leave_nothing(impatient: Workers, watch: Watch) -> None:
    whole = request(impatient, body=b" " * 150_000)
    for number in range(600):
        connection = impatient.connect(60)
        connection.sendall(whole[: 30 + number * 200])
        # A reset instead of an end.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    watch.good()


# Pipelining and half-closed connections.


def test_pipelined_requests_are_answered_in_their_order(impatient: Workers, watch: Watch) -> None:
    several, expected = b"", []
    for number in range(300):
        match number % 4:
            case 0:
                several += SMUGGLED
                expected.append((200, '"ok"'))
            case 1:
                several += request(impatient, body=b"{")
                expected.append((422, "JSON"))
            case 2:
                several += request(impatient, CHUNKED, body=chunks(BODY), length=False)
                expected.append((200, "predictions"))
            case _:
                several += request(impatient, target=f"/v2/models/no{number}/infer")
                expected.append((404, f"'no{number}'"))
    found = clean(talk(impatient, several + request(impatient, CLOSE)))
    assert len(found) == 301
    for answer, (status, word) in zip(found, expected, strict=False):
        assert answer.status == status
        assert word.encode() in answer.body
    assert watch.memory


def test_a_half_closed_connection_is_answered(impatient: Workers, watch: Watch) -> None:
    for _ in range(20):
        # A client that has closed its side may be taken for gone, where the answer takes long; then it is told so.
        found = clean(talk(impatient, request(impatient), half=True))
        assert [answer.status for answer in found] in ([200], [422])
    watch.good()


@pytest.mark.parametrize("cut", [1, 20, len(BODY)])
def test_half_a_body_is_no_request(impatient: Workers, watch: Watch, cut: int) -> None:
    one(talk(impatient, request(impatient)[:-cut], half=True), 422)
    one(talk(impatient, request(impatient, CHUNKED, body=chunks(BODY)[:-cut], length=False), half=True), 422)
    watch.good()


def test_half_a_head_is_nothing(impatient: Workers, watch: Watch) -> None:
    for begin in (b"P", b"POST / HTTP/1.1\r\n", request(impatient)[:60]):
        assert all(answer.status in (400, 408) for answer in clean(talk(impatient, begin, half=True)))
    watch.good()


# Clients that send or take without end.


def flood(workers: Workers, begin: bytes, more: bytes, *, timeout: float = 100) -> bytes:
    """Send more and more until the server cuts it; return what was answered."""
    end = time.monotonic() + timeout
    got = bytearray()
    with workers.connect(60) as connection:

        def listen() -> None:
            with contextlib.suppress(OSError):
                while piece := connection.recv(65536):
                    got.extend(piece)

        listening = threading.Thread(target=listen)
        listening.start()
        try:
            connection.sendall(begin)
            while time.monotonic() < end:
                connection.sendall(more)
            raise AssertionError("the server let it go on")
        except OSError:
            pass
        listening.join(60)
    return bytes(got)


@pytest.mark.parametrize(
    ("lines", "more", "status"),
    [
        ([CHUNKED], b"10000\r\n" + b" " * 65536 + b"\r\n", {413}),
        ([CHUNKED], b"1\r\n \r\n" * 10_000, {413, 408}),  # over the limit, or over the impatient worker's second
        ([CHUNKED, "x: y"], b"1;" + b"x" * 65536, {400}),
        (["content-length: 9223372036854775807"], b" " * 65536, {413}),
        (["x: y"] * 100, b"x" * 65536, {400}),
    ],
)
def test_who_sends_forever_is_cut(
    impatient: Workers, watch: Watch, lines: list[str], more: bytes, status: set[int]
) -> None:
    begin = request(impatient, *lines, body=b"", length=False)
    if not any("length" in line or line == CHUNKED for line in lines):
        begin = begin[:-2] + b"x: "  # the head goes on
    got = flood(impatient, begin, more)
    if got:  # a reset may have thrown it away
        (answer,) = clean(got)
        assert answer.status in status
    watch.good()


def test_who_takes_no_answers_is_read_no_further(impatient: Workers, watch: Watch) -> None:
    """A client that only sends requests comes to a stop, and in the end is cut."""
    schema = f"GET /api/v1/endpoints/table/schema HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {impatient.key}\r\n\r\n"
    several = schema.encode() * 500
    before = watch.memory
    stuck = []
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(impatient.connect(5))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sent = 0
            with contextlib.suppress(TimeoutError, ConnectionError):
                while sent < 400 * MEBIBYTE:
                    connection.sendall(several)
                    sent += len(several)
            assert sent < 400 * MEBIBYTE, "it was read on and on"
            stuck.append(connection)
            watch.good()
        assert watch.memory < before + 48 * MEBIBYTE
        watch.settled(descriptors=8)  # all of them cut, though none has been closed here


# What is no HTTP, or two things at once.


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)) * 20,
        b"\0" * 10_000,
        b"\r\n" * 50_000 + b"\0",
        TLS_HELLO,
        PREFACE + frame(4, 0, 0),
        b"GET / HTTP/3.0\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1 \r\nhost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET  HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"BREW \r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx y: z\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nnothing\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(5000)) + b"\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 2_000_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"y" * 2_000_000 + b": z\r\n\r\n",
        b"GET /" + b"a" * 2_000_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"A" * 2_000_000,
    ],
)
def test_what_is_no_request_is_refused(impatient: Workers, watch: Watch, data: bytes) -> None:
    got = talk(impatient, data + SMUGGLED)
    if got:  # a reset may have thrown it away
        (answer,) = clean(got)
        assert answer.status in (400, 408, 414, 431), answer
        assert json.loads(answer.body)["status"] == answer.status
    watch.good()


LENGTH = f"content-length: {len(BODY)}"


@pytest.mark.parametrize(
    "lines",
    [
        [LENGTH, CHUNKED],
        [CHUNKED, LENGTH],
        ["content-length: 5", CHUNKED],
        [LENGTH, "content-length: 5"],
        ["content-length: 28, 5"],
        ["content-length: -1"],
        ["content-length: +28"],
        ["content-length: 0x1c"],
        ["content-length: 28 5"],
        ["content-length:"],
        ["content-length: 99999999999999999999999999"],
        ["transfer-encoding: xchunked"],
        ["transfer-encoding: chunked, identity"],
        ["transfer-encoding: identity"],
        ["transfer-encoding : chunked"],
        ["transfer-encoding: \x0bchunked"],
        [CHUNKED, "transfer-encoding: identity"],
        [LENGTH, "transfer-encoding: xchunked"],
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_no_request_is_smuggled(impatient: Workers, watch: Watch, lines: list[str], chunked: bool) -> None:
    """Of a request whose length can be read in two ways, only one answer comes, and the connection ends with it."""
    body = chunks(BODY) if chunked else BODY
    got = talk(impatient, request(impatient, *lines, body=body, length=False) + SMUGGLED * 2, half=False)
    (answer,) = clean(got)
    assert answer.status in (400, 422, 501), answer
    watch.good()


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\nabc",
        b"-1\r\nabc\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        b"5\r\nabc\r\n0\r\n\r\n",
        b"1c" + BODY + b"0\r\n\r\n",
        b" 1c\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"\r\n",
    ],
)
def test_chunks_that_are_none(impatient: Workers, watch: Watch, body: bytes) -> None:
    one(talk(impatient, request(impatient, CHUNKED, body=body, length=False) + SMUGGLED), 400)
    watch.good()


@pytest.mark.parametrize(
    "line",
    [
        "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: eHg=",
        "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA",
        "expect: 100-continue",
        "expect: 200-perhaps",
        "x: " + "y" * 30_000,
        "range: bytes=0-5",
        "te: trailers",
    ],
)
def test_odd_headers_change_nothing(impatient: Workers, watch: Watch, line: str) -> None:
    for body, lines in ((BODY, [line]), (chunks(BODY), [line, CHUNKED])):
        several = request(impatient, *lines, body=body, length=CHUNKED not in lines) + request(impatient, CLOSE)
        found = [answer for answer in clean(talk(impatient, several)) if answer.status >= 200]
        assert [answer.status for answer in found] == [200, 200]
    watch.good()


@pytest.mark.parametrize(
    ("target", "statuses"),
    [
        ("http://evil.example" + PREDICT, (200,)),
        ("http://a:b@evil.example:99999" + PREDICT, (200,)),
        (PREDICT + "?x=" + "y" * 20_000, (200,)),
        (PREDICT + "#fragment", (200, 400, 404, 503)),
        ("//evil.example" + PREDICT, (404, 503)),
        ("/api/v1/../../etc/passwd", (404, 503)),
        ("/api/v1/endpoints/%2e%2e%2f%00/predict", (404, 503)),
        ("/api/v1/endpoints/%ff%fe/predict", (404, 503)),
        ("/%0d%0ax-evil:%201", (404, 503)),
        ("*", (404, 503, 405)),
        ("/" + "a/" * 20_000, (404, 503)),
        ("/v2/models/%/infer", (404,)),
    ],
)
def test_odd_targets(impatient: Workers, watch: Watch, target: str, statuses: tuple[int, ...]) -> None:
    (answer,) = clean(talk(impatient, request(impatient, CLOSE, target=target)))
    assert answer.status in statuses
    assert b"x-evil" not in answer.head
    without = talk(impatient, f"GET {target} HTTP/1.1\r\nhost: x\r\n{CLOSE}\r\n\r\n".encode())
    assert clean(without)[0].status in (401, 400)
    watch.good()


# The gRPC port.

SETTINGS = frame(4, 0, 0)


@pytest.fixture(scope="module")
def open_call(impatient: Workers) -> bytes:
    """Headers of a call with a valid key."""
    return headers(
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/inference.GRPCInferenceService/ServerLive"),
        (":authority", "x"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("authorization", f"Bearer {impatient.key}"),
    )


def call(workers: Workers) -> None:
    """Have a good call answered."""
    with grpc.insecure_channel(f"{workers.grpc.address}:{workers.grpc.port}") as channel:
        live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        key = (("authorization", f"Bearer {workers.key}"),)
        answer = live(b"", metadata=key, timeout=60, wait_for_ready=True)
    assert pb.ServerLiveResponse.FromString(answer).live


def at_grpc(workers: Workers) -> socket.socket:
    return socket.create_connection((workers.grpc.address, workers.grpc.port), timeout=60)


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (bytes(range(256)) * 20, b""),
        (TLS_HELLO, b""),
        (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b""),
        (PREFACE[:10], b"x"),
        (PREFACE + SETTINGS + frame(0, 0, 1, b"", length=2**24 - 1), b"x" * 65536),
        (PREFACE + SETTINGS + frame(1, 4, 1, b"\xff" * 100), b""),
        (PREFACE + SETTINGS + frame(1, 4, 2, b""), b""),
        (PREFACE + SETTINGS + frame(8, 0, 0, struct.pack(">I", 2**31 - 1)) * 2, b""),
        (PREFACE + SETTINGS + frame(1, 0, 1, b""), frame(9, 0, 1, b"\0\1x" + bytes([100]) + b"y" * 100) * 100),
        (PREFACE + SETTINGS, frame(6, 0, 0, bytes(8)) * 500),
        (PREFACE + SETTINGS, frame(4, 0, 0, struct.pack(">HI", 3, 100)) * 500),
    ],
)
def test_what_is_no_grpc_is_cut(impatient: Workers, watch: Watch, begin: bytes, more: bytes) -> None:
    """Garbage, frames that lie, floods of headers, pings and settings: the connection ends, or is read no further."""
    with at_grpc(impatient) as connection:
        connection.settimeout(3)
        with contextlib.suppress(TimeoutError, ConnectionError):
            connection.sendall(begin)
            for _ in range(2000 if more else 0):
                connection.sendall(more)
        call(impatient)
    watch.good()


def test_a_thousand_idle_connections_to_the_grpc_port(impatient: Workers, watch: Watch) -> None:
    allow_many_connections()
    with contextlib.ExitStack() as stack:
        for number in range(1000):
            connection = stack.enter_context(at_grpc(impatient))
            connection.sendall((PREFACE + SETTINGS)[: 0 if number % 2 else None])
        for _ in range(5):
            call(impatient)
    watch.settled(memory=96 * MEBIBYTE)


@pytest.mark.parametrize("close", [b"", frame(3, 0, 0x7FFFFFFF, struct.pack(">I", 8))])
def test_calls_that_are_reset_at_once(impatient: Workers, watch: Watch, open_call: bytes, close: bytes) -> None:
    """CVE-2023-44487: calls begun and reset, over and over, as fast as the connection takes them."""
    for _ in range(3):
        with at_grpc(impatient) as connection:
            connection.settimeout(3)
            with contextlib.suppress(TimeoutError, ConnectionError):
                connection.sendall(PREFACE + SETTINGS)
                for begin in range(1, 6000, 200):
                    several = b"".join(
                        frame(1, 4, stream, open_call) + frame(3, 0, stream, struct.pack(">I", 8))
                        for stream in range(begin, begin + 200, 2)
                    )
                    connection.sendall(several + close)
        call(impatient)
    watch.settled(memory=96 * MEBIBYTE)


def test_calls_that_never_end_are_no_more_than_allowed(impatient: Workers, watch: Watch, open_call: bytes) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(at_grpc(impatient))
            connection.settimeout(3)
            with contextlib.suppress(TimeoutError, ConnectionError):
                connection.sendall(PREFACE + SETTINGS)
                connection.sendall(b"".join(frame(1, 4, stream, open_call) for stream in range(1, 400, 2)))
        for _ in range(3):
            call(impatient)
    watch.settled(memory=96 * MEBIBYTE)
