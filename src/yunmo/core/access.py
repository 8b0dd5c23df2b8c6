"""Who may do what: keys, scopes and principals. The form of keys is here; where they are kept is ``control``'s."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from yunmo.core.schema import Spec

Scope = Literal["predict", "read", "write", "admin"]
SCOPES: tuple[Scope, ...] = ("predict", "read", "write", "admin")
"""predict: call endpoints. read: see datasets, runs, models, endpoints. write: make and change them. admin: keys."""

DEFAULT_PROJECT = "default"
PREFIX_LENGTH = 8

_LIKE_A_KEY = re.compile(r"ym_[A-Za-z0-9]{8}_[A-Za-z0-9_-]+")
_KEY = re.compile(r"ym_([A-Za-z0-9]{8})_([A-Za-z0-9_-]{43})")
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class KeyRecord(Spec, frozen=True):
    """What is known of a key: all but the secret, of which only the SHA-256 is kept (it has 256 random bits)."""

    id: str
    project_id: str
    name: str
    prefix: str
    hash: str
    scopes: tuple[Scope, ...]
    endpoints: Annotated[
        tuple[str, ...] | None, Meta(description="endpoints it may call; null: all of the project")
    ] = None
    created_at: float = 0.0
    expires_at: Annotated[float | None, Meta(description="seconds since 1970 (UTC); null: never")] = None


class Principal(Spec, frozen=True):
    """Who a request comes from."""

    key_id: str
    project_id: str
    scopes: frozenset[Scope]
    endpoints: frozenset[str] | None = None

    def may(self, scope: Scope) -> bool:
        """Say whether the principal has a scope; admin has every one, write includes read."""
        return scope in self.scopes or "admin" in self.scopes or (scope == "read" and "write" in self.scopes)

    def may_call(self, endpoint: str) -> bool:
        """Say whether the principal may call an endpoint."""
        return self.may("predict") and (self.endpoints is None or endpoint in self.endpoints)


def new_key() -> tuple[str, str, str]:
    """Make a key: the key itself (shown once), its prefix (for look-up) and its hash (kept)."""
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(PREFIX_LENGTH))
    key = f"ym_{prefix}_{secrets.token_urlsafe(32)}"
    return key, prefix, hash_key(key)


def hash_key(key: str) -> str:
    """Return the hex SHA-256 of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_prefix(key: str) -> str | None:
    """Return the prefix of a well-formed key, None for anything else."""
    match = _KEY.fullmatch(key)
    return match[1] if match else None


def hide_keys(text: str) -> str:
    """Return a text with what looks like a key blanked: for logs and traces."""
    return _LIKE_A_KEY.sub("ym_[hidden]", text) if "ym_" in text else text


def principal_of(record: KeyRecord) -> Principal:
    """Return whom a key belongs to."""
    endpoints = frozenset(record.endpoints) if record.endpoints is not None else None
    return Principal(
        key_id=record.id, project_id=record.project_id, scopes=frozenset(record.scopes), endpoints=endpoints
    )


def authenticate(key: str, records: Mapping[str, KeyRecord], *, now: float) -> KeyRecord | None:
    """Return the record of a key, None if it is not valid.

    Args:
        key: as the caller sent it.
        records: every record by its prefix.
        now: seconds since 1970.
    """
    record = records.get(key_prefix(key) or "")
    expected = record.hash if record else "0" * 64
    same = hmac.compare_digest(hash_key(key), expected)
    if record is None or not same or (record.expires_at is not None and now >= record.expires_at):
        return None
    return record
