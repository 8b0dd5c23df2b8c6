"""Metrics, request log and traces of real data workers."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from tests.contract.harness import Workers

from yunmo.core.settings import Settings

TABLE = "/api/v1/endpoints/table/predict"
BODY = json.dumps({"age": 3, "city": "Berlin"})
CONNECTIONS, EACH = 24, 10


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Workers]:
    """Two data workers with the endpoint ``table``."""
    with Workers(tmp_path / "home", count=2) as workers:
        workers.deploy("table", workers.bundle("table"))
        workers.apply()
        yield workers


def predict(workers: Workers, connections: int = CONNECTIONS, body: str = BODY) -> None:
    """Send requests over many connections, which the system spreads over the workers."""
    for _ in range(connections):
        connection = workers.http()
        for _ in range(EACH):
            connection.request("POST", TABLE, body, workers.headers | {"content-type": "application/json"})
            connection.getresponse().read()
        connection.close()


def look(workers: Workers) -> tuple[dict[str, float], int]:
    """Return the page over a new connection: the sum of each metric's samples, and which process answered."""
    connection = workers.http()
    connection.request("GET", "/metrics", headers=workers.headers)
    reply = connection.getresponse()
    text = reply.read().decode()
    assert reply.status == 200, text
    server = served_by(workers, connection)
    connection.close()
    sums: dict[str, float] = {}
    for family in parse_text(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
            if "code" in sample.labels:
                name = f"{sample.name}:{sample.labels['code']}"
                sums[name] = sums.get(name, 0.0) + sample.value
    return sums, server


def served_by(workers: Workers, connection: http.client.HTTPConnection) -> int:
    port = connection.sock.getsockname()[1]
    for process in workers.processes:
        if process.poll() is None:
            for each in psutil.Process(process.pid).net_connections("tcp"):
                if each.raddr and each.raddr.port == port:
                    return process.pid
    raise AssertionError("nobody holds this connection")


def test_any_worker_answers_with_the_sum_over_all(pair: Workers) -> None:
    sent = CONNECTIONS * EACH
    predict(pair)
    predict(pair, 1, '{"age": "x"}')
    # A request is counted just after its answer went out.
    pair.wait(lambda: look(pair)[0]["yunmo_requests_total"] == sent + EACH)
    answered_by = set()
    for _ in range(200):
        sums, server = look(pair)
        answered_by.add(server)
        assert sums["yunmo_requests_total:ok"] == sent
        assert sums["yunmo_requests_total:invalid_input"] == EACH
        assert sums["yunmo_request_seconds_count"] == sent + EACH
        assert sums["yunmo_batch_requests_sum"] == sums["yunmo_queue_seconds_count"] == sent
        assert sums["yunmo_batch_rows_sum"] == sent
        assert sums["yunmo_batches_total"] == sums["yunmo_run_seconds_count"]
        assert sums["yunmo_requests_in_flight"] == sums["yunmo_waiting_rows"] == 0.0
        assert sums["yunmo_version_loaded_workers"] == sums["yunmo_workers"] == 2.0
        if len(answered_by) == 2:
            break
    assert len(answered_by) == 2


def test_counts_do_not_fall_when_a_worker_is_killed(pair: Workers) -> None:
    sent = CONNECTIONS * EACH
    predict(pair)
    pair.wait(lambda: look(pair)[0]["yunmo_requests_total"] == sent)
    pair.kill(0)
    sums, _ = look(pair)
    assert sums["yunmo_requests_total"] == sums["yunmo_request_seconds_count"] == sent
    assert (sums["yunmo_workers"], sums["yunmo_version_loaded_workers"]) == (1.0, 1.0)
    assert (sums["yunmo_worker_starts_total"], sums["yunmo_worker_deaths_total"]) == (2.0, 1.0)
    pair.start_worker()
    pair.wait(lambda: len(pair.states()) == 2)
    predict(pair)
    pair.wait(lambda: look(pair)[0]["yunmo_requests_total"] >= 2 * sent)
    sums, _ = look(pair)
    assert sums["yunmo_requests_total:ok"] == 2 * sent
    assert (sums["yunmo_workers"], sums["yunmo_version_loaded_workers"]) == (2.0, 2.0)
    assert (sums["yunmo_worker_starts_total"], sums["yunmo_worker_deaths_total"]) == (3.0, 1.0)


def test_who_may_see_the_page_and_in_which_form(workers: Workers) -> None:
    url = workers.url + "/metrics"
    caller, reader = workers.add_key("predict"), workers.add_key("read")
    workers.apply()
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers={"authorization": f"Bearer {caller}"}).status_code == 403
    headers = {"authorization": f"Bearer {reader}"}
    assert httpx.post(url, headers=headers).status_code == 405
    reply = httpx.get(url, headers=headers)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert httpx.head(url, headers=headers).content == b""
    newer = httpx.get(url, headers=headers | {"accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"})
    assert newer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert {family.name for family in parse_openmetrics(newer.text)} == {
        family.name for family in parse_text(reply.text)
    }


def test_metrics_off_errors_logged_requests_traced(tmp_path: Path) -> None:
    received: list[ExportTraceServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    settings = Settings(metrics=False, request_log="errors", traces=f"http://127.0.0.1:{server.server_port}")
    try:
        with Workers(tmp_path / "home", settings=settings) as workers:
            workers.deploy("table", workers.bundle("table"))
            workers.apply()
            trace = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01", "content-type": "application/json"}
            assert httpx.post(workers.url + TABLE, content=BODY, headers=workers.headers | trace).status_code == 200
            assert httpx.get(workers.url + "/metrics", headers=workers.headers).status_code == 404
        # Ended as told, it has written everything.
        lines = [json.loads(line) for line in workers.log.splitlines()]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert [line["path"] for line in lines if line["logger"] == "yunmo.request"] == ["/metrics"]
    spans = [
        span
        for request in received
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if span.trace_id == b"\xab" * 16
    ]
    assert sorted(span.name for span in spans) == ["queue", "request", "run"]
    [request] = [span for span in spans if span.name == "request"]
    assert request.parent_span_id == b"\xcd" * 8
    assert {span.parent_span_id for span in spans if span is not request} == {request.span_id}
    said = {each.key: each.value for each in request.attributes}
    assert said["yunmo.model"].string_value == "table:1"
    assert said["http.response.status_code"].int_value == 200


def test_every_request_has_its_line(pair: Workers) -> None:
    predict(pair, 4)
    pair.wait(lambda: pair.log.count('"logger":"yunmo.request"') == 4 * EACH)
    lines = [json.loads(line) for line in pair.log.splitlines()]
    found = [line for line in lines if line["logger"] == "yunmo.request"]
    assert len({line["request_id"] for line in found}) == 4 * EACH
    keys = {"time", "level", "message", "method", "path", "key_id", "endpoint", "rows", "model", "status", "ms"}
    assert all(keys <= line.keys() for line in found)
