"""Values as people type them."""

from __future__ import annotations

import re

from yunmo.core.errors import InvalidInput

_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)?", re.IGNORECASE)
_COUNT = re.compile(r"[1-9][0-9]{0,11}")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str, option: str) -> float:
    """Return a length of time in seconds: ``90``, ``90s``, ``5m``, ``1.5h``, ``7d``.

    Raises:
        InvalidInput: it is none, or not more than 0.
    """
    match = _LENGTH.fullmatch(text.strip())
    value = float(match[1]) * _UNITS[(match[2] or "s").lower()] if match else 0.0
    if value <= 0:
        raise InvalidInput(f"{text!r} is not a length of time", where=option, remedy="Write 90, 90s, 5m or 1h")
    return value


def count(text: str, option: str) -> int:
    """Return a whole number of at least 1.

    Raises:
        InvalidInput: it is none.
    """
    if not _COUNT.fullmatch(text):
        raise InvalidInput(f"{text!r} is not a whole number of at least 1", where=option, remedy="Write 8, or none")
    return int(text)
