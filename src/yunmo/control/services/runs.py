"""Runs: accepted, listed, cancelled, resumed. Carrying them out is the runner's (`yunmo.control.jobs`).

A run that is to be carried out is a row with the status ``queued``: the row is the order itself, written in one
transaction, so that no crash can leave a run that nobody knows of or one that is carried out twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from yunmo.control.context import Context
from yunmo.control.services import datasets, work
from yunmo.core.errors import NotFound, RecipeError
from yunmo.core.events import RunCancelled, RunQueued
from yunmo.core.fields import TextField
from yunmo.core.ids import check_name, new_id
from yunmo.core.recipe import Recipe, pretrained_encoders, recipe_data, recipe_from
from yunmo.core.resources import NewRun, Run, RunStatus, SplitFile
from yunmo.store.tables import DatasetRow, ModelRow, RunRow, VersionRow

REPORT = "report.json"
REPORT_PAGE = "report.html"
LOG = "log.txt"
_CHUNK = 2**16


class Runs:
    """The runs of projects."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def create(self, project_id: str, request: NewRun) -> Run:
        """Accept a run; it waits for the runner from then on.

        Raises:
            RecipeError: the recipe does not fit, or names files instead of a dataset.
            NotFound: there is no such dataset, or no such file of embeddings or pretrained encoder was uploaded.
        """
        recipe = recipe_from(request.recipe)
        if recipe.data.dataset is None:
            raise RecipeError(
                "names files, which only their owner can read", where="recipe, data", remedy="Upload them as a dataset"
            )
        for name, file in embedding_files(recipe).items():
            datasets.Datasets(self._context).checked_file(project_id, file, f"recipe, input {name}, embeddings")
        self._check_pretrained(project_id, recipe)
        now = time.time()
        with self._context.database.write() as session:
            dataset = datasets.find_reference(session, project_id, recipe.data.dataset)
            name = check_name(recipe.name or dataset.name, "model")
            # The very version is fixed now, whatever is added to the dataset while the run waits.
            data = msgspec.structs.replace(recipe.data, dataset=f"{dataset.name}:{dataset.version}")
            row = RunRow(
                id=new_id("run"),
                project_id=project_id,
                created_at=now,
                updated_at=now,
                name=name,
                status="queued",
                dataset_id=dataset.id,
                target=request.target,
                recipe=recipe_data(msgspec.structs.replace(recipe, name=name, data=data)),
                attempt=1,
                cancel_requested=False,
            )
            session.add(row)
            session.flush()
            run = resource(session, row)
            # Within the transaction: without its first event there is no run.
            self._context.events.emit(project_id, run.id, RunQueued(name=name))
        return run

    def list(self, project_id: str, *, limit: int = 1000) -> list[Run]:
        """Return the newest runs, newest first."""
        query = select(RunRow).where(RunRow.project_id == project_id).order_by(RunRow.id.desc()).limit(limit)
        with self._context.database.read() as session:
            return [resource(session, row) for row in session.scalars(query)]

    def get(self, project_id: str, run_id: str) -> Run:
        """Return a run.

        Raises:
            NotFound: the project has none of this id.
        """
        with self._context.database.read() as session:
            return resource(session, _find(session, project_id, run_id))

    def cancel(self, project_id: str, run_id: str) -> Run:
        """Stop a run: at once if it still waits, else after its next step, with a checkpoint. It can be resumed.

        Raises:
            NotFound: the project has none of this id.
            Conflict: it has ended already.
        """
        with self._context.database.write() as session:
            row = _find(session, project_id, run_id)
            waiting = work.cancel(row, "run")
            run = resource(session, row)
        if waiting:
            self._context.events.emit(project_id, run_id, RunCancelled())
        return run

    def resume(self, project_id: str, run_id: str) -> Run:
        """Let a failed or cancelled run go on from its last checkpoint.

        One that waits or runs stays as it is: whoever resumes a run whose process was killed has started the runner
        with that, and it has taken the run up by itself.

        Raises:
            NotFound: the project has none of this id.
            Conflict: it has succeeded.
        """
        with self._context.database.write() as session:
            row = _find(session, project_id, run_id)
            stopped = work.resume(row, "run")
            run = resource(session, row)
            if stopped:
                self._context.events.emit(project_id, run_id, RunQueued(name=run.name))
        return run

    def report(self, project_id: str, run_id: str) -> dict[str, Any]:
        """Return a run's report.

        Raises:
            NotFound: the project has no such run, or it has no report yet.
        """
        report: dict[str, Any] = msgspec.json.decode(self._file(project_id, run_id, REPORT, "report").read_bytes())
        return report

    def report_page(self, project_id: str, run_id: str) -> str:
        """Return a run's report as one HTML page; otherwise as `report`."""
        return self._file(project_id, run_id, REPORT_PAGE, "report").read_text(encoding="utf-8")

    def log(self, project_id: str, run_id: str) -> Iterator[bytes]:
        """Return what a run's process wrote, in portions.

        Raises:
            NotFound: the project has no such run, or it has not started.
        """
        path = self._file(project_id, run_id, LOG, "log")

        def chunks() -> Iterator[bytes]:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk

        return chunks()

    def _check_pretrained(self, project_id: str, recipe: Recipe) -> None:
        """Refuse a folder that was not uploaded: no path of a recipe is ever opened here."""
        for index, encoder in pretrained_encoders(recipe):
            where = f"recipe, inputs[{index}].encoder"
            if encoder.digest is None:
                raise RecipeError(
                    "names a folder, which only its owner can read",
                    where=where,
                    remedy="Upload what pack_pretrained makes of it, and write its digest; `yunmo train` does",
                )
            file = SplitFile(digest=encoder.digest, filename="encoder.zip", size=0)
            datasets.Datasets(self._context).checked_file(project_id, file, where)

    def _file(self, project_id: str, run_id: str, name: str, what: str) -> Path:
        run = self.get(project_id, run_id)
        path = self._context.workspace.runs_folder(run.id) / name
        if not path.is_file():
            raise NotFound(f"the run has no {what} (it is {run.status})", where=run_id)
        return path


