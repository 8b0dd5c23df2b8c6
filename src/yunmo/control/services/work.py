"""What runs and jobs have in common: rows that the runner takes up, cancelled and resumed."""

from __future__ import annotations

import time

from yunmo.core.errors import Conflict
from yunmo.store.tables import WorkRow

_RESUMABLE = ("failed", "cancelled")


def cancel(row: WorkRow, kind: str) -> bool:
    """Stop work: at once if it still waits, else as soon as its process sees it; say whether it waited.

    Args:
        row: the work.
        kind: what it is called in messages: run or job.

    Raises:
        Conflict: it has ended already, other than by being cancelled.
    """
    if row.status == "queued":
        row.status, row.updated_at = "cancelled", time.time()
        return True
    if row.status == "running":
        row.cancel_requested = True
    elif row.status != "cancelled":
        raise Conflict(f"the {kind} has {row.status} already", where=row.id)
    return False


def resume(row: WorkRow, kind: str) -> bool:
    """Queue failed or cancelled work anew; say whether that was so. What waits or runs stays as it is.

    Raises:
        Conflict: it has succeeded.
    """
    if row.status == "succeeded":
        raise Conflict(f"the {kind} has succeeded: there is nothing to resume", where=row.id)
    stopped = row.status in _RESUMABLE
    if stopped:
        row.status, row.problem = "queued", None
        row.attempt += 1
        row.updated_at = time.time()
    row.cancel_requested = False
    return stopped
