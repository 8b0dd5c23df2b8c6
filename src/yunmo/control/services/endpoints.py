"""Endpoints: deployed, rolled back, taken away. An answer means that every data worker does as told."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from yunmo.control.context import Context
from yunmo.control.services import models
from yunmo.control.services.placement import ALL, Placement, placement, write
from yunmo.control.services.publisher import Publisher
from yunmo.control.services.workers import WorkerStates, has_loaded, is_isolated
from yunmo.core.errors import Conflict, InvalidInput, NotFound, YunmoError
from yunmo.core.events import EndpointChanged, RoutedVersion
from yunmo.core.ids import check_name, new_id
from yunmo.core.resources import Endpoint, EndpointLimits, EndpointVersion, NewDeployment
from yunmo.core.schema import Spec, convert
from yunmo.core.snapshot import Limits, Role, Sticky, WorkerState, endpoint_key
from yunmo.store.tables import EndpointRow, ModelRow, VersionRow

_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
"""Changes of one endpoint follow each other: each waits for the workers, and may be taken back. Those of others don't
wait for it, so that one endpoint can be rolled back while another's model loads."""


class Options(Spec, frozen=True):
    """What an endpoint's settings may be; null is the default."""

    concurrency: int | None = None
    queue: int | None = None
    timeout: float | None = None
    sticky: Sticky | None = None


