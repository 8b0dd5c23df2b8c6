"""What serving tells whoever watches it: metrics through `Observer`, traces through `Tracer`.

Serving calls these and knows nobody who implements them (`yunmo.monitoring` does, `yunmo.app` brings them together).
They are on the way of every request, so what can be looked up once is: a loaded version has its own `LaneMeter`.
All calls are made on the event loop, return at once and raise nothing.

Who calls what, for one request:

- the outermost place of a protocol (the entry, gRPC's service) calls exactly one of `LaneMeter.request` (a version was
  chosen) and `Observer.request` (none was) when the request has ended, however it ended;
- the data plane calls `LaneMeter.begin` when it has chosen a version, and the outermost place ends that by `request`;
- the lane calls `LaneMeter.waiting` whenever its queue has changed and `LaneMeter.batch` after each run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

Face = Literal["native", "oip", "grpc", "management"]
"""Which protocol a request came by; management: everything that is no prediction."""

Reason = Literal["idle", "full", "shape", "drained"]
"""Why a batch was released: the model was idle when its first request came; it reached the most rows; the next
request has tensors of another shape; the queue held no more when the run before it ended."""

OK = "ok"
"""The outcome of a request that was answered; of others it is the error's code."""
OTHER = "other"
"""The outcome of a request that ended with an error of which only the status is known."""
CLIENT_GONE = "client_gone"
"""The outcome of a request whose caller left before its answer."""


class Activity:
    """What is going on in this worker."""

    __slots__ = ("arrived", "requests")

    def __init__(self) -> None:
        self.requests = 0
        """Requests in progress, from where they are handled to their answer."""
        self.arrived = 0
        """Requests that were read and are not handled yet: the event loop has not come to them."""

    @property
    def alone(self) -> bool:
        """Whether a request in progress is the only one."""
        return self.requests <= 1 and not self.arrived


class LaneMeter(Protocol):
    """Told about one loaded version of an endpoint in this worker."""

    def begin(self) -> None:
        """A request has chosen this version; `request` is called when it ends."""

    def request(self, face: Face, code: str, seconds: float) -> None:
        """A request that had begun here ended.

        Args:
            face: the protocol.
            code: `OK`, `CLIENT_GONE` or an error's code.
            seconds: from its first byte to its answer.
        """

    def waiting(self, rows: int) -> None:
        """Say how many rows wait in the queue now."""

    def batch(self, requests: int, rows: int, waits: Sequence[float], run_seconds: float, reason: Reason) -> None:
        """A batch ran, well or not.

        Args:
            requests: how many it held.
            rows: how many it held.
            waits: seconds that each request was queued.
            run_seconds: time of the model.
            reason: why it was released.
        """

    def shadow(self, agrees: bool | None) -> None:
        """A copied request was answered by this version: like the live one, otherwise, or (None) not at all."""

    def close(self) -> None:
        """The version was unloaded; nothing more is said of it."""


class Observer(Protocol):
    """Told about every request and every loaded version of this worker."""

    def lane(self, project: str, endpoint: str, model: str, version: int) -> LaneMeter:
        """Return the meter of a version that was loaded; its owner calls `LaneMeter.close` when it is unloaded."""

    def request(self, project: str, endpoint: str, face: Face, code: str, seconds: float) -> None:
        """A request ended that reached no version: refused before, or for management.

        Args:
            project: of the key; empty where there was no valid key.
            endpoint: as the caller wrote it, whether it exists or not; empty where the path has none.
            face: the protocol.
            code: as for `LaneMeter.request`.
            seconds: from its first byte to its answer.
        """


class Span(Protocol):
    """A request that is traced. Times are those of `time.perf_counter`."""

    def batch(self, queued: float, began: float, ended: float, requests: int, rows: int, reason: Reason) -> None:
        """The request was queued, and ran in a batch of so many requests and rows."""

    def end(self, facts: dict[str, object], face: Face, code: str) -> None:
        """The request ended.

        Args:
            facts: what the request log says of it.
            face: the protocol.
            code: as for `LaneMeter.request`.
        """


class Tracer(Protocol):
    """Makes the spans of requests."""

    def begin(self, traceparent: str | None, tracestate: str | None) -> Span | None:
        """Return the span of a request that begins now, None if this one is not traced.

        Args:
            traceparent: the request's header of that name (W3C Trace Context), whose trace goes on.
            tracestate: the request's header of that name.
        """


class Silent:
    """An observer that keeps nothing: for tests, and when metrics are off."""

    def lane(self, project: str, endpoint: str, model: str, version: int) -> LaneMeter:  # noqa: ARG002 (the protocol's)
        """Return a meter that keeps nothing."""
        return _SILENT_METER

    def request(self, project: str, endpoint: str, face: Face, code: str, seconds: float) -> None:
        """Keep nothing."""


class _SilentMeter:
    """A meter that keeps nothing."""

    def begin(self) -> None:
        """Keep nothing."""

    def request(self, face: Face, code: str, seconds: float) -> None:
        """Keep nothing."""

    def waiting(self, rows: int) -> None:
        """Keep nothing."""

    def batch(self, requests: int, rows: int, waits: Sequence[float], run_seconds: float, reason: Reason) -> None:
        """Keep nothing."""

    def shadow(self, agrees: bool | None) -> None:
        """Keep nothing."""

    def close(self) -> None:
        """Keep nothing."""


_SILENT_METER = _SilentMeter()
