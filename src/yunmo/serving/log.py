"""The log: one JSON object a line, on standard error or in a file.

Secrets are never in it; what looks like a key is blanked.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

_SECRET = re.compile(r"ym_[A-Za-z0-9]{8}_[A-Za-z0-9_-]+")
_MAX_TEXT = 2000
MAX_FILE = 2**20

request_log = logging.getLogger("yunmo.request")
"""One line per request, at level info; its record's ``facts`` are the line's keys."""


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
        return _SECRET.sub("ym_[hidden]", json.dumps(line, default=str, ensure_ascii=False))


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
