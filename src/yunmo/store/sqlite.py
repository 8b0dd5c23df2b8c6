"""What SQLite says when no space is left."""

from __future__ import annotations

import sqlite3

_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
"""The second one comes when a database is opened: its index of the write-ahead log needs 32 KiB."""


def is_full(error: BaseException | None) -> bool:
    """Say whether an error of SQLite means that no space is left."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) in _FULL
