"""Where the command line works: the place that ``yunmo.app.session`` finds, as a client."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yunmo.client.client import Client


def home() -> Path:
    """Return the workspace's folder: ``YUNMO_HOME``, by default ``.yunmo`` here."""
    return Path(os.environ.get("YUNMO_HOME") or ".yunmo").expanduser().resolve()


def connect() -> AbstractContextManager[Client]:
    """Return a client on the place where this command works; it is closed with the ``with`` block."""
    from yunmo.app.session import open_session

    return open_session(home())
