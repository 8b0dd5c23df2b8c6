"""Ids: a type prefix and a ULID, so that they sort by time. They are made here and never taken from clients."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from typing import Literal

from ulid import ULID

from yunmo.core.errors import InvalidInput

Prefix = Literal["proj", "ds", "run", "job", "mdl", "ver", "ep", "key", "evt", "upl"]

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
_VERSIONED = re.compile(r"(?P<name>[^:@]+)(?::(?P<version>[1-9][0-9]{0,8})|@(?P<alias>[a-z0-9][a-z0-9_-]{0,62}))?")


def new_id(prefix: Prefix) -> str:
    """Return a new id such as ``run_01JD3Z0XK7D1G6S5ZJ4T1Q9WAB``."""
    return f"{prefix}_{ULID()}"


_process = secrets.token_hex(4)
_requests = itertools.count()


def new_request_id() -> str:
    """Return a new id for a request, such as ``req_0193f4c2b8e1-9f86d081-00002a``.

    It is made of the time in milliseconds, of what is random once for this process, and of a number, because it is
    needed thousands of times a second, where a ULID's random bits cost more than the rest of the gate.
    """
    return f"req_{time.time_ns() // 1_000_000:012x}-{_process}-{next(_requests):06x}"


def check_name(name: str, what: str) -> str:
    """Return a name of a dataset, model or endpoint unchanged if it may be one.

    Raises:
        InvalidInput: the name has other characters than ``a-z 0-9 . _ -``, or over 64 of them.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is not a valid {what} name",
            remedy="Use 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning and ending with a letter or digit",
        )
    return name


def name_from_stem(stem: str) -> str:
    """Return the default name for data: its file's stem in the form that `check_name` accepts; pets for pets.tar.gz."""
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower().removesuffix(".tar"))[:64].strip("._-")
    return name or "data"


LARGEST_VERSION = 2**31 - 1
"""Databases hold no larger one; of whatever number is asked for beyond it, there is no version."""


def split_reference(reference: str) -> tuple[str, int | None, str | None]:
    """Split ``name``, ``name:1`` or ``name@alias`` into name, version and alias.

    Raises:
        InvalidInput: the reference has another form.
    """
    match = _VERSIONED.fullmatch(reference)
    if not match:
        raise InvalidInput(f"{reference!r} is not a reference", remedy="Write NAME, NAME:VERSION or NAME@ALIAS")
    version = match["version"]
    return check_name(match["name"], "model or dataset"), int(version) if version else None, match["alias"]
