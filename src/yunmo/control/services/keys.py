"""API keys: made, listed, revoked. Only a hash of the secret is kept."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from sqlalchemy import select

from yunmo.control.context import Context
from yunmo.control.services.publisher import Publisher
from yunmo.control.services.workers import WorkerStates
from yunmo.core.access import DEFAULT_PROJECT, SCOPES, hash_key, key_prefix, new_key
from yunmo.core.errors import Conflict, InvalidInput, NotFound, SettingsError
from yunmo.core.events import KeyChanged
from yunmo.core.ids import check_name, new_id
from yunmo.core.resources import CreatedKey, Key, NewKey
from yunmo.store.tables import KeyRow

_MAX_NAME = 128


class Keys:
    """The keys of projects."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._publisher = Publisher(context)
        self._workers = WorkerStates(context)

    def start(self) -> None:
        """Register the workspace's own key, by which the command line works here, and publish."""
        self._register_workspace_key()
        self._publisher.publish()

    def create(self, project_id: str, request: NewKey) -> CreatedKey:
        """Make a key; its secret is in the answer and nowhere else. Every data worker knows it then.

        Raises:
            InvalidInput: an unknown scope, an endpoint name that is none, or no time to live.
        """
        _check(request)
        created = self._insert(project_id, request)
        self._workers.wait_keys(self._publisher.publish())
        self._context.events.emit(project_id, created.key.id, KeyChanged(key_id=created.key.id, change="created"))
        return created

    def create_first(self, project_id: str) -> CreatedKey:
        """Make the first key of an installation, for a person; the workspace's own does not count.

        Raises:
            Conflict: a key was made before, even if it was revoked since.
        """
        with self._context.database.read() as session:
            if session.scalar(select(KeyRow.id).where(KeyRow.internal.is_(False)).limit(1)) is not None:
                raise Conflict("the first key was made before", remedy="Make another with `yunmo keys create`")
        return self.create(project_id, NewKey(name="first", scopes=["admin", "predict"]))

    def list(self, project_id: str) -> list[Key]:
        """Return the keys that were not revoked."""
        query = select(KeyRow).where(KeyRow.project_id == project_id, KeyRow.revoked_at.is_(None))
        with self._context.database.read() as session:
            return [_resource(row) for row in session.scalars(query.order_by(KeyRow.id))]

    def revoke(self, project_id: str, key_id: str) -> None:
        """End a key's life at once.

        Raises:
            NotFound: the project has no such key.
            Conflict: it is the workspace's own.
        """
        with self._context.database.write() as session:
            row = session.get(KeyRow, key_id)
            if row is None or row.project_id != project_id or row.revoked_at is not None:
                raise NotFound(f"there is no key {key_id!r}", remedy="List them with `yunmo keys ls`")
            if row.internal:
                raise Conflict(
                    "this is the workspace's own key, by which `yunmo` works here",
                    remedy="To replace it, remove workspace.key in the workspace and start again",
                )
            row.revoked_at = time.time()
        self._workers.wait_keys(self._publisher.publish())
        self._context.events.emit(project_id, key_id, KeyChanged(key_id=key_id, change="revoked"))

    def _insert(self, project_id: str, request: NewKey) -> CreatedKey:
        secret, prefix, digest = new_key()
        now = time.time()
        row = KeyRow(
            id=new_id("key"),
            project_id=project_id,
            created_at=now,
            name=request.name,
            prefix=prefix,
            hash=digest,
            scopes=_in_order(request.scopes),
            endpoints=request.endpoints,
            expires_at=now + request.expires_in if request.expires_in is not None else None,
            internal=False,
        )
        with self._context.database.write() as session:
            session.add(row)
        return CreatedKey(secret=secret, key=_resource(row))

    def _register_workspace_key(self) -> None:
        secret = self._context.workspace.workspace_key()
        prefix = key_prefix(secret)
        if prefix is None:
            raise SettingsError(
                "holds no key",
                where=str(self._context.workspace.home / "workspace.key"),
                remedy="Remove the file; another is made",
            )
        with self._context.database.write() as session:
            # Whoever removes the file ends the old key's life.
            for row in session.scalars(select(KeyRow).where(KeyRow.internal.is_(True), KeyRow.revoked_at.is_(None))):
                if row.hash == hash_key(secret):
                    return
                row.revoked_at = time.time()
            session.add(
                KeyRow(
                    id=new_id("key"),
                    project_id=DEFAULT_PROJECT,
                    created_at=time.time(),
                    name="workspace",
                    prefix=prefix,
                    hash=hash_key(secret),
                    scopes=["admin", "predict"],
                    internal=True,
                )
            )


def _check(request: NewKey) -> None:
    if not request.name.strip() or len(request.name) > _MAX_NAME:
        raise InvalidInput(f"a key's name has 1 to {_MAX_NAME} characters", where="name")
    if not request.scopes:
        raise InvalidInput("a key needs a scope", where="scopes", remedy=f"Known: {', '.join(SCOPES)}")
    for scope in request.scopes:
        if scope not in SCOPES:
            raise InvalidInput(f"unknown scope {scope!r}", where="scopes", remedy=f"Known: {', '.join(SCOPES)}")
    for endpoint in request.endpoints or ():
        check_name(endpoint, "endpoint")
    if request.expires_in is not None and not (math.isfinite(request.expires_in) and request.expires_in > 0):
        raise InvalidInput("must be more than 0 seconds", where="expires_in")


def _in_order(scopes: Sequence[str]) -> list[str]:
    return [scope for scope in SCOPES if scope in scopes]


def _resource(row: KeyRow) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        scopes=list(row.scopes),
        endpoints=list(row.endpoints) if row.endpoints is not None else None,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
