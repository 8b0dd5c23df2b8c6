"""Publishing: what data workers need to know, as one atomic, numbered snapshot."""

from __future__ import annotations

import time

import msgspec
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from yunmo.control.context import Context
from yunmo.control.services.placement import placement
from yunmo.core.access import DEFAULT_PROJECT, KeyRecord
from yunmo.core.files import write_atomic
from yunmo.core.snapshot import Deployment, Snapshot, Variant, encode_snapshot
from yunmo.store.tables import CounterRow, EndpointRow, KeyRow, ModelRow, VersionRow

_COUNTER = "snapshot"


class Publisher:
    """Writes snapshots; each has a higher number than all before it, also after a restart or a lost file."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def publish(self) -> int:
        """Write down keys and deployments as they are now; return the snapshot's number.

        Raises:
            StorageFull: no space left; the last snapshot stays in force.
        """
        trusted_key = self._context.trusted_key()
        # The file is written while the metadata's write lock is held: a later snapshot can't be overtaken by an
        # earlier one.
        with self._context.database.write() as session:
            number = self._next_number(session)
            snapshot = Snapshot(
                number=number,
                keys=tuple(_keys(session)),
                deployments=tuple(self._deployments(session)),
                trusted_key=trusted_key,
            )
            write_atomic(self._context.workspace.snapshot_path, encode_snapshot(snapshot), mode=0o600)
        return number

    def _next_number(self, session: Session) -> int:
        path = self._context.workspace.snapshot_path
        published = _number(path.read_bytes()) if path.exists() else 0
        row = session.get(CounterRow, (DEFAULT_PROJECT, _COUNTER))
        if row is None:
            row = CounterRow(project_id=DEFAULT_PROJECT, name=_COUNTER, value=0)
            session.add(row)
        row.value = max(row.value, published) + 1
        return row.value

    def _deployments(self, session: Session) -> list[Deployment]:
        return [self._deployment(session, row) for row in session.scalars(select(EndpointRow).order_by(EndpointRow.id))]

    def _deployment(self, session: Session, row: EndpointRow) -> Deployment:
        wanted = placement(row)
        variants = []
        for role, version_id, weight, until in wanted.parts(time.time(), self._context.settings.standby_seconds):
            version = session.get_one(VersionRow, version_id)
            variants.append(
                Variant(
                    model=session.get_one(ModelRow, version.model_id).name,
                    version=version.version,
                    digest=version.digest,
                    path=str(self._context.workspace.bundle_folder(version.digest)),
                    weight=weight,
                    role=role,
                    until=until,
                )
            )
        return Deployment(row.name, row.project_id, tuple(variants), wanted.limits, wanted.sticky)


def _number(snapshot: bytes) -> int:
    """Return the number of a snapshot, also of one that another version of Yunmo wrote; 0 if it is damaged."""
    try:
        return msgspec.json.decode(snapshot, type=_Numbered).number
    except msgspec.MsgspecError:
        return 0


class _Numbered(msgspec.Struct):
    number: int


def _keys(session: Session) -> list[KeyRecord]:
    valid = or_(KeyRow.expires_at.is_(None), KeyRow.expires_at > time.time())
    rows = session.scalars(select(KeyRow).where(KeyRow.revoked_at.is_(None), valid).order_by(KeyRow.id))
    return [
        KeyRecord(
            id=row.id,
            project_id=row.project_id,
            name=row.name,
            prefix=row.prefix,
            hash=row.hash,
            scopes=tuple(row.scopes),
            endpoints=tuple(row.endpoints) if row.endpoints is not None else None,
            created_at=row.created_at,
            expires_at=row.expires_at,
        )
        for row in rows
    ]
