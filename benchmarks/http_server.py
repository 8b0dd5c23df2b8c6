"""Processor time of a request in the HTTP server alone: ours, granian (RSGI, and ASGI) and uvicorn, on one core each.

``python benchmarks/http_server.py [--seconds S] [--rounds N]``

Each server reads a body of 1 KB and answers 11 bytes; nothing else is behind it. They take turns, several rounds each,
so that a slower minute of the machine hits all of them. granian and uvicorn get an environment of their own under the
cache folder of benchmarks/serving.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.serving import environments, load  # noqa: E402  the checkout's own folder comes first
from benchmarks.serving.places import free_port  # noqa: E402

_ASGI = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"11")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"ok":true}'})
"""
_GRANIAN = """
import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
server = Server(app, port=PORT, interface=Interfaces.KIND, http=HTTPModes.http1, websockets=False, log_enabled=False)
uvloop.run(server.serve())
"""
_SERVERS = {
    "yunmo.serving.http1": """
import uvloop
from yunmo.serving.http import Response
from yunmo.serving.http1.server import Http1Server
async def app(request):
    await request.body(limit=2**20)
    request.send(Response(200, b'{"ok":true}'))
uvloop.run(Http1Server(app, port=PORT).serve())
""",
    "granian, RSGI": """
async def app(scope, protocol):
    await protocol()
    protocol.response_bytes(200, [("content-type", "application/json")], b'{"ok":true}')
"""
    + _GRANIAN.replace("KIND", "RSGI"),
    "granian, ASGI": _ASGI + _GRANIAN.replace("KIND", "ASGINL"),
    "uvicorn": _ASGI
    + """
import uvicorn
uvicorn.run(app, port=PORT, loop="uvloop", http="httptools", log_level="critical", access_log=False, lifespan="off")
""",
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement [3]")
    parser.add_argument("--rounds", type=int, default=3, help="[3]")
    arguments = parser.parse_args()
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for _ in range(arguments.rounds):
        for name, code in _SERVERS.items():
            for connections in (64, 1):
                found.setdefault((name, connections), []).append(_measure(name, code, connections, arguments.seconds))
    print(f"{'server':22} {'connections':>11} {'us of CPU a request':>20} {'p50 us':>8}")
    for (name, connections), values in found.items():
        cpu, p50 = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{name:22} {connections:11} {cpu:20.1f} {p50:8.0f}")


def _measure(name: str, code: str, connections: int, seconds: float) -> tuple[float, float]:
    """Return the server's processor time of a request and the median latency, both in microseconds."""
    port = free_port()
    program = sys.executable if name.startswith("yunmo") else str(environments.python("servers"))
    with tempfile.TemporaryDirectory() as folder, _started(program, code.replace("PORT", str(port))) as server:
        await_port(port)
        request = load.request("POST", "/", {"content-type": "application/json"}, b"x" * 1000)
        requests = load.write_requests([load.Variant(request, (), None)], Path(folder) / "requests")
        load.run(port, requests, [load.Phase(0, 0.5)], connections=connections)
        before = cpu_seconds(server.pid)
        result = load.run(port, requests, [load.Phase(0, seconds)], connections=connections).phases[0]
        spent = cpu_seconds(server.pid) - before
        server.kill()
    return spent / result.ok * 1e6, result.latency_ms["p50"] * 1000


def _started(program: str, code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([program, "-c", code], stderr=subprocess.DEVNULL)


def await_port(port: int) -> None:
    """Return when a server accepts connections."""
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
