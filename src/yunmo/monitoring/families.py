"""Every metric there is: its name, type, labels and meaning, and where its numbers stand in shared memory.

Numbers that belong together (all of one loaded version, all requests to it by one protocol) are one block: labels, then
a fixed row of cells. So a series is found once, and counting is an addition at a known place.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from yunmo.core.errors import ERRORS

SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Upper bounds of the buckets of times: a small network's run to the longest that a request may take by default."""
COUNTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0)
"""Upper bounds of the buckets of rows and requests in a batch."""

CODES = ("ok", "client_gone", *ERRORS, "other")
"""How a request can end: answered, its caller gone, an error's code, or a code that this list does not know."""
REASONS = ("idle", "full", "shape", "drained")
FACES = ("native", "oip", "grpc", "management")
RESULTS = ("agrees", "differs", "failed")

Kind = Literal["counter", "gauge", "histogram"]

VERSION_LABELS = ("project", "endpoint", "model", "version")
REQUEST_LABELS = (*VERSION_LABELS, "face")


@dataclass(frozen=True, slots=True)
class Family:
    """A metric.

    Args:
        name: without ``_total``, which counters have on the page.
        kind: counter, gauge or histogram.
        labels: their names.
        meaning: one line, as on the page.
        bounds: a histogram's.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    bounds: tuple[float, ...] = ()

    @property
    def sample(self) -> str:
        """Its name on the page, without a histogram's endings."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


@dataclass(frozen=True, slots=True)
class Part:
    """Cells of a block that are one metric.

    A histogram is a cell for each bucket, the one above all, and the sum; anything else is one number, or one for each
    value of the metric's last label.
    """

    family: Family
    values: tuple[str, ...] = ()

    @property
    def cells(self) -> int:
        """How many."""
        return len(self.family.bounds) + 2 if self.family.kind == "histogram" else max(1, len(self.values))


REQUESTS = Family(
    "yunmo_requests",
    "counter",
    (*REQUEST_LABELS, "code"),
    "Requests that ended, by outcome: ok, client_gone, or the code of the error.",
)
REQUEST_SECONDS = Family(
    "yunmo_request_seconds",
    "histogram",
    REQUEST_LABELS,
    "Time from the arrival of a request's head to its answer.",
    SECONDS,
)
QUEUE_SECONDS = Family(
    "yunmo_queue_seconds", "histogram", VERSION_LABELS, "Time that a request waited for its batch.", SECONDS
)
RUN_SECONDS = Family("yunmo_run_seconds", "histogram", VERSION_LABELS, "Time of the model for one batch.", SECONDS)
BATCH_ROWS = Family("yunmo_batch_rows", "histogram", VERSION_LABELS, "Rows in a batch.", COUNTS)
BATCH_REQUESTS = Family("yunmo_batch_requests", "histogram", VERSION_LABELS, "Requests in a batch.", COUNTS)
BATCHES = Family(
    "yunmo_batches",
    "counter",
    (*VERSION_LABELS, "reason"),
    "Batches by why they were released: idle (the model had nothing to do), full, shape (the next has another), "
    "drained (nothing else waited).",
)
SHADOW = Family(
    "yunmo_shadow_answers",
    "counter",
    (*VERSION_LABELS, "result"),
    "Requests copied to a shadow version: its answer agrees with the live one, differs, or failed.",
)
IN_FLIGHT = Family("yunmo_requests_in_flight", "gauge", VERSION_LABELS, "Requests that a version is answering now.")
WAITING = Family("yunmo_waiting_rows", "gauge", VERSION_LABELS, "Rows that wait in the queues of a version now.")
LOADED = Family("yunmo_version_loaded_workers", "gauge", VERSION_LABELS, "Workers that have a version loaded.")

BUILD = Family("yunmo_build_info", "gauge", ("version", "python"), "1; which Yunmo this is.")
WORKERS = Family("yunmo_workers", "gauge", (), "Data workers that live.")
STARTS = Family("yunmo_worker_starts", "counter", (), "Starts of data workers since the service started.")
DEATHS = Family("yunmo_worker_deaths", "counter", (), "Data workers that ended without being told to.")
MEMORY = Family("yunmo_worker_resident_bytes", "gauge", ("pid",), "Resident memory of a data worker.")
CPU = Family("yunmo_worker_cpu_seconds", "counter", ("pid",), "Processor time of a data worker.")
STARTED = Family("yunmo_worker_start_time_seconds", "gauge", ("pid",), "When a data worker started, since 1970.")
LOG_DROPPED = Family(
    "yunmo_log_lines_dropped",
    "counter",
    (),
    "Lines of the request log that were dropped because standard error did not take them.",
)

OF_VERSION: tuple[Part, ...] = (
    Part(QUEUE_SECONDS),
    Part(RUN_SECONDS),
    Part(BATCH_ROWS),
    Part(BATCH_REQUESTS),
    Part(BATCHES, REASONS),
    Part(SHADOW, RESULTS),
    Part(IN_FLIGHT),
    Part(WAITING),
    Part(LOADED),
)
"""The cells of a loaded version, labelled by `VERSION_LABELS`."""
OF_REQUESTS: tuple[Part, ...] = (Part(REQUEST_SECONDS), Part(REQUESTS, CODES))
"""The cells of the requests to a version (or to none) by one protocol, labelled by `REQUEST_LABELS`."""
BLOCKS: tuple[tuple[Part, ...], ...] = (OF_VERSION, OF_REQUESTS)
"""The kinds of block; a block names its kind by the place in here."""

OF_SERVICE: tuple[Family, ...] = (BUILD, WORKERS, STARTS, DEATHS, MEMORY, CPU, STARTED, LOG_DROPPED)
"""Metrics of the service and its processes, made when the page is."""

FAMILIES: tuple[Family, ...] = (*(part.family for block in reversed(BLOCKS) for part in block), *OF_SERVICE)
"""All of them, as on the page."""

FINGERPRINT = hashlib.sha256(repr(BLOCKS).encode()).digest()[:8]
"""Says that two processes mean the same by a cell: they may be of two versions while a service is upgraded."""


def block_cells(block: tuple[Part, ...]) -> int:
    """Return how many cells a block's numbers take."""
    return sum(part.cells for part in block)


def place(block: tuple[Part, ...], family: Family) -> int:
    """Return where a metric's first cell stands in a block."""
    at = 0
    for part in block:
        if part.family is family:
            return at
        at += part.cells
    raise LookupError(family.name)
