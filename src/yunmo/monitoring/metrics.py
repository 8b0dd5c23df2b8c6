"""The metrics of a data worker, counted for next to nothing, and the one page of all workers.

The Prometheus client library was tried first. Its mode for several processes took 21 to 23 µs for what one request and
its batch say here (and 10.6 MB of each worker), against 2 µs for additions to mapped memory (`slots`): at 10,000
requests a second a fifth of a core. What remained for it was to write the page, which is eighty lines (`exposition`),
so it is used in the tests only, as the reader.
"""

from __future__ import annotations

import logging
import platform
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yunmo
from yunmo.monitoring import families
from yunmo.monitoring.exposition import Page, wants_openmetrics
from yunmo.monitoring.families import (
    BLOCKS,
    CODES,
    COUNTS,
    OF_REQUESTS,
    OF_VERSION,
    REASONS,
    SECONDS,
    Family,
    Part,
    place,
)
from yunmo.monitoring.slots import KEEP_SECONDS, LOG_DROPPED, Labels, Slot, SlotCopy, SlotError, read_slots

OTHER = ("", "other", "", "")
"""The labels of versions for which no room is left."""
NOWHERE = ("", "", "", "")
"""The labels of requests to no endpoint, or to one that is not there."""

_VERSION, _REQUESTS = 0, 1
_QUEUE = place(OF_VERSION, families.QUEUE_SECONDS)
_RUN = place(OF_VERSION, families.RUN_SECONDS)
_ROWS = place(OF_VERSION, families.BATCH_ROWS)
_BATCH_REQUESTS = place(OF_VERSION, families.BATCH_REQUESTS)
_SHADOW = place(OF_VERSION, families.SHADOW)
_SHADOW_RESULT = {True: _SHADOW, False: _SHADOW + 1, None: _SHADOW + 2}
_IN_FLIGHT = place(OF_VERSION, families.IN_FLIGHT)
_WAITING = place(OF_VERSION, families.WAITING)
_LOADED = place(OF_VERSION, families.LOADED)
_SECONDS_SUM = len(SECONDS) + 1
_QUEUE_SUM = _QUEUE + _SECONDS_SUM
_RUN_SUM = _RUN + _SECONDS_SUM
_ROWS_SUM = _ROWS + len(COUNTS) + 1
_REQUESTS_SUM = _BATCH_REQUESTS + len(COUNTS) + 1
_FEW = 257
_ROWS_BUCKET = tuple(_ROWS + bisect_left(COUNTS, count) for count in range(_FEW))
"""The cells of batches of few rows: looking one up takes half as long as searching for it."""
_REQUESTS_BUCKET = tuple(_BATCH_REQUESTS + bisect_left(COUNTS, count) for count in range(_FEW))
_REQUESTS_MANY = _BATCH_REQUESTS + len(COUNTS)

_REASON = {reason: place(OF_VERSION, families.BATCHES) + index for index, reason in enumerate(REASONS)}
_CODE = {code: place(OF_REQUESTS, families.REQUESTS) + index for index, code in enumerate(CODES)}
_UNKNOWN = _CODE[CODES[-1]]

_logger = logging.getLogger("yunmo.metrics")


