"""The load generator counts what happened: right and wrong answers, refusals, errors, broken connections, silence."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from benchmarks.serving import grpc_body, load
from benchmarks.serving.load import Phase, Variant

from yunmo.protocol import oip_pb2

pytestmark = pytest.mark.skipif(shutil.which("cc") is None and shutil.which("gcc") is None, reason="no C compiler")

Answer = Callable[[int, int], bytes | None]


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[int]:
    """Answer request number n of variant v with ``answer(n, v)``; None: hang up. Yields the port."""
    count = iter(range(1, 1 << 30))

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while head := connection.recv(65536):
                said = answer(next(count), int(head.split(b"/")[1].split()[0]))
                if said is None:
                    return
                connection.sendall(said)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def reply(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    variants = [Variant(load.request("GET", f"/{number}", {}), [number, -0.5], b'"data":', 1e-6) for number in range(4)]
    return load.write_requests(variants, tmp_path / "requests")


def right(variant: int) -> bytes:
    return reply(b'{"data": {"key 7": %d.0, "other": -5e-1}}' % variant)


def run(answer: Answer, requests: Path, seconds: float = 0.4, rate: float = 0, **how: bool) -> load.Load:
    with serving(answer) as port:
        return load.run(port, requests, [Phase(rate, seconds)], connections=4, **how)


def test_right_answers_count_once_and_have_latencies(requests: Path) -> None:
    found = run(lambda _, variant: right(variant), requests)
    phase = found.phases[0]
    assert phase.ok > 50
    assert phase.bad == phase.refused == found.after.bad == 0
    assert phase.sent == phase.ok + found.after.ok
    assert 0 < phase.latency_ms["p50"] <= phase.latency_ms["p99"] <= phase.latency_ms["max"]
    # Those that came in the last moment lie beyond the last whole tenth of a second.
    assert 0 <= phase.ok - sum(ok for ok, *_ in found.timeline) <= 4


def test_an_answer_to_another_body_is_wrong(requests: Path) -> None:
    found = run(lambda number, variant: right((variant + 1) % 4 if number == 20 else variant), requests)
    assert found.phases[0].wrong == 1
    assert "200 OK" in found.sample


def test_refusals_errors_and_hang_ups_are_told_apart(requests: Path) -> None:
    special = {
        10: reply(b"", "503 Service Unavailable", "retry-after: 1\r\n"),
        20: reply(b"", "429 Too Many Requests"),
        30: reply(b"", "500 Internal Server Error"),
        40: None,
    }
    found = run(lambda number, variant: special.get(number, right(variant)), requests)
    phase = found.phases[0]
    assert (phase.refused, phase.retry_after, phase.failed, phase.broken) == (2, 1, 1, 1)
    assert phase.status.items() >= {"503": 1, "429": 1, "500": 1}.items()
    assert phase.wrong == 0
    assert phase.ok > 30


def test_chunked_bodies_and_bodies_of_floats_are_read(tmp_path: Path) -> None:
    numbers = [0.25, -3.0]
    data = struct.pack("<2f", *numbers)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhead\r\n3\r\n" + data[:3] + b"\r\n5\r\n"
    chunked += data[3:] + b"\r\n0\r\n\r\n"
    requests = load.write_requests([Variant(load.request("GET", "/0", {}), numbers, None)], tmp_path / "requests")
    found = run(lambda *_: chunked, requests)
    assert found.phases[0].ok > 20
    assert found.phases[0].bad == 0
    damaged = chunked.replace(data[3:], data[3:7] + b"\x41")
    assert run(lambda *_: damaged, requests).phases[0].wrong > 20


def test_an_open_loop_sends_as_many_as_are_due(requests: Path) -> None:
    found = run(lambda _, variant: right(variant), requests, seconds=1.0, rate=200)
    phase = found.phases[0]
    assert 120 < phase.due < 280
    assert phase.sent + phase.unsent <= phase.due
    assert phase.ok + found.after.ok == phase.sent + found.after.sent


def test_a_fresh_connection_each_time(requests: Path) -> None:
    found = run(lambda _, variant: right(variant), requests, fresh=True)
    assert found.phases[0].ok > 10
    assert found.phases[0].bad == 0


def test_silence_is_no_answer(requests: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        phases = [Phase(0, 0.2)]
        started = load.start(listener.getsockname()[1], requests, phases, connections=2, timeout=0.5)
        found = load.finish(started, phases, timeout=0.5)
    assert found.phases[0].unanswered + found.after.unanswered == 2


def test_the_hand_written_protocol_buffers_are_those_of_the_library() -> None:
    rows = np.arange(16, dtype=np.float32).reshape(2, 8)
    request = oip_pb2.ModelInferRequest()
    request.ParseFromString(grpc_body.infer_request("echo", "marker", rows, "an id"))
    assert (request.model_name, request.id) == ("echo", "an id")
    assert (request.inputs[0].name, list(request.inputs[0].shape)) == ("marker", [2, 8])
    assert request.raw_input_contents[0] == rows.tobytes()
    answer = oip_pb2.ModelInferResponse(id="an id", raw_output_contents=[rows.tobytes()])
    found, (values,) = grpc_body.read_response(answer.SerializeToString())
    assert found == "an id"
    assert np.array_equal(values, rows.ravel())
    answer = oip_pb2.ModelInferResponse()
    answer.outputs.add(name="echo", contents=oip_pb2.InferTensorContents(fp32_contents=[1.0, 2.0]))
    assert grpc_body.read_response(answer.SerializeToString())[1][0].tolist() == [1.0, 2.0]