def embedding_files(recipe: Recipe) -> dict[str, SplitFile]:
    """Return the uploaded file of each text that begins with vectors learned elsewhere.

    Raises:
        RecipeError: the recipe names a file that was not uploaded. No path of a recipe is ever opened here.
    """
    found = {}
    for field in recipe.inputs or ():
        if isinstance(field, TextField) and field.embeddings is not None:
            if field.embeddings.digest is None:
                raise RecipeError(
                    "names a file, which only its owner can read",
                    where=f"recipe, input {field.name}, embeddings",
                    remedy="Upload it (POST /uploads), and write its digest beside its name",
                )
            found[field.name] = SplitFile(digest=field.embeddings.digest, filename=field.embeddings.file)
    return found


def _find(session: Session, project_id: str, run_id: str) -> RunRow:
    row = session.get(RunRow, run_id)
    if row is None or row.project_id != project_id:
        raise NotFound(f"there is no run {run_id!r}", remedy="List them with `yunmo runs ls`")
    return row


def resource(session: Session, row: RunRow) -> Run:
    """Return the resource of a row."""
    dataset = session.get_one(DatasetRow, row.dataset_id)
    version = session.scalar(select(VersionRow).where(VersionRow.run_id == row.id))
    model = session.get_one(ModelRow, version.model_id).name if version else None
    return Run(
        id=row.id,
        name=row.name,
        status=cast(RunStatus, row.status),
        dataset=f"{dataset.name}:{dataset.version}",
        recipe=row.recipe,
        resolved=row.resolved,
        model=model,
        version=version.version if version else None,
        summary=row.summary,
        problem=row.problem,
        attempt=row.attempt,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