class VersionMeter:
    """Counts what one loaded version does; it is a `LaneMeter` of ``yunmo.serving.observer``, which says more."""

    __slots__ = ("_at", "_cells", "_faces", "_metrics", "endpoint", "labels")

    def __init__(self, metrics: Metrics, endpoint: tuple[str, str], labels: Labels, at: int) -> None:
        self.endpoint = endpoint
        """Project and endpoint."""
        self.labels = labels
        """Under which it is counted."""
        self._metrics = metrics
        self._at = at
        self._cells = metrics.cells
        self._faces: dict[str, int] = {}

    def begin(self) -> None:
        """Count a request in flight."""
        self._cells[self._at + _IN_FLIGHT] += 1.0

    def request(self, face: str, code: str, seconds: float) -> None:
        """Count a request that had begun here and ended."""
        cells = self._cells
        cells[self._at + _IN_FLIGHT] -= 1.0
        at = self._faces.get(face) or self._find(face)
        cells[at + bisect_left(SECONDS, seconds)] += 1.0
        cells[at + _SECONDS_SUM] += seconds
        cells[at + _CODE.get(code, _UNKNOWN)] += 1.0

    def waiting(self, rows: int) -> None:
        """Set how many rows wait."""
        self._cells[self._at + _WAITING] = rows

    def batch(self, requests: int, rows: int, waits: Sequence[float], run_seconds: float, reason: str) -> None:
        """Count a batch."""
        cells, at = self._cells, self._at
        queue = at + _QUEUE
        total = 0.0
        for wait in waits:
            cells[queue + bisect_left(SECONDS, wait)] += 1.0
            total += wait
        cells[at + _QUEUE_SUM] += total
        cells[at + _RUN + bisect_left(SECONDS, run_seconds)] += 1.0
        cells[at + _RUN_SUM] += run_seconds
        cells[at + (_ROWS_BUCKET[rows] if rows < _FEW else _ROWS + bisect_left(COUNTS, rows))] += 1.0
        cells[at + _ROWS_SUM] += rows
        cells[at + (_REQUESTS_BUCKET[requests] if requests < _FEW else _REQUESTS_MANY)] += 1.0
        cells[at + _REQUESTS_SUM] += requests
        cells[at + _REASON[reason]] += 1.0

    def shadow(self, agrees: bool | None) -> None:
        """Count an answer of a shadow version."""
        self._cells[self._at + _SHADOW_RESULT[agrees]] += 1.0

    def close(self) -> None:
        """Count the version as unloaded."""
        self._metrics.closed(self, self._at)

    def _find(self, face: str) -> int:
        at = self._faces[face] = self._metrics.requests(self.labels, face)
        return at