class Endpoints:
    """The endpoints of projects."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._publisher = Publisher(context)
        self._workers = WorkerStates(context)

    def list(self, project_id: str) -> list[Endpoint]:
        """Return all endpoints by name."""
        query = select(EndpointRow).where(EndpointRow.project_id == project_id).order_by(EndpointRow.name)
        states = self._workers.live()
        with self._context.database.read() as session:
            return [_resource(session, row, states) for row in session.scalars(query)]

    def get(self, project_id: str, name: str) -> Endpoint:
        """Return an endpoint.

        Raises:
            NotFound: there is none of this name.
        """
        states = self._workers.live()
        with self._context.database.read() as session:
            return _resource(session, _find(session, project_id, name), states)

    def deploy(self, project_id: str, name: str, request: NewDeployment) -> Endpoint:
        """Give a model version an endpoint's traffic, a share of it, or its shadow's place.

        All traffic makes the endpoint if it is new, and ends what was tried beside the live version; so the canary's
        version is promoted by this. It returns when every live data worker does so. If one refuses the version, or
        does not say so in time, everything is as it was before.

        Raises:
            NotFound: there is no such version, or no endpoint to try it at.
            Conflict: the live version was named as canary or shadow.
            InvalidInput: a share that is none.
            BundleError: its bundle is refused, here or by a worker.
            DeadlineExceeded: a worker did not load it in time.
        """
        check_name(name, "endpoint")
        _check_request(request)
        with _alone(project_id, name):
            with self._context.database.read() as session:
                version, _ = models.find_reference(session, project_id, request.model)
                row = session.scalar(_query(project_id, name))
                before = placement(row) if row else None
            after = _deployed(name, before, version.id, request)
            self._context.verified_bundle(version.digest, version.artefact)
            change = "canary" if request.canary is not None else "shadow" if request.shadow else "deployed"
            return self._apply(project_id, name, before, after, change, version.digest)

    def rollback(self, project_id: str, name: str) -> Endpoint:
        """Take canary and shadow away; without one, send the traffic back to the version before.

        The version before is still loaded for a while, so this waits for no load then.

        Raises:
            NotFound: there is no such endpoint.
            Conflict: it has had one version only.
            BundleError: as `deploy`.
            DeadlineExceeded: as `deploy`.
        """
        with _alone(project_id, name):
            with self._context.database.read() as session:
                before = placement(_find(session, project_id, name))
                try:
                    after = before.rolled_back(time.time())
                except Conflict as error:
                    raise Conflict(f"endpoint {name!r} has had no other version", where=name) from error
                version = session.get_one(VersionRow, after.version_id)
            if not has_loaded(self._workers.live(), endpoint_key(project_id, name), version.digest):
                self._context.verified_bundle(version.digest, version.artefact)
            return self._apply(project_id, name, before, after, "rolled_back", version.digest)

    def change(self, project_id: str, name: str, options: Mapping[str, Any]) -> Endpoint:
        """Change an endpoint's limits and stickiness; what is not named stays.

        Args:
            project_id: whose.
            name: of the endpoint.
            options: some of ``concurrency``, ``queue``, ``timeout`` and ``sticky``; None resets.

        Raises:
            NotFound: there is no such endpoint.
            InvalidInput: a value that does not fit.
            DeadlineExceeded: a worker did not take it in time; then it is as before.
        """
        convert(dict(options), Options, what="settings")
        values = {key: options[key] for key in options if key != "sticky"}
        convert(values, Limits, what="settings")
        with _alone(project_id, name):
            with self._context.database.read() as session:
                before = placement(_find(session, project_id, name))
            sticky = (options["sticky"] or "request") if "sticky" in options else before.sticky
            after = replace(before, **values, sticky=sticky)
            return self._apply(project_id, name, before, after, "settings", None)

    def delete(self, project_id: str, name: str) -> None:
        """Take an endpoint away; the model stays.

        Raises:
            NotFound: there is no such endpoint.
        """
        with _alone(project_id, name):
            with self._context.database.write() as session:
                row = _find(session, project_id, name)
                endpoint_id, before = row.id, placement(row)
                session.delete(row)
            number = self._publisher.publish()
            self._emit(
                project_id, endpoint_id, EndpointChanged(name, "deleted", (), before.limits, before.sticky, number)
            )
            self._workers.wait_gone(endpoint_key(project_id, name))

    def _apply(
        self, project_id: str, name: str, before: Placement | None, after: Placement, change: Any, digest: str | None
    ) -> Endpoint:
        """Write a placement down, publish it and wait for the workers; take it back if one refuses."""
        self._set(project_id, name, after)
        try:
            number = self._publisher.publish()
            self._workers.wait(number, endpoint_key(project_id, name), digest)
        except YunmoError:
            self._set(project_id, name, before)
            self._publisher.publish()
            raise
        endpoint = self.get(project_id, name)
        event = EndpointChanged(name, change, _versions(endpoint), after.limits, after.sticky, number)
        self._emit(project_id, endpoint.id, event)
        return endpoint

    def _emit(self, project_id: str, endpoint_id: str, event: EndpointChanged) -> None:
        self._context.events.emit(project_id, endpoint_id, event)

    def _set(self, project_id: str, name: str, wanted: Placement | None) -> None:
        now = time.time()
        with self._context.database.write() as session:
            row = session.scalar(_query(project_id, name))
            if wanted is None:
                if row is not None:
                    session.delete(row)
                return
            if row is None:
                row = EndpointRow(id=new_id("ep"), project_id=project_id, created_at=now, name=name)
                session.add(row)
            write(row, wanted)
            row.updated_at = now


@contextlib.contextmanager
def _alone(project_id: str, name: str) -> Iterator[None]:
    with _locks[endpoint_key(project_id, name)]:
        yield


def _check_request(request: NewDeployment) -> None:
    if request.canary is None:
        return
    if request.shadow:
        raise InvalidInput("a version is either canary or shadow", where="canary", remedy="Leave one of them out")
    if not 1 <= request.canary < ALL:
        raise InvalidInput(
            f"{request.canary} is not a canary's share",
            where="canary",
            remedy="Name 1 to 99 percent; for all traffic leave canary out",
        )


def _deployed(name: str, before: Placement | None, version_id: str, request: NewDeployment) -> Placement:
    if request.canary is None and not request.shadow:
        return before.with_live(version_id, time.time()) if before else Placement(version_id)
    if before is None:
        raise NotFound(
            f"there is no endpoint {name!r} to try a version at",
            where=name,
            remedy="Deploy its first version without canary and shadow",
        )
    try:
        if request.canary is not None:
            return before.with_canary(version_id, request.canary)
        return before.with_shadow(version_id)
    except Conflict as error:
        raise Conflict(error.message, where=name, remedy=error.remedy) from error


def _query(project_id: str, name: str) -> Select[EndpointRow]:
    return select(EndpointRow).where(EndpointRow.project_id == project_id, EndpointRow.name == name)


def _find(session: Session, project_id: str, name: str) -> EndpointRow:
    row = session.scalar(_query(project_id, name))
    if row is None:
        raise NotFound(f"there is no endpoint {name!r}", remedy="List them with `yunmo endpoints ls`")
    return row


def _versions(endpoint: Endpoint) -> tuple[RoutedVersion, ...]:
    parts: dict[Role, EndpointVersion | None] = {
        "live": endpoint.live,
        "canary": endpoint.canary,
        "shadow": endpoint.shadow,
    }
    return tuple(
        RoutedVersion(role, part.model, part.version, part.weight) for role, part in parts.items() if part is not None
    )


def _resource(session: Session, row: EndpointRow, states: Sequence[WorkerState]) -> Endpoint:
    key = endpoint_key(row.project_id, row.name)

    def part(version_id: str, weight: int) -> EndpointVersion:
        version = session.get_one(VersionRow, version_id)
        model = session.get_one(ModelRow, version.model_id)
        ready = has_loaded(states, key, version.digest)
        isolated = is_isolated(states, key, version.digest)
        return EndpointVersion(model.name, version.version, version.digest, weight, ready, isolated)

    canary_weight = row.canary_weight or 0 if row.canary_id else 0
    live = part(row.version_id, ALL - canary_weight)
    canary = part(row.canary_id, canary_weight) if row.canary_id else None
    shadow = part(row.shadow_id, ALL) if row.shadow_id else None
    return Endpoint(
        id=row.id,
        name=row.name,
        live=live,
        canary=canary,
        shadow=shadow,
        previous=part(row.previous_id, 0) if row.previous_id else None,
        limits=EndpointLimits(row.concurrency, row.queue, row.timeout),
        sticky=placement(row).sticky,
        ready=all(each.ready for each in (live, canary, shadow) if each is not None),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
