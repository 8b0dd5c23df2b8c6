"""Traces of requests, sent to an OpenTelemetry collector (OTLP over HTTP). Needs the extra ``traces``.

A request is one span; its times in the queue and in the model are two more below it. What ran together has the same
``yunmo.batch.id``. Nothing of OpenTelemetry is imported where traces are off.
"""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yunmo
from yunmo.core.access import hide_keys
from yunmo.core.errors import ERRORS, MissingExtra

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Span, TracerProvider
    from opentelemetry.trace import Tracer

_PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_SERVER_ERROR = 500
_FACTS = {
    "request_id": "yunmo.request_id",
    "method": "http.request.method",
    "path": "url.path",
    "status": "http.response.status_code",
    "endpoint": "yunmo.endpoint",
    "model": "yunmo.model",
    "rows": "yunmo.rows",
    "key_id": "yunmo.key_id",
}
"""What the request log says of a request, as attributes of its span."""


def check_installed() -> None:
    """See whether the extra is there, without importing it.

    Raises:
        MissingExtra: it is not.
    """
    for package in _PACKAGES:
        try:
            found = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise MissingExtra(
                "sending traces needs OpenTelemetry",
                where="setting traces",
                remedy="Install it: pip install 'yunmo[traces]', or leave the setting out",
            )


class RequestSpan:
    """A request that is traced; it is a `Span` of ``yunmo.serving.observer``."""

    __slots__ = ("_offset", "_span", "_tracer")

    def __init__(self, span: Span, tracer: Traces, offset: int) -> None:
        self._span = span
        self._tracer = tracer
        self._offset = offset

    def batch(self, queued: float, began: float, ended: float, requests: int, rows: int, reason: str) -> None:
        """Add the spans of the queue and of the run."""
        attributes: dict[str, Any] = {
            "yunmo.batch.requests": requests,
            "yunmo.batch.rows": rows,
            "yunmo.batch.reason": reason,
            "yunmo.batch.id": f"{os.getpid()}-{self._nanoseconds(began)}",
        }
        self._tracer.add("queue", self._span, self._nanoseconds(queued), self._nanoseconds(began), {})
        self._tracer.add("run", self._span, self._nanoseconds(began), self._nanoseconds(ended), attributes)

    def end(self, facts: dict[str, Any], face: str, code: str) -> None:
        """Say how the request ended."""
        from opentelemetry.trace import Status, StatusCode

        span = self._span
        for fact, name in _FACTS.items():
            if (value := facts.get(fact)) is not None:
                span.set_attribute(name, hide_keys(value) if isinstance(value, str) else value)
        span.set_attribute("yunmo.face", face)
        span.set_attribute("yunmo.code", code)
        if code in ERRORS and ERRORS[code].status >= _SERVER_ERROR:
            span.set_status(Status(StatusCode.ERROR, code))
        span.end()

    def _nanoseconds(self, counter: float) -> int:
        """Return a time of `time.perf_counter` in nanoseconds since 1970."""
        return int(counter * 1e9) + self._offset


class Traces:
    """Makes and sends the spans of requests; it is a `Tracer` of ``yunmo.serving.observer``.

    Which requests are traced without a caller's saying so, OpenTelemetry's own variables decide
    (``OTEL_TRACES_SAMPLER``, ``OTEL_TRACES_SAMPLER_ARG``; all of them by default).

    Args:
        url: of the collector; without a path, ``/v1/traces`` is its path.

    Raises:
        MissingExtra: OpenTelemetry is not installed.
    """

    def __init__(self, url: str) -> None:
        check_installed()
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        about: dict[str, str | int] = {
            "service.name": os.environ.get("OTEL_SERVICE_NAME", "yunmo"),
            "service.version": yunmo.__version__,
            "process.pid": os.getpid(),
        }
        target = url if urlsplit(url).path.strip("/") else f"{url.rstrip('/')}/v1/traces"
        self._provider: TracerProvider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(target)))
        self._tracer: Tracer = self._provider.get_tracer("yunmo", yunmo.__version__)
        self._extract = TraceContextTextMapPropagator().extract
        self._server = SpanKind.SERVER

    def begin(self, traceparent: str | None, tracestate: str | None) -> RequestSpan | None:
        """Return the span of a request that begins now, None if it is not traced."""
        carrier = {"traceparent": traceparent or "", "tracestate": tracestate or ""}
        span: Any = self._tracer.start_span("request", self._extract(carrier), self._server)
        if not span.is_recording():
            return None
        return RequestSpan(span, self, time.time_ns() - time.perf_counter_ns())

    def add(self, name: str, parent: Span, began: int, ended: int, attributes: dict[str, Any]) -> None:
        """Add a span that is over.

        Args:
            name: of the span.
            parent: the one it is below.
            began: nanoseconds since 1970.
            ended: likewise.
            attributes: what it says.
        """
        from opentelemetry.trace import set_span_in_context

        context = set_span_in_context(parent)
        self._tracer.start_span(name, context, attributes=attributes, start_time=began).end(ended)

    def close(self, timeout: float = 2.0) -> None:
        """Send what is left, for at most so many seconds."""
        # In a thread, for a collector that does not answer would hold up the end of the process.
        last = threading.Thread(target=self._provider.shutdown, name="yunmo-traces", daemon=True)
        last.start()
        last.join(timeout)
