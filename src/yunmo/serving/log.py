"""The log: one JSON object a line, on standard error or in a file.

Secrets are never in it; what looks like a key is blanked.
"""

from __future__ import annotations

import json
import logging
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Literal

import msgspec

from yunmo.core.access import hide_keys

_MAX_TEXT = 2000
MAX_FILE = 2**20

request_log = logging.getLogger("yunmo.request")
"""One line per request, at level info; its record's ``facts`` are the line's keys."""

FLUSH_SECONDS = 0.05
"""A line of the request log is written after so long at the latest; what a killed worker loses is not older."""
FLUSH_BYTES = 64 * 2**10
MAX_PENDING = 4 * 2**20
"""Bytes that wait for a standard error that takes none; what comes beyond is dropped and counted."""
_ERROR_STATUS = 400
_PIPE_BYTES = 4096
"""What the system writes into a pipe in one piece (PIPE_BUF), so that lines of several workers do not mix."""

_encode = msgspec.json.Encoder(enc_hook=str).encode


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: time, level, logger, message, then the record's ``facts``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_MAX_TEXT],
        }
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return hide_keys(json.dumps(line, default=str, ensure_ascii=False))


class _File(RotatingFileHandler):
    """A log file that, on a full disk, loses lines instead of writing tracebacks over the user's terminal."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the library's name
        """Drop the record."""


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Send the log of this process to a file too, and so not to standard error if nobody has configured a log.

    Args:
        path: made when there is something to write; at `MAX_FILE` bytes it is renamed to ``….1``.
    """
    handler = _File(path, maxBytes=MAX_FILE, backupCount=1, encoding="utf-8", delay=True)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        with suppress(OSError):  # of lines that a full disk did not take
            handler.close()


def configure_log(level: str) -> None:
    """Send the log of this process to standard error.

    Args:
        level: least level logged: debug, info, warning or error.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("yunmo").setLevel(level.upper())


class RequestLog:
    """One line for each request: ``time``, ``level``, ``logger``, ``message``, then its facts.

    `write` costs what encoding costs. A thread writes the lines, some milliseconds later and many at a time, so that
    requests wait neither for a disk nor for whoever reads the log.

    Args:
        keep: the lines of all requests, of those that ended with an error, or of none.
        descriptor: where to; standard error by default.
        dropped: called with a number of lines that were lost because nothing took them.
    """

    def __init__(
        self,
        keep: Literal["all", "errors", "off"],
        *,
        descriptor: int = 2,
        dropped: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._all = keep == "all"
        self._off = keep == "off"
        self._writer = _Writer(descriptor)
        self._dropped = dropped
        self._told = 0
        self._second = 0
        self._time = b""

    def write(self, facts: dict[str, Any]) -> None:
        """Write the line of a request, soon; it never waits and never raises. To be called in one thread.

        Args:
            facts: what to say: ``request_id``, ``method``, ``path``, ``status``, ``ms`` and so on; no secrets, though
                what looks like a key is blanked.
        """
        if self._off or not (self._all or _went_wrong(facts)):
            return
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._time = time.strftime('{"time":"%Y-%m-%dT%H:%M:%S', time.gmtime(second)).encode()
        try:
            body = _encode(facts)
        except Exception:  # text that is none in UTF-8, such as a path of lone surrogates
            body = json.dumps(facts, default=str, separators=(",", ":")).encode()
        if b"ym_" in body:
            body = hide_keys(body.decode()).encode()
        self._writer.put(
            b'%b.%03dZ","level":"info","logger":"yunmo.request","message":"request",%b\n'
            % (self._time, (now - second) * 1000, body[1:])
        )
        if self._writer.lost != self._told:
            self._tell()

    def close(self, timeout: float = 1.0) -> None:
        """Write what is left, for at most so many seconds."""
        self._writer.close(timeout)
        self._tell()

    def _tell(self) -> None:
        lost = self._writer.lost
        self._dropped(lost - self._told)
        self._told = lost


def _went_wrong(facts: dict[str, Any]) -> bool:
    status = facts.get("status")
    return "error" in facts or "client_gone" in facts or (isinstance(status, int) and status >= _ERROR_STATUS)


class _Writer:
    """Writes lines in a thread of its own, which alone may have to wait.

    Each counter is added to by one thread: what was queued by the caller's, what was taken by the writing one.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()
        self._queued = 0
        self._taken = 0
        self._refused = 0
        self._failed = 0
        self._asleep = False
        self._hurried = False
        self._stopping = False
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def lost(self) -> int:
        """Lines that were not written."""
        return self._refused + self._failed

    def put(self, line: bytes) -> None:
        pending = self._queued - self._taken
        if pending > MAX_PENDING:
            self._refused += 1
            return
        self._lines.append(line)
        self._queued += len(line)
        if self._asleep:
            self._asleep = False
            self._wake.set()
        elif pending > FLUSH_BYTES and not self._hurried:
            self._hurried = True
            self._hurry.set()
        elif self._thread is None:
            self._thread = threading.Thread(target=self._run, name="yunmo-request-log", daemon=True)
            self._thread.start()

    def close(self, timeout: float) -> None:
        if self._thread is not None:
            self._stopping = True
            self._wake.set()
            self._hurry.set()
            self._thread.join(timeout)

    def _run(self) -> None:
        told = 0
        limit = _piece(self._descriptor)
        while not self._stopping:
            self._asleep = True
            if not self._lines:  # looked at after the flag was set: a line that comes now finds it
                self._wake.wait()
            self._asleep = False
            self._wake.clear()
            self._hurry.wait(FLUSH_SECONDS)
            self._hurried = False
            self._hurry.clear()
            told = self._write_lines(limit, told)
        self._write_lines(limit, told)

    def _write_lines(self, limit: int, told: int) -> int:
        """Write what is queued; return of how many lost lines the log has been told, which were ``told``."""
        while self._lines:
            piece = [self._lines.popleft()]
            size = len(piece[0])
            while self._lines and size + len(self._lines[0]) <= limit:
                line = self._lines.popleft()
                piece.append(line)
                size += len(line)
            self._write(b"".join(piece), len(piece))
            self._taken += size
        return told if self.lost == told else self._say_lost(told)

    def _write(self, data: bytes, lines: int) -> None:
        try:
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:  # whoever else has this pipe made it so
                    select.select([], [self._descriptor], [])
        except OSError:
            self._failed += lines

    def _say_lost(self, told: int) -> int:
        lost = self.lost
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = {
            "time": moment,
            "level": "warning",
            "logger": "yunmo.request",
            "message": "lines of the request log were lost",
            "lines": lost - told,
        }
        failed = self._failed
        self._write(_encode(line) + b"\n", 0)
        return lost if self._failed == failed else told


def _piece(descriptor: int) -> int:
    """Return how many bytes are written at a time."""
    try:
        return _PIPE_BYTES if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else FLUSH_BYTES
    except OSError:
        return FLUSH_BYTES
