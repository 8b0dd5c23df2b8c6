"""The event sink: one durable, totally ordered file of events that many processes write and read."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import msgspec

from yunmo.core.events import AnyEvent, Envelope
from yunmo.core.files import storage_full
from yunmo.core.ids import new_id
from yunmo.store.sqlite import is_full

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    time REAL NOT NULL,
    project_id TEXT NOT NULL,
    subject TEXT NOT NULL,
    event TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_subject ON events (subject, sequence);
"""
_BUSY_MILLISECONDS = 30_000


class EventSink:
    """Events in one SQLite file. It is safe in many processes and, within one, in many threads.

    SQLite lets one writer at a time through, so sequence numbers are given in the order in which events become
    visible: a reader that has seen number n will never see a lower one appear.

    Args:
        path: the file; it is made if it is not there.

    Raises:
        StorageFull: no space left to make or open it.
    """

    def __init__(self, path: Path) -> None:
        self._guard = threading.Lock()
        self._connection = sqlite3.connect(
            path, timeout=_BUSY_MILLISECONDS / 1000, isolation_level=None, check_same_thread=False
        )
        self._path = path
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(_SCHEMA)
        except sqlite3.OperationalError as error:
            self._connection.close()
            if is_full(error):
                raise storage_full(path) from error
            raise

    def emit(self, project_id: str, subject: str, event: AnyEvent) -> int:
        """Keep an event and return its sequence number; it is on disk when this returns.

        Args:
            project_id: the tenant.
            subject: id of the run, endpoint or key it is about.
            event: what happened.

        Raises:
            StorageFull: no space left; the event was not kept.
        """
        row = (new_id("evt"), time.time(), project_id, subject, msgspec.json.encode(event).decode())
        try:
            with self._guard:
                cursor = self._connection.execute(
                    "INSERT INTO events (id, time, project_id, subject, event) VALUES (?, ?, ?, ?, ?)", row
                )
                return int(cursor.lastrowid or 0)
        except sqlite3.OperationalError as error:
            if is_full(error):
                raise storage_full(self._path) from error
            raise

    def read(self, after: int = 0, subject: str | None = None, limit: int = 1000) -> list[Envelope]:
        """Return events in their order.

        Args:
            after: only those with a higher sequence number.
            subject: only those about this run, endpoint or key; None: about anything.
            limit: at most so many.
        """
        query = "SELECT sequence, id, time, project_id, subject, event FROM events WHERE sequence > ?"
        values: tuple[object, ...] = (after,)
        if subject is not None:
            query += " AND subject = ?"
            values += (subject,)
        with self._guard:
            rows = self._connection.execute(f"{query} ORDER BY sequence LIMIT ?", (*values, limit)).fetchall()
        return [_envelope(row) for row in rows]

    def last(self, subject: str, kind: str | None = None) -> Envelope | None:
        """Return the newest event about a run, endpoint or key.

        Args:
            subject: its id.
            kind: only an event of this name, such as ``run.epoch``.
        """
        with self._guard:
            row = self._connection.execute(
                "SELECT sequence, id, time, project_id, subject, event FROM events"
                " WHERE subject = ? AND (? IS NULL OR json_extract(event, '$.event') = ?)"
                " ORDER BY sequence DESC LIMIT 1",
                (subject, kind, kind),
            ).fetchone()
        return _envelope(row) if row else None

    def close(self) -> None:
        """Close the file."""
        with self._guard:
            self._connection.close()


def _envelope(row: tuple[int, str, float, str, str, str]) -> Envelope:
    event: AnyEvent = msgspec.json.decode(row[5], type=AnyEvent)
    return Envelope(sequence=row[0], id=row[1], time=row[2], project_id=row[3], subject=row[4], event=event)
