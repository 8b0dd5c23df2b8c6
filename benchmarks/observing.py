"""What metrics and the request log cost a request, in microseconds of one core.

Run it as ``python benchmarks/observing.py``, on a machine that does nothing else. Calls are made as the data plane
makes them; each figure is the best of several rounds, in processor time of the whole process, so that the thread that
writes the log counts too.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from yunmo.monitoring.metrics import Metrics
from yunmo.serving.log import RequestLog
from yunmo.serving.observer import LaneMeter, Silent

ROUNDS, REQUESTS, TOGETHER = 15, 8000, 8
FACTS = {
    "request_id": "req_01JD3Z0XK7D1G6S5ZJ4T1Q9WAB",
    "method": "POST",
    "path": "/api/v1/endpoints/pets/predict",
    "key_id": "key_01JD3Z0XK7D1G6S5ZJ4T1Q9WAB",
    "endpoint": "pets",
    "rows": 1,
    "model": "pets:3",
    "status": 200,
    "ms": 1.23,
}


def alone(meter: LaneMeter) -> None:
    """Tell a meter of requests that each ran alone."""
    for _ in range(REQUESTS):
        meter.begin()
        meter.waiting(1)
        meter.batch(1, 1, (0.0003,), 0.0007, "idle")
        meter.waiting(0)
        meter.request("native", "ok", 0.0012)


def together(meter: LaneMeter) -> None:
    """Tell a meter of requests that ran eight at a time."""
    waits = [0.0003] * TOGETHER
    for _ in range(REQUESTS // TOGETHER):
        for _ in range(TOGETHER):
            meter.begin()
            meter.waiting(1)
        meter.batch(TOGETHER, TOGETHER, waits, 0.0007, "drained")
        meter.waiting(0)
        for _ in range(TOGETHER):
            meter.request("native", "ok", 0.0012)


def logged(log: RequestLog, descriptor: int) -> None:
    """Log requests, and wait until they are written."""
    os.ftruncate(descriptor, 0)
    for _ in range(REQUESTS):
        log.write(FACTS)
    log.close()


def best(work: Callable[[], None]) -> float:
    """Return the least microseconds of processor time for each request."""
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times) / REQUESTS * 1e6


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = Metrics(Path(folder))
        meters: dict[str, LaneMeter] = {
            "metrics on": metrics.lane("default", "pets", "pets", 3),
            "metrics off": Silent().lane("default", "pets", "pets", 3),
        }
        for name, meter in meters.items():
            print(f"{name}, each request a batch of its own: {best(lambda meter=meter: alone(meter)):.2f} µs a request")
            print(f"{name}, eight requests a batch: {best(lambda meter=meter: together(meter)):.2f} µs a request")
        descriptor = os.open(Path(folder) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for keep in ("all", "errors", "off"):
            cost = best(lambda keep=keep: logged(RequestLog(keep, descriptor=descriptor), descriptor))
            print(f"request log {keep!r}: {cost:.2f} µs a request")
        os.close(descriptor)
        began = time.perf_counter()
        page, _ = metrics.page(project=None)
        print(f"the page of one endpoint: {len(page)} bytes in {(time.perf_counter() - began) * 1000:.1f} ms")
        metrics.close()


if __name__ == "__main__":
    main()
