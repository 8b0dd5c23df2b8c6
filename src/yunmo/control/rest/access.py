"""Who may call a route: every route takes a principal by one of these types, and so names its scope."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

import msgspec
from fastapi import Depends, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from yunmo.core.access import Principal, Scope
from yunmo.core.errors import Forbidden, InternalError, Unauthenticated

_SCOPE_KEY = "yunmo.principal"
_HEADER = "x-yunmo-principal"


class Scoped:
    """Dependency that lets only principals with a scope pass."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Principal:
        """Return the principal.

        Raises:
            Unauthenticated: nobody was let in by the gate.
            Forbidden: the principal lacks the scope.
        """
        principal = _principal(request)
        if not principal.may(self.scope):
            raise Forbidden(f"this needs a key with the scope {self.scope!r}", remedy="Ask an administrator for one")
        return principal


Reader = Annotated[Principal, Depends(Scoped("read"))]
Writer = Annotated[Principal, Depends(Scoped("write"))]
Admin = Annotated[Principal, Depends(Scoped("admin"))]


def check_routes(app: FastAPI) -> None:
    """Refuse an application with a route that names no scope.

    Raises:
        InternalError: there is one; it is named.
    """
    for route in app.routes:
        if not isinstance(route, APIRoute) or not _is_scoped(route.dependant):
            raise InternalError(f"the route {getattr(route, 'path', route)!r} names no scope")


def _is_scoped(dependant: Dependant) -> bool:
    return any(isinstance(each.call, Scoped) for each in dependant.dependencies)


def _principal(request: Request) -> Principal:
    """Return whom the gate let in: in this process by the ASGI scope, else by the header that it alone can set."""
    principal = request.scope.get(_SCOPE_KEY)
    if isinstance(principal, Principal):
        return principal
    header = request.headers.get(_HEADER)
    if header is None:
        raise Unauthenticated("this needs a key", remedy="Send the header 'Authorization: Bearer ym_...'")
    try:
        return msgspec.json.decode(base64.b64decode(header, validate=True), type=Principal)
    except (binascii.Error, msgspec.MsgspecError) as error:
        raise Unauthenticated("the principal cannot be read") from error
