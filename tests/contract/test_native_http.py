"""What foreign clients see: httpx, curl and bare sockets against a real data worker."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from tests.contract.harness import Workers
from tests.fixtures.bundles import png

ROW = {"age": 3, "city": "Berlin"}
TABLE = "/api/v1/endpoints/table/predict"
PICTURES = "/api/v1/endpoints/pictures/predict"


@pytest.fixture(scope="module")
def client(workers: Workers) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=workers.url, headers=workers.headers, timeout=20) as client:
        yield client


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def is_problem(reply: httpx.Response, status: int) -> None:
    """Hold an answer against RFC 9457, and against telling of our insides."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    document = reply.json()
    assert document["status"] == status
    assert document["type"].startswith("urn:yunmo:error:")
    assert document["title"]
    assert document["detail"]
    assert document["instance"] == reply.headers["x-request-id"]
    for inside in ("Traceback", "site-packages", "/tmp", "yunmo.", "0x"):  # noqa: S108 (a word that must not occur)
        assert inside not in reply.text


@pytest.mark.parametrize("path", ["/", TABLE, "/api/v1/endpoints/none/predict", "/api/v1/keys", "/x/../y", "/docs"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"])
def test_no_key_is_401_on_any_path_and_method(workers: Workers, path: str, method: str) -> None:
    reply = httpx.request(method, workers.url + path)
    is_problem(reply, 401)
    assert "Bearer" in reply.headers["www-authenticate"]


def test_a_method_that_is_none_is_no_request(workers: Workers) -> None:
    for path in (TABLE, "/nothing"):
        reply = httpx.request("BREW", workers.url + path)
        assert reply.status_code == 400
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.headers["connection"] == "close"


@pytest.mark.parametrize("key", ["nonsense", "ym_abcdefgh_" + "A" * 43, "ym_"])
def test_a_bad_key_is_401_on_known_and_unknown_paths_alike(workers: Workers, key: str) -> None:
    answers = set()
    for path in (TABLE, "/nothing"):
        reply = httpx.post(workers.url + path, headers={"authorization": f"Bearer {key}"}, json=ROW)
        is_problem(reply, 401)
        answers.add(json.dumps({k: v for k, v in reply.json().items() if k != "instance"}))
    assert len(answers) == 1


def test_health_is_open(workers: Workers) -> None:
    assert httpx.get(workers.url + "/healthz").json() == {"status": "ok"}
    assert httpx.get(workers.url + "/readyz").json()["status"] == "ready"


def test_management_is_unavailable_without_control_but_predictions_go_on(client: httpx.Client) -> None:
    reply = client.get("/api/v1/models")
    is_problem(reply, 503)
    assert reply.headers["retry-after"]
    assert client.post(TABLE, json=ROW).status_code == 200


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        (TABLE, {"content-type": "application/json"}, b"", 422),
        (TABLE, {"content-type": "application/json"}, b"\x00\xff" * 50, 422),
        (TABLE, {"content-type": "application/json"}, b'{"age": NaN, "city": "x"}', 422),
        (TABLE, {"content-type": "application/json"}, b'{"age": 1, "age": 2, "city": "x"}', 422),
        (TABLE, {"content-type": "application/json"}, b"[" * 150_000, 422),
        (TABLE, {"content-type": "application/json"}, b'{"age": "many", "city": "x"}', 422),
        (TABLE, {"content-type": "application/json"}, b'{"age": 1e999, "city": "x"}', 422),
        (TABLE, {"content-type": "application/json", "content-encoding": "gzip"}, b"\x1f\x8b", 415),
        (TABLE, {"content-type": "text/csv"}, b"age,city\n3,x\n", 415),
        (TABLE, {"content-type": "image/png"}, b"x", 415),
        (TABLE, {}, b"{}", 415),
        (TABLE, {"content-type": "multipart/form-data; boundary=B"}, b"rubbish", 422),
        (TABLE, {"content-type": "application/json"}, b" " * 200_001, 413),
        (PICTURES, {"content-type": "image/jpeg"}, jpeg()[:400], 422),
        (PICTURES, {"content-type": "image/jpeg"}, b"no picture", 422),
        (PICTURES, {"content-type": "application/json"}, b'{"image": "%%%"}', 422),
        ("/api/v1/endpoints/none/predict", {"content-type": "application/json"}, b"{}", 404),
    ],
)
def test_bad_input_is_a_problem(
    client: httpx.Client, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    is_problem(client.post(path, headers=headers, content=body), status)
    assert client.get("/healthz").status_code == 200


def test_a_picture_that_is_tiny_as_a_file_and_huge_as_pixels_is_refused(client: httpx.Client) -> None:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    reply = client.post(PICTURES, headers={"content-type": "image/png"}, content=buffer.getvalue())
    assert reply.status_code in (413, 422)
    is_problem(reply, reply.status_code)


def test_an_endless_body_is_cut_at_the_limit(client: httpx.Client) -> None:
    end = time.monotonic() + 60

    def endless() -> Iterator[bytes]:
        while time.monotonic() < end:
            yield b" " * 10_000

    try:
        reply = client.post(TABLE, headers={"content-type": "application/json"}, content=endless())
    except httpx.TransportError:
        pass  # the answer was sent and the connection closed while the client was still sending
    else:
        is_problem(reply, 413)
    assert time.monotonic() < end
    assert client.post(TABLE, json=ROW).status_code == 200


def test_methods(client: httpx.Client) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD"):
        reply = client.request(method, TABLE)
        assert reply.status_code == 405
        assert reply.headers["allow"] == "POST, OPTIONS"
    assert client.options(TABLE).status_code == 204
    head = client.head("/api/v1/endpoints/table/schema")
    assert head.status_code == 200
    assert head.content == b""


def test_curl_sends_a_picture_a_form_and_json(workers: Workers, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    assert curl, "curl is a client that must work"
    (tmp_path / "a.png").write_bytes(png(120))
    picture = json.dumps({"image": base64.b64encode(png(120)).decode()})
    answers = []
    for arguments in (
        ["-H", "content-type: image/png", "--data-binary", f"@{tmp_path}/a.png"],
        ["-F", f"image=@{tmp_path}/a.png"],
        ["-H", "content-type: application/json", "-d", picture],
    ):
        command = [curl, "-sS", "--fail-with-body", "-H", f"authorization: Bearer {workers.key}", *arguments]
        done = subprocess.run([*command, workers.url + PICTURES], capture_output=True, check=True, timeout=20)
        answers.append(json.loads(done.stdout)["predictions"])
    assert answers[0] == answers[1] == answers[2]


def test_keys_have_the_rights_that_they_were_given(workers: Workers) -> None:
    only = workers.add_key("predict", endpoints=("table",))
    reader = workers.add_key("read")
    workers.apply()

    def ask(key: str, path: str) -> int:
        return httpx.post(workers.url + path, headers={"authorization": f"Bearer {key}"}, json=ROW).status_code

    assert ask(only, TABLE) == 200
    assert ask(only, PICTURES) == 404
    assert ask(reader, TABLE) == 403
    workers.keys = [each for each in workers.keys if each.scopes != ("read",) and each.endpoints is None]
    workers.apply()
    assert ask(only, TABLE) == 401
    assert ask(reader, TABLE) == 401


def talk(workers: Workers, *pieces: bytes, close_writing: bool = False) -> bytes:
    """Send bytes on a bare connection and return all that comes back until the server closes it or is silent."""
    with workers.connect(timeout=5) as connection:
        with contextlib.suppress(OSError):  # the server may refuse and close before all is sent
            for piece in pieces:
                connection.sendall(piece)
            if close_writing:
                connection.shutdown(socket.SHUT_WR)
        received = b""
        while True:
            try:
                data = connection.recv(65536)
            except (TimeoutError, ConnectionResetError):
                return received
            if not data:
                return received
            received += data


def request(workers: Workers, body: bytes, *more: str, length: int | None = None) -> bytes:
    lines = [
        f"POST {TABLE} HTTP/1.1",
        "host: x",
        f"authorization: Bearer {workers.key}",
        "content-type: application/json",
        f"content-length: {len(body) if length is None else length}",
        *more,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_pipelined_requests_are_answered_in_order(workers: Workers) -> None:
    bodies = [json.dumps({"age": age, "city": "Berlin"}).encode() for age in (1, 20, 90)]
    pieces = [request(workers, body) for body in bodies[:2]] + [request(workers, bodies[2], "connection: close")]
    found = talk(workers, b"".join(pieces))
    prices = [json.loads(part.rpartition(b"\r\n\r\n")[2])["predictions"][0]["price"]["value"] for part in split(found)]
    expected = httpx.post(workers.url + TABLE, headers=workers.headers, json=[json.loads(body) for body in bodies])
    assert prices == pytest.approx([row["price"]["value"] for row in expected.json()["predictions"]], rel=1e-4)


def split(stream: bytes) -> list[bytes]:
    return [b"HTTP/1.1" + part for part in stream.split(b"HTTP/1.1")[1:]]


def test_a_half_closed_connection_still_gets_its_answer_or_none_but_blocks_nothing(workers: Workers) -> None:
    answer = talk(workers, request(workers, json.dumps(ROW).encode()), close_writing=True)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 200")
    assert talk(workers, request(workers, b"{", length=100), close_writing=True)[:12] in (b"", b"HTTP/1.1 422")
    assert httpx.get(workers.url + "/healthz").status_code == 200


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x00" * 100 + b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_rubbish_is_refused_and_the_service_lives(workers: Workers, rubbish: bytes) -> None:
    answer = talk(workers, rubbish, close_writing=True)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert httpx.get(workers.url + "/healthz").status_code == 200


def test_hundreds_of_idle_connections_keep_nobody_out(workers: Workers) -> None:
    idle: list[Any] = []
    try:
        for _ in range(400):
            connection = workers.connect()
            connection.sendall(b"POST / HTTP/1.1\r\nhost:")
            idle.append(connection)
        began = time.monotonic()
        assert httpx.post(workers.url + TABLE, headers=workers.headers, json=ROW).status_code == 200
        assert time.monotonic() - began < 5
    finally:
        for connection in idle:
            connection.close()


def test_clients_that_leave_in_the_middle_hurt_nobody(workers: Workers) -> None:
    for cut in (10, 60, 200):
        with workers.connect() as connection:
            connection.sendall(request(workers, json.dumps(ROW).encode() * 3, length=500)[:cut])
    for _ in range(20):
        with workers.connect() as connection:
            connection.sendall(request(workers, json.dumps(ROW).encode()))
    assert httpx.post(workers.url + TABLE, headers=workers.headers, json=ROW).status_code == 200


def test_the_log_has_every_request_and_no_secret(workers: Workers) -> None:
    reply = httpx.post(f"{workers.url}{TABLE}?key={workers.key}", headers=workers.headers, json=ROW)
    workers.wait(lambda: reply.headers["x-request-id"] in workers.log)
    line = next(each for each in workers.log.splitlines() if reply.headers["x-request-id"] in each)
    facts = json.loads(line)
    assert facts["endpoint"] == "table"
    assert facts["key_id"] == "key_0"
    assert facts["status"] == 200
    assert facts["ms"] > 0
    assert workers.key not in workers.log
    assert workers.key[12:] not in workers.log
