"""Processor time of a call in the gRPC server alone: ours and grpc.aio, on one core each; and a client that floods.

``python benchmarks/grpc_server.py [--seconds S] [--rounds N]``

Each server takes a message of 12 KB and answers 100 bytes; nothing else is behind it. They take turns, several rounds
each, so that a slower minute of the machine hits all of them. Load comes from ``h2load`` (Debian package
nghttp2-client), once with 8 connections of 8 streams and once with one call at a time. Then one client opens calls and
resets them as fast as it can (CVE-2023-44487), while another asks for one after the other: its calls that were answered
are told from those that failed.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.http_server import await_port, cpu_seconds  # noqa: E402  the checkout's own folder comes first
from benchmarks.serving.places import free_port  # noqa: E402
from yunmo.serving.http2 import frames  # noqa: E402

_PATH = "/echo.Echo/Ask"
_SERVERS = {
    "yunmo.serving.http2": """
import uvloop
from yunmo.serving.grpc.wire import ANSWER, GOOD, PREFIX, message_of
from yunmo.serving.http2.connection import Http2Server
from yunmo.serving.http2.stream import Exchange
class Ask(Exchange):
    def __init__(self, stream):
        self.stream, self.task = stream, None
    def received(self, body):
        self.task = asyncio.get_running_loop().create_task(self.answer(body))
    async def answer(self, body):
        message_of(body, self.stream.head.value("grpc-encoding"), 2**20)
        self.stream.answer(ANSWER, PREFIX.pack(0, 100) + bytes(100), GOOD)
    def gone(self):
        if self.task is not None:
            self.task.cancel()
    too_large = slow = None
class Server(Http2Server):
    def begin(self, stream):
        stream.limit = 2**20
        stream.exchange = Ask(stream)
import asyncio
uvloop.run(Server(port=PORT).serve())
""",
    "grpc.aio": """
import asyncio, grpc, uvloop
async def answer(message, context):
    return bytes(100)
class Find(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(answer)
async def main():
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Find(),))
    server.add_insecure_port("127.0.0.1:PORT")
    await server.start()
    await server.wait_for_termination()
uvloop.run(main())
""",
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement [3]")
    parser.add_argument("--rounds", type=int, default=3, help="[3]")
    arguments = parser.parse_args()
    found: dict[tuple[str, int], list[float]] = {}
    floods: dict[str, Counter[str]] = {name: Counter() for name in _SERVERS}
    for _ in range(arguments.rounds):
        for name in _SERVERS:
            for calls in (64, 1):
                found.setdefault((name, calls), []).append(_measure(name, calls, arguments.seconds))
            floods[name] += _flood(name, arguments.seconds)
    print(f"{'server':22} {'calls at a time':>15} {'us of CPU a call':>17}")
    for (name, calls), values in found.items():
        print(f"{name:22} {calls:15} {statistics.median(values):17.1f}")
    for name, ends in floods.items():
        print(f"{name:22} beside a client that resets its calls: {dict(ends)}")


@contextlib.contextmanager
def _serving(name: str) -> Iterator[tuple[int, int]]:
    """Give the port and the process id of a server."""
    port = free_port()
    program = [sys.executable, "-c", _SERVERS[name].replace("PORT", str(port))]
    with subprocess.Popen(program, stderr=subprocess.DEVNULL) as process:
        try:
            await_port(port)
            yield port, process.pid
        finally:
            process.kill()


def _measure(name: str, calls: int, seconds: int) -> float:
    """Return the server's processor time of a call in microseconds."""
    connections, streams = (8, 8) if calls > 1 else (1, 1)
    with tempfile.TemporaryDirectory() as folder, _serving(name) as (port, pid):
        body = Path(folder) / "body"
        body.write_bytes(b"\0" + (12_300).to_bytes(4, "big") + bytes(12_300))
        command = ["h2load", "-D", str(seconds), "-c", str(connections), "-m", str(streams), "-d", str(body)]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"http://127.0.0.1:{port}{_PATH}"]
        before = cpu_seconds(pid)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        spent = cpu_seconds(pid) - before
    count = re.search(r"status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", done.stdout)
    if count is None:
        raise SystemExit(f"{name}: {done.stdout[-1000:]}")
    return spent / int(count[1]) * 1e6


def _flood(name: str, seconds: float) -> Counter[str]:
    """Return how the calls of an honest client ended beside one that resets its own at once."""
    ends: Counter[str] = Counter()
    with _serving(name) as (port, _), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask: Any = channel.unary_unary(_PATH)
        ask(b"", timeout=10)
        flooder = subprocess.Popen([sys.executable, __file__, "--flood", str(port)])
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                try:
                    ask(b"", timeout=seconds)
                    ends["answered"] += 1
                except grpc.RpcError as error:
                    failed: Any = error
                    ends[failed.code().name] += 1
        finally:
            flooder.kill()
            flooder.wait()
    return ends


def flood(port: int) -> None:
    """Open calls and reset them, on one connection after the other, until somebody ends this."""
    block = frames.header_block(
        (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", _PATH),
            (":authority", "x"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        )
    )
    begin = frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0)
    calls = [
        frames.frame(frames.HEADERS, frames.END_HEADERS, number, block) + frames.reset(number, frames.Reason.CANCEL)
        for number in range(1, 6000, 2)
    ]
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(begin + b"".join(calls))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--flood"]:
        flood(int(sys.argv[2]))
    else:
        main()
