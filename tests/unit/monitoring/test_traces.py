from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from yunmo.core.errors import MissingExtra
from yunmo.monitoring.traces import Traces, check_installed
from yunmo.serving.observer import Span, Tracer

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """A collector of traces that keeps what it gets."""

    def __init__(self, status: int = 200) -> None:
        self.paths: list[str] = []
        self.received: list[ExportTraceServiceRequest] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.paths.append(self.path)
                outer.received.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def spans(self) -> dict[str, Any]:
        return {
            span.name: span
            for request in self.received
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def one_request(tracer: Tracer, traceparent: str | None, code: str = "ok", status: int = 200) -> Span | None:
    span = tracer.begin(traceparent, None)
    if span is not None:
        now = time.perf_counter()
        span.batch(now, now + 0.25, now + 0.75, 4, 6, "full")
        facts = {"request_id": "req_1", "method": "POST", "path": "/x/ym_abcdefgh_" + "s" * 43, "status": status}
        span.end(facts | {"endpoint": "pets", "model": "pets:3", "rows": 2}, "native", code)
    return span


def test_a_callers_trace_goes_on_and_has_queue_and_run(collector: Collector) -> None:
    tracer = Traces(collector.url)
    began = time.time_ns()
    one_request(tracer, f"00-{TRACE}-{PARENT}-01")
    tracer.close()
    assert set(collector.paths) == {"/v1/traces"}
    spans = collector.spans
    assert set(spans) == {"request", "queue", "run"}
    request, queue, run = spans["request"], spans["queue"], spans["run"]
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert request.parent_span_id.hex() == PARENT
    assert queue.parent_span_id == run.parent_span_id == request.span_id
    assert request.kind == request.SPAN_KIND_SERVER
    found = attributes(request)
    assert found == {
        "yunmo.request_id": "req_1",
        "http.request.method": "POST",
        "url.path": "/x/ym_[hidden]",
        "http.response.status_code": 200,
        "yunmo.endpoint": "pets",
        "yunmo.model": "pets:3",
        "yunmo.rows": 2,
        "yunmo.face": "native",
        "yunmo.code": "ok",
    }
    batch = attributes(run)
    assert batch.pop("yunmo.batch.id")
    assert batch == {"yunmo.batch.requests": 4, "yunmo.batch.rows": 6, "yunmo.batch.reason": "full"}
    assert queue.end_time_unix_nano == run.start_time_unix_nano
    assert abs((run.end_time_unix_nano - run.start_time_unix_nano) - 500_000_000) < 1000
    assert abs((queue.end_time_unix_nano - queue.start_time_unix_nano) - 250_000_000) < 1000
    assert began - 10**9 < queue.start_time_unix_nano < began + 60 * 10**9
    [resource] = [each.resource for each in collector.received[0].resource_spans]
    assert attributes(resource)["service.name"] == "yunmo"


def test_a_request_without_a_trace_begins_one(collector: Collector) -> None:
    tracer = Traces(f"{collector.url}/custom/path")
    one_request(tracer, None)
    one_request(tracer, "nonsense")
    tracer.close()
    assert set(collector.paths) == {"/custom/path"}
    assert collector.spans["request"].parent_span_id == b""


def test_what_a_caller_does_not_want_traced_is_not(collector: Collector) -> None:
    tracer = Traces(collector.url)
    assert one_request(tracer, f"00-{TRACE}-{PARENT}-00") is None
    tracer.close()
    assert collector.spans == {}


@pytest.mark.parametrize(
    ("code", "status", "failed"), [("model_failed", 500, True), ("not_found", 404, False), ("client_gone", 422, False)]
)
def test_only_our_failures_are_errors(collector: Collector, code: str, status: int, failed: bool) -> None:
    tracer = Traces(collector.url)
    one_request(tracer, None, code, status)
    tracer.close()
    status_code = collector.spans["request"].status.code
    assert (status_code == 2) is failed


def test_a_collector_that_is_not_there_holds_nobody_up() -> None:
    collector = Collector()
    collector.stop()
    tracer = Traces(collector.url)
    one_request(tracer, None)
    began = time.monotonic()
    tracer.close(0.5)
    assert time.monotonic() - began < 30


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for attempt in (check_installed, lambda: Traces("http://localhost:4318")):
        with pytest.raises(MissingExtra, match=r"pip install 'yunmo\[traces\]'"):
            attempt()


def test_off_costs_no_import() -> None:
    code = (
        "import sys, yunmo.app.worker, yunmo.app.supervisor;"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'prometheus_client', 'psutil'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
