"""Jobs: predictions of whole datasets; accepted, listed, cancelled, resumed. The runner carries them out."""

from __future__ import annotations

import time
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from yunmo.control.context import Context
from yunmo.control.services import datasets, work
from yunmo.core.access import Principal
from yunmo.core.errors import Forbidden, InvalidInput, NotFound
from yunmo.core.ids import check_name, new_id
from yunmo.core.resources import Job, NewJob, RunStatus
from yunmo.store.tables import DatasetRow, EndpointRow, JobRow, ModelRow, VersionRow

ANSWERS = "answers.csv"
"""The file in a job's folder that its answers grow in."""
_NAME_LENGTH = 64
_SUFFIX = "-answers"


class Jobs:
    """The jobs of projects."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def create(self, principal: Principal, endpoint: str, request: NewJob) -> Job:
        """Accept a job; it waits for the runner from then on. Model and dataset version are fixed now.

        Args:
            principal: who asks; it may have to call the endpoint, beside making datasets.
            endpoint: its name.
            request: what is to be answered.

        Raises:
            Forbidden: the key may not call endpoints.
            NotFound: no such endpoint (or none that this key may know of), dataset or split.
            InvalidInput: a name that is none.
        """
        project_id = principal.project_id
        if not principal.may("predict"):
            raise Forbidden("this key may not call endpoints", remedy="Use a key with the scope 'predict' as well")
        if not principal.may_call(endpoint):
            raise _no_endpoint(endpoint)
        with self._context.database.write() as session:
            found = _endpoint(session, project_id, endpoint)
            dataset = datasets.find_reference(session, project_id, request.dataset)
            if request.split not in dataset.splits:
                raise NotFound(
                    f"{dataset.name}:{dataset.version} has no split {request.split!r}",
                    where="split",
                    remedy=f"It has: {', '.join(dataset.splits)}",
                )
            name = request.name or dataset.name[: _NAME_LENGTH - len(_SUFFIX)].rstrip("._-") + _SUFFIX
            if request.name == dataset.name:
                raise InvalidInput("the answers would become a version of the data itself", where="name")
            now = time.time()
            row = JobRow(
                id=new_id("job"),
                project_id=project_id,
                created_at=now,
                updated_at=now,
                status="queued",
                attempt=1,
                cancel_requested=False,
                endpoint_id=found.id,
                endpoint=found.name,
                version_id=found.version_id,
                dataset_id=dataset.id,
                split=request.split,
                name=check_name(name, "dataset"),
                rows=int(dataset.rows.get(request.split, 0)),
                done=0,
            )
            session.add(row)
            session.flush()
            return resource(session, row)

    def list(self, project_id: str, endpoint: str, *, limit: int = 1000) -> list[Job]:
        """Return the newest jobs of an endpoint, newest first; also of one that is gone.

        Raises:
            NotFound: there is no such endpoint, and there was no job of it.
        """
        query = select(JobRow).where(JobRow.project_id == project_id, JobRow.endpoint == endpoint)
        with self._context.database.read() as session:
            found = list(session.scalars(query.order_by(JobRow.id.desc()).limit(limit)))
            if not found:
                _endpoint(session, project_id, endpoint)
            return [resource(session, row) for row in found]

    def get(self, project_id: str, endpoint: str, job_id: str) -> Job:
        """Return a job.

        Raises:
            NotFound: the endpoint has none of this id.
        """
        with self._context.database.read() as session:
            return resource(session, _find(session, project_id, endpoint, job_id))

    def cancel(self, project_id: str, endpoint: str, job_id: str) -> Job:
        """Stop a job; what is answered is kept, and it can be resumed.

        Raises:
            NotFound: the endpoint has none of this id.
            Conflict: it has ended already.
        """
        with self._context.database.write() as session:
            row = _find(session, project_id, endpoint, job_id)
            work.cancel(row, "job")
            return resource(session, row)

    def resume(self, project_id: str, endpoint: str, job_id: str) -> Job:
        """Let a failed or cancelled job go on after the last row that was kept.

        Raises:
            NotFound: the endpoint has none of this id.
            Conflict: it has succeeded.
        """
        with self._context.database.write() as session:
            row = _find(session, project_id, endpoint, job_id)
            work.resume(row, "job")
            return resource(session, row)


def _endpoint(session: Session, project_id: str, name: str) -> EndpointRow:
    query = select(EndpointRow).where(EndpointRow.project_id == project_id, EndpointRow.name == name)
    row = session.scalar(query)
    if row is None:
        raise _no_endpoint(name)
    return row


def _no_endpoint(name: str) -> NotFound:
    return NotFound(f"there is no endpoint {name[:100]!r}", remedy="See 'yunmo endpoints ls'")


def _find(session: Session, project_id: str, endpoint: str, job_id: str) -> JobRow:
    row = session.get(JobRow, job_id)
    if row is None or row.project_id != project_id or row.endpoint != endpoint:
        raise NotFound(f"there is no job {job_id[:100]!r} of endpoint {endpoint[:100]!r}")
    return row


def resource(session: Session, row: JobRow) -> Job:
    """Return the resource of a row."""
    version = session.get_one(VersionRow, row.version_id)
    output = session.get_one(DatasetRow, row.output_id) if row.output_id else None
    dataset = session.get_one(DatasetRow, row.dataset_id)
    return Job(
        id=row.id,
        endpoint=row.endpoint,
        model=session.get_one(ModelRow, version.model_id).name,
        version=version.version,
        dataset=f"{dataset.name}:{dataset.version}",
        split=row.split,
        status=cast(RunStatus, row.status),
        rows=row.rows,
        done=row.done,
        output=f"{output.name}:{output.version}" if output else None,
        problem=row.problem,
        attempt=row.attempt,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
