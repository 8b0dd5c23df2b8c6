"""The gate in front of everything: no request passes without a valid key, whatever its path.

It runs before routing, so an unknown path tells a stranger nothing. What a valid key may do is decided further in,
where the route is known: here a request only gets its `Principal`.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Iterable, Sequence

from yunmo.core.access import KeyRecord, Principal, authenticate, principal_of
from yunmo.core.errors import Unauthenticated, Unavailable
from yunmo.serving.http import Headers, Request

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_BROWSER_PAGE = re.compile(
    r"/docs(/.*)?|/openapi\.json|/api/v1/runs/[^/]+/report|/api/v1/models/[^/]+/[^/]+/report", re.ASCII
)
_MAX_CREDENTIALS = 512


class Keyring:
    """The keys that are valid now. None are known (`ready` is False) until the first snapshot was read."""

    def __init__(self) -> None:
        self._records: dict[str, KeyRecord] = {}
        self._principals: dict[str, Principal] = {}
        self.ready = False

    def replace(self, records: Iterable[KeyRecord]) -> None:
        """Take the keys of a new snapshot; keys that are not among them are worth nothing from now on."""
        self._records = {record.prefix: record for record in records}
        self._principals = {prefix: principal_of(record) for prefix, record in self._records.items()}
        self.ready = True

    def principal(self, key: str) -> Principal | None:
        """Return whom a key belongs to, None if it is not valid."""
        record = authenticate(key, self._records, now=time.time())
        return self._principals[record.prefix] if record is not None else None

    def admit(self, key: str | None) -> Principal:
        """Return whom a request comes from.

        Args:
            key: as it was sent; None: there was none, or more than one.

        Raises:
            Unavailable: no keys are known yet.
            Unauthenticated: no valid key.
        """
        if not self.ready:
            raise Unavailable("the service is starting and knows no keys yet", remedy="Try again in a moment")
        principal = self.principal(key) if key is not None else None
        if principal is None:
            raise _refusal(key)
        return principal


class Gate:
    """Lets requests in that have a valid key, whatever their path."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def enter(self, request: Request) -> None:
        """Give a request its `Principal`; the open paths need none.

        Raises:
            Unavailable: no keys are known yet.
            Unauthenticated: no key, more than one, or none that is valid.
        """
        if request.path in OPEN_PATHS:
            return
        principal = self._keyring.admit(_credentials(request))
        request.facts["key_id"] = principal.key_id
        request.principal = principal


def challenge(request: Request) -> Headers:
    """Return what a refused client is told of how to authenticate (RFC 9110, 11.6.1)."""
    bearer = ("www-authenticate", 'Bearer realm="yunmo"')
    return (bearer, ("www-authenticate", 'Basic realm="yunmo", charset="UTF-8"')) if _browser(request) else (bearer,)


def _browser(request: Request) -> bool:
    """Say whether a person may look at this page, and so may give the key as a password (RFC 7617)."""
    return request.method in ("GET", "HEAD") and _BROWSER_PAGE.fullmatch(request.path) is not None


def bearer(values: Sequence[str]) -> str | None:
    """Return the key of the values of "authorization"; None if there is none, or more than one."""
    if len(values) != 1 or len(values[0]) > _MAX_CREDENTIALS:
        return None
    scheme, _, rest = values[0].partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else None


def _credentials(request: Request) -> str | None:
    """Return the key of the Authorization header; a browser may send it as a password."""
    values = request.header_values("authorization")
    key = bearer(values)
    if key is not None or len(values) != 1 or len(values[0]) > _MAX_CREDENTIALS:
        return key
    scheme, _, rest = values[0].partition(" ")
    if scheme.lower() == "basic" and _browser(request):
        try:
            return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return None
    return None


def _refusal(key: str | None) -> Unauthenticated:
    if key is None:
        return Unauthenticated("this needs a key", remedy="Send the header 'Authorization: Bearer ym_...'")
    return Unauthenticated("the key is not valid", remedy="It may have expired or been revoked; ask for another")
