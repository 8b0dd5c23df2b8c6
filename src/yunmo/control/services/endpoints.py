"""Endpoints: deployed, rolled back, taken away. An answer means that every data worker does as told."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from yunmo.control.context import Context
from yunmo.control.services import models
from yunmo.control.services.publisher import Publisher
from yunmo.core.errors import BundleError, Conflict, DeadlineExceeded, IntegrityError, NotFound, YunmoError
from yunmo.core.events import EndpointDeployed
from yunmo.core.ids import check_name, new_id
from yunmo.core.resources import Endpoint, NewDeployment
from yunmo.core.snapshot import WorkerState
from yunmo.store.tables import EndpointRow, ModelRow, VersionRow

_POLL_SECONDS = 0.05
_one_at_a_time = threading.Lock()
"""Deployments of one process follow each other: each waits for the workers, and may be taken back."""


@dataclass(frozen=True)
class _Target:
    """What an endpoint's row says: version now, version before."""

    version_id: str
    previous_id: str | None


class Endpoints:
    """The endpoints of projects."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._publisher = Publisher(context)

    def list(self, project_id: str) -> list[Endpoint]:
        """Return all endpoints by name."""
        query = select(EndpointRow).where(EndpointRow.project_id == project_id).order_by(EndpointRow.name)
        states = self._live_workers()
        with self._context.database.read() as session:
            return [_resource(session, row, states) for row in session.scalars(query)]

    def get(self, project_id: str, name: str) -> Endpoint:
        """Return an endpoint.

        Raises:
            NotFound: there is none of this name.
        """
        states = self._live_workers()
        with self._context.database.read() as session:
            return _resource(session, _find(session, project_id, name), states)

    def deploy(self, project_id: str, name: str, request: NewDeployment) -> Endpoint:
        """Send an endpoint's traffic to a model version; the endpoint is made if it is new.

        It returns when every live data worker answers with that version. If one refuses it, or does not say so in
        time, everything is as it was before.

        Raises:
            NotFound: there is no such version.
            BundleError: its bundle is refused, here or by a worker.
            DeadlineExceeded: a worker did not load it in time.
        """
        check_name(name, "endpoint")
        with _one_at_a_time:
            with self._context.database.read() as session:
                version, model = models.find_reference(session, project_id, request.model)
                before = _target(session, project_id, name)
            previous = before.version_id if before else None
            if before and before.version_id == version.id:
                previous = before.previous_id
            return self._switch(project_id, name, version, model, _Target(version.id, previous), before)

    def rollback(self, project_id: str, name: str) -> Endpoint:
        """Send an endpoint's traffic back to the version before; doing it twice changes nothing in the end.

        Raises:
            NotFound: there is no such endpoint.
            Conflict: it has had one version only.
            BundleError: as `deploy`.
            DeadlineExceeded: as `deploy`.
        """
        with _one_at_a_time:
            with self._context.database.read() as session:
                row = _find(session, project_id, name)
                before = _Target(row.version_id, row.previous_id)
                if before.previous_id is None:
                    raise Conflict(f"endpoint {name!r} has had no other version", where=name)
                version = session.get_one(VersionRow, before.previous_id)
                model = session.get_one(ModelRow, version.model_id)
            return self._switch(project_id, name, version, model, _Target(version.id, before.version_id), before)

    def delete(self, project_id: str, name: str) -> None:
        """Take an endpoint away; the model stays.

        Raises:
            NotFound: there is no such endpoint.
        """
        with _one_at_a_time:
            with self._context.database.write() as session:
                session.delete(_find(session, project_id, name))
            number = self._publisher.publish()
            self._await_workers(number, name, None)

    def _switch(
        self,
        project_id: str,
        name: str,
        version: VersionRow,
        model: ModelRow,
        target: _Target,
        before: _Target | None,
    ) -> Endpoint:
        self._check_bundle(version)
        self._set(project_id, name, target)
        try:
            number = self._publisher.publish()
            self._await_workers(number, name, version.digest)
        except YunmoError:
            self._set(project_id, name, before)
            self._publisher.publish()
            raise
        endpoint = self.get(project_id, name)
        self._context.events.emit(
            project_id,
            endpoint.id,
            EndpointDeployed(endpoint=name, model=model.name, version=version.version, snapshot=number),
        )
        return endpoint

    def _check_bundle(self, version: VersionRow) -> None:
        from yunmo.bundle.files import bundle_digest
        from yunmo.bundle.verify import verify

        folder = self._context.bundle(version.digest, version.artefact)
        verify(folder, self._context.trusted_key())
        if bundle_digest(folder) != version.digest:
            raise IntegrityError("another bundle lies in its place", where=str(folder))

    def _set(self, project_id: str, name: str, target: _Target | None) -> None:
        now = time.time()
        with self._context.database.write() as session:
            row = session.scalar(_query(project_id, name))
            if target is None:
                if row is not None:
                    session.delete(row)
            elif row is None:
                session.add(
                    EndpointRow(
                        id=new_id("ep"),
                        project_id=project_id,
                        created_at=now,
                        updated_at=now,
                        name=name,
                        version_id=target.version_id,
                        previous_id=target.previous_id,
                    )
                )
            else:
                row.version_id, row.previous_id, row.updated_at = target.version_id, target.previous_id, now

    def _await_workers(self, number: int, name: str, digest: str | None) -> None:
        """Wait until every live worker has applied a snapshot.

        Raises:
            BundleError: a worker refused the bundle.
            DeadlineExceeded: a worker did not answer in time.
        """
        end = time.monotonic() + self._context.settings.deploy_timeout
        while True:
            states = self._live_workers()
            for state in states:
                if state.snapshot >= number and digest is not None and state.loaded.get(name) != digest:
                    reason = state.failed.get(name, "it gave no reason")
                    raise BundleError(f"a worker refused the bundle: {reason}", where=name)
            waiting = [state.pid for state in states if state.snapshot < number]
            if not waiting:
                return
            if time.monotonic() > end:
                raise DeadlineExceeded(
                    f"worker {waiting[0]} did not take the change within {self._context.settings.deploy_timeout:g} s",
                    where=name,
                    remedy="See its log, or raise the setting deploy_timeout",
                )
            time.sleep(_POLL_SECONDS)

    def _live_workers(self) -> Sequence[WorkerState]:
        states = []
        for path in self._context.workspace.workers_folder.glob("*.json"):
            try:
                state = msgspec.json.decode(path.read_bytes(), type=WorkerState)
            except (OSError, msgspec.MsgspecError):
                continue  # just ended; a file is replaced in one piece, so it is never half there
            if _is_alive(state.pid):
                states.append(state)
        return states


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _query(project_id: str, name: str) -> Select[EndpointRow]:
    return select(EndpointRow).where(EndpointRow.project_id == project_id, EndpointRow.name == name)


def _find(session: Session, project_id: str, name: str) -> EndpointRow:
    row = session.scalar(_query(project_id, name))
    if row is None:
        raise NotFound(f"there is no endpoint {name!r}", remedy="List them with `yunmo endpoints ls`")
    return row


def _target(session: Session, project_id: str, name: str) -> _Target | None:
    row = session.scalar(_query(project_id, name))
    return _Target(row.version_id, row.previous_id) if row else None


def _resource(session: Session, row: EndpointRow, states: Sequence[WorkerState]) -> Endpoint:
    version = session.get_one(VersionRow, row.version_id)
    model = session.get_one(ModelRow, version.model_id)
    previous = None
    if row.previous_id is not None:
        before = session.get_one(VersionRow, row.previous_id)
        previous = f"{session.get_one(ModelRow, before.model_id).name}:{before.version}"
    return Endpoint(
        id=row.id,
        name=row.name,
        model=model.name,
        version=version.version,
        digest=version.digest,
        previous=previous,
        ready=bool(states) and all(state.loaded.get(row.name) == version.digest for state in states),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