class Metrics:
    """The metrics of this process; it is an `Observer` of ``yunmo.serving.observer``.

    Args:
        folder: of the slots of all workers; None: this process is alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._slot = self._take()
        self.cells = self._slot.cells
        """Where this process counts."""
        self._versions: Counter[Labels] = Counter()
        self._endpoints: Counter[tuple[str, str]] = Counter()
        self._without: dict[tuple[str, str, str], int] = {}
        # First, so that there always is room for them.
        self._reserved = self._slot.block(_VERSION, OTHER) or 0
        for face in families.FACES:
            self._slot.block(_REQUESTS, (*OTHER, face))
        self._nowhere = {face: self.requests(NOWHERE, face) for face in families.FACES}

    def _take(self) -> Slot:
        if self._folder is not None:
            try:
                return Slot.take(self._folder)
            except SlotError as error:
                _logger.error("no shared memory for metrics", extra={"facts": {"reason": str(error)}})
                self._folder = None
        return Slot.private()

    def close(self) -> None:
        """Leave the counts to the next worker."""
        self._slot.close()

    def lane(self, project: str, endpoint: str, model: str, version: int) -> VersionMeter:
        """Return the meter of a version that was loaded."""
        labels: Labels = (project, endpoint, model, str(version))
        at = self._slot.block(_VERSION, labels)
        if at is None:
            labels, at = OTHER, self._reserved
        self.cells[at + _LOADED] += 1.0
        self._versions[labels] += 1
        self._endpoints[project, endpoint] += 1
        return VersionMeter(self, (project, endpoint), labels, at)

    def closed(self, meter: VersionMeter, at: int) -> None:
        """Count a version as unloaded; it stays on the page for a while."""
        self.cells[at + _LOADED] -= 1.0
        if _released(self._versions, meter.labels) and meter.labels != OTHER:
            self._slot.retire(meter.labels)
        if _released(self._endpoints, meter.endpoint):
            self._slot.retire((*meter.endpoint, "", ""))
            self._without = {key: at for key, at in self._without.items() if key[:2] != meter.endpoint}

    def request(self, project: str, endpoint: str, face: str, code: str, seconds: float) -> None:
        """Count a request that reached no version; an endpoint that is not there is counted without its name."""
        at = self._without.get((project, endpoint, face)) or self._find(project, endpoint, face)
        cells = self.cells
        cells[at + bisect_left(SECONDS, seconds)] += 1.0
        cells[at + _SECONDS_SUM] += seconds
        cells[at + _CODE.get(code, _UNKNOWN)] += 1.0

    def log_dropped(self, lines: int) -> None:
        """Count lines that the request log lost."""
        self.cells[LOG_DROPPED] += lines

    def requests(self, labels: Labels, face: str) -> int:
        """Return where requests by one protocol are counted."""
        face = face if face in families.FACES else families.FACES[-1]
        for each in (labels, OTHER):
            at = self._slot.block(_REQUESTS, (*each, face))
            if at is not None:
                return at
        return 0

    def _find(self, project: str, endpoint: str, face: str) -> int:
        if (project, endpoint) not in self._endpoints:
            # Not kept under that name, of which a caller can think up any number.
            return self._nowhere.get(face) or self.requests(NOWHERE, face)
        at = self._without[project, endpoint, face] = self.requests((project, endpoint, "", ""), face)
        return at

    def page(self, *, project: str | None, accept: str = "") -> tuple[bytes, str]:
        """Return the page over all workers, and its media type. It may run in any thread.

        Args:
            project: only what concerns this one, and the service itself; None: everything.
            accept: the request's header of that name.
        """
        copies = self._copies()
        series = _merge(copies, project)
        page = Page(openmetrics=wants_openmetrics(accept))
        for block, found in ((OF_REQUESTS, series[_REQUESTS]), (OF_VERSION, series[_VERSION])):
            at = 0
            for part in block:
                page.head(part.family)
                for labels, cells in found:
                    _write(page, part, labels, cells[at : at + part.cells])
                at += part.cells
        _write_service(page, copies)
        return page.end()

    def _copies(self) -> list[SlotCopy]:
        if self._folder is not None:
            try:
                return read_slots(self._folder)
            except OSError as error:
                _logger.error("the metrics of other workers cannot be read", exc_info=error)
        return [self._slot.copy()]


def _released(counter: Counter[Any], key: object) -> bool:
    """Count one user less; say whether it was the last."""
    counter[key] -= 1
    if counter[key] > 0:
        return False
    del counter[key]
    return True


def _merge(copies: Sequence[SlotCopy], project: str | None) -> dict[int, list[tuple[Labels, list[float]]]]:
    """Return the sums over all workers, by kind of block, in the order of their labels."""
    sums: dict[tuple[int, Labels], list[float]] = {}
    visible = set()
    horizon = time.time() - KEEP_SECONDS
    for copy in copies:
        for block in copy.blocks:
            if project is not None and block.labels[0] != project:
                continue
            key = (block.kind, block.labels)
            held = sums.get(key)
            sums[key] = list(block.values) if held is None else [a + b for a, b in zip(held, block.values, strict=True)]
            reserved = block.labels[:4] in (OTHER, NOWHERE)
            if any(sums[key]) if reserved else block.retired == 0.0 or block.retired > horizon:
                visible.add(key)
    merged: dict[int, list[tuple[Labels, list[float]]]] = {kind: [] for kind in range(len(BLOCKS))}
    for kind, labels in sorted(visible):
        merged[kind].append((labels, sums[kind, labels]))
    return merged


def _write(page: Page, part: Part, labels: Labels, cells: list[float]) -> None:
    if part.family.kind == "histogram":
        page.histogram(part.family, labels, cells)
    elif part.values:
        for value, count in zip(part.values, cells, strict=True):
            if count or part.family is not families.REQUESTS:  # of 30 ways to end, most never happen
                page.sample(part.family, (*labels, value), count)
    else:
        page.sample(part.family, labels, cells[0])


def _write_service(page: Page, copies: Sequence[SlotCopy]) -> None:
    alive = [copy for copy in copies if copy.alive]
    processes = [(copy, found) for copy in alive if (found := _process(copy.pid)) is not None]
    samples: dict[Family, list[tuple[Labels, float]]] = {
        families.BUILD: [((yunmo.__version__, platform.python_version()), 1.0)],
        families.WORKERS: [((), float(len(alive)))],
        families.STARTS: [((), sum(copy.starts for copy in copies))],
        families.DEATHS: [((), sum(copy.deaths for copy in copies))],
        families.MEMORY: [((str(copy.pid),), found[0]) for copy, found in processes],
        families.CPU: [((str(copy.pid),), found[1]) for copy, found in processes],
        families.STARTED: [((str(copy.pid),), copy.started) for copy in alive],
        families.LOG_DROPPED: [((), sum(copy.log_dropped for copy in copies))],
    }
    for family in families.OF_SERVICE:
        page.head(family)
        for labels, value in samples[family]:
            page.sample(family, labels, value)


def _process(pid: int) -> tuple[float, float] | None:
    """Return a process's resident bytes and seconds of processor time; None if it has just ended."""
    import psutil  # only for whoever looks: it takes memory in every worker

    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return float(process.memory_info().rss), times.user + times.system
    except psutil.Error:
        return None
