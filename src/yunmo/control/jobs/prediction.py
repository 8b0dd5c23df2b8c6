"""A job from its beginning to its end: the answers to every row of a dataset, and the dataset version they become."""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec
from sqlalchemy import select

from yunmo.control.jobs.answering import Order
from yunmo.control.jobs.execution import Execution
from yunmo.control.jobs.process import Child
from yunmo.control.jobs.steps import ORDER
from yunmo.control.services.datasets import Datasets
from yunmo.control.services.jobs import ANSWERS
from yunmo.control.services.runs import LOG
from yunmo.core.errors import ModelFailed, NotFound
from yunmo.core.events import AnyEvent, JobProgress
from yunmo.core.files import write_atomic
from yunmo.core.resources import NewDataset, SplitFile
from yunmo.store.tables import DatasetRow, EndpointRow, JobRow, VersionRow

_NOTE_SECONDS = 0.5
"""How often the progress is written down."""


class JobExecution(Execution):
    """One attempt at a job. Its rows are answered by a child process, without torch, from the signed bundle."""

    kind = "job"
    table = JobRow
    steps = ("answer", "register")
    kept = frozenset({LOG})
    failed = ModelFailed
    remedy = "If memory ran out, give the data in smaller files; what is answered is kept for `yunmo jobs resume`"

    _noted = 0.0
    _gone = False

    def _do(self, name: str, given: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - the steps need nothing
        if name == "register":
            return self._register()
        self._check_endpoint()
        result = self._in_child(name)
        # The child may have ended well just when it was told to stop because of this.
        self._check_endpoint()
        self._note(done=result["rows"], rows=result["rows"])
        return result

    def _in_child(self, name: str) -> dict[str, Any]:
        try:
            return super()._in_child(name)
        finally:
            if self._gone:
                self._check_endpoint()

    def _to_stop(self) -> bool:
        self._gone = not self._has_endpoint()
        return self._gone or super()._to_stop()

    def _told(self, event: AnyEvent) -> None:
        if isinstance(event, JobProgress) and time.monotonic() - self._noted > _NOTE_SECONDS:
            self._noted = time.monotonic()
            self._note(done=event.done, updated_at=time.time())

    def _start_child(self) -> Child:
        with self._context.database.read() as session:
            row = session.get_one(JobRow, self._id)
            version = session.get_one(VersionRow, row.version_id)
            dataset = session.get_one(DatasetRow, row.dataset_id)
        settings = self._context.settings
        cores = settings.threads or len(os.sched_getaffinity(0))
        file = SplitFile(**dataset.splits[row.split])
        order = Order(
            bundle=str(self._context.bundle(version.digest, version.artefact)),
            digest=version.digest,
            public_key=self._context.trusted_key(),
            data=str(self._linked(row.split, file)),
            data_digest=file.digest,
            cores=cores,
            max_pixels=settings.max_pixels,
        )
        write_atomic(self._folder / ORDER, msgspec.json.encode(order))
        return Child(self._folder, self._folder / LOG, cores, self.kind)

    def _register(self) -> dict[str, Any]:
        """Make the answers a version of their dataset; the same bytes are the same version, however often."""
        datasets = Datasets(self._context)
        kept = datasets.keep(self._project_id, self._folder / ANSWERS)
        file = SplitFile(digest=kept.digest, filename=f"{self._name}.csv")
        made = datasets.create(self._project_id, NewDataset(name=self._name, splits={"train": file}))
        self._note(output_id=made.id)
        return {"output": f"{made.name}:{made.version}"}

    def _has_endpoint(self) -> bool:
        with self._context.database.read() as session:
            job = select(JobRow.endpoint_id).where(JobRow.id == self._id).scalar_subquery()
            return session.scalar(select(EndpointRow.id).where(EndpointRow.id == job)) is not None

    def _check_endpoint(self) -> None:
        if not self._has_endpoint():
            raise NotFound("the endpoint was taken away before the job had ended", remedy="Deploy it, and begin anew")
