"""Routes of keys."""

from __future__ import annotations

from fastapi import FastAPI

from yunmo.control.context import Context
from yunmo.control.rest.access import Admin
from yunmo.control.services.keys import Keys
from yunmo.core.resources import CreatedKey, Key, NewKey


def add_routes(app: FastAPI, prefix: str, context: Context) -> None:
    """Add the routes to an application."""
    keys = Keys(context)

    @app.post(f"{prefix}/keys", status_code=201, tags=["keys"])
    def create_key(request: NewKey, principal: Admin) -> CreatedKey:
        """Make a key; its secret is in this answer and never shown again."""
        return keys.create(principal.project_id, request)

    @app.post(f"{prefix}/keys/first", status_code=201, tags=["keys"])
    def create_first_key(principal: Admin) -> CreatedKey:
        """Make the first key of an installation; a conflict if there ever was one."""
        return keys.create_first(principal.project_id)

    @app.get(f"{prefix}/keys", tags=["keys"])
    def list_keys(principal: Admin) -> list[Key]:
        """List the keys, without their secrets."""
        return keys.list(principal.project_id)

    @app.delete(f"{prefix}/keys/{{key_id}}", status_code=204, tags=["keys"])
    def revoke_key(key_id: str, principal: Admin) -> None:
        """End a key's life at once."""
        keys.revoke(principal.project_id, key_id)
