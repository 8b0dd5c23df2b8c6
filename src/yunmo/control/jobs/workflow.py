"""A run from its beginning to its end: the steps, what each leaves, and how a run ends.

Every method is a step that can be called again after it was done: a runner that was killed calls the last one anew.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import select

from yunmo.control.context import Context
from yunmo.control.jobs.process import Child, ChildDied
from yunmo.control.jobs.steps import BUNDLE, ORDER, Order
from yunmo.control.services.models import Models
from yunmo.control.services.runs import LOG, REPORT, REPORT_PAGE
from yunmo.core.errors import (
    BundleError,
    Cancelled,
    InternalError,
    NotFound,
    TrainingFailed,
    YunmoError,
    problem,
)
from yunmo.core.events import (
    AnyEvent,
    RecipeResolved,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunNotice,
    RunQueued,
    RunStarted,
    StepFinished,
    StepStarted,
)
from yunmo.core.files import write_atomic
from yunmo.core.recipe import recipe_from
from yunmo.core.resources import SplitFile
from yunmo.store.tables import DatasetRow, RunRow

STEPS = ("prepare", "train", "evaluate", "pack", "sign", "register")
_TRIES = 2
_KEPT = frozenset({LOG, REPORT, REPORT_PAGE})
"""Files of a run's folder that outlive it."""

_logger = logging.getLogger("yunmo.runner")

Outcome = dict[str, Any]
"""What a step comes to: ``{"result": …}``, ``{"problem": …}``, or ``{"interrupted": true}``. Plain JSON."""


class Interrupted(Exception):
    """The runner is stopping; the run goes on when it starts again."""


class Execution:
    """One attempt at a run, within the runner.

    Args:
        context: the workspace.
        run_id: the run.
        attempt: which attempt at it, from 1.
        stopping: says whether the runner is to stop.
    """

    def __init__(self, context: Context, run_id: str, attempt: int, stopping: Callable[[], bool]) -> None:
        self._context = context
        self._run_id = run_id
        self._attempt = attempt
        self._stopping = stopping
        self._folder = context.workspace.runs_folder(run_id)
        self._child: Child | None = None
        with context.database.read() as session:
            row = session.get(RunRow, run_id)
            if row is None:
                raise NotFound(f"there is no run {run_id!r}")
            self._project_id, self._name = row.project_id, row.name

    def begin(self) -> Outcome:
        """Mark the run as running; the result is None if it is no longer to be carried out."""
        with self._context.database.write() as session:
            row = session.get_one(RunRow, self._run_id)
            if row.status not in ("queued", "running") or row.attempt != self._attempt:
                return {"result": None}
            row.status, row.updated_at = "running", time.time()
        self._emit(RunStarted(attempt=self._attempt))
        return {"result": {}}

    def step(self, name: str, given: dict[str, Any]) -> Outcome:
        """Do a step.

        Args:
            name: one of `STEPS`.
            given: the result of the step before it.
        """
        began = time.monotonic()
        try:
            self._check()
            self._emit(StepStarted(step=name))
            result = self._do(name, given)
            self._emit(StepFinished(step=name, seconds=time.monotonic() - began))
        except Interrupted:
            return {"interrupted": True}
        except YunmoError as error:
            return {"problem": problem(error)}
        except Exception:
            _logger.exception("run %s, step %s failed", self._run_id, name)
            hidden = InternalError(
                f"the step {name} failed",
                remedy="See the log of the service (without one: session.log in the workspace)",
            )
            return {"problem": problem(hidden)}
        return {"result": result}

    def end(self, outcome: Outcome) -> None:
        """Write down how the attempt ended, and tell; by then its process has ended too."""
        self.close()
        status, event = self._ending(outcome)
        found = outcome.get("problem") if status == "failed" else None
        with self._context.database.write() as session:
            row = session.get_one(RunRow, self._run_id)
            if row.attempt != self._attempt:
                return
            row.status, row.problem, row.updated_at, row.cancel_requested = status, found, time.time(), False
            if status == "queued":
                row.attempt += 1
        if status == "succeeded":
            self._clear()
        last = self._context.events.last(self._run_id)
        if last is None or last.event != event:
            self._emit(event)

    def _ending(self, outcome: Outcome) -> tuple[str, AnyEvent]:
        if "interrupted" in outcome:
            return "queued", RunQueued(name=self._name)
        if "problem" in outcome:
            if outcome["problem"]["code"] == Cancelled.code:
                return "cancelled", RunCancelled()
            return "failed", RunFailed(problem=outcome["problem"])
        return "succeeded", RunFinished(**outcome["result"])

    def _clear(self) -> None:
        """Remove the caches and checkpoints of a run that is over; its model and report are in the bundle."""
        for path in self._folder.iterdir():
            if path.name not in _KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def _do(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        if name == "sign":
            return self._sign()
        if name == "register":
            return self._register(given)
        return self._in_child(name)

    def _in_child(self, name: str) -> dict[str, Any]:
        for last in (False, True):
            try:
                if self._child is None:
                    self._child = self._start_child()
                result = self._child.step(name, self._told, self._to_stop)
            except ChildDied as death:
                self.close()
                if self._stopping():
                    raise Interrupted from None
                if last:
                    raise TrainingFailed(
                        f"the process of the run {death.reason()}, {_TRIES} times in the step {name}",
                        remedy="If memory ran out, take a smaller batch_size or network; see `yunmo runs logs`",
                    ) from None
                self._emit(
                    RunNotice(message=f"the process {death.reason()}; it goes on from its checkpoint", level="warning")
                )
            except Cancelled:
                if self._stopping():
                    raise Interrupted from None
                raise
            else:
                if name == "evaluate":
                    self._note(summary=result["summary"])
                return result
        raise TrainingFailed("the process of the run cannot be started")

    def _start_child(self) -> Child:
        with self._context.database.read() as session:
            row = session.get_one(RunRow, self._run_id)
            dataset = session.get_one(DatasetRow, row.dataset_id)
        recipe = recipe_from(row.recipe)
        cores = recipe.train.threads or self._context.settings.threads or len(os.sched_getaffinity(0))
        order = Order(
            name=row.name,
            recipe=row.recipe,
            target=row.target,
            splits={split: str(self._linked(split, SplitFile(**file))) for split, file in dataset.splits.items()},
            cores=cores,
            max_pixels=self._context.settings.max_pixels,
        )
        write_atomic(self._folder / ORDER, msgspec.json.encode(order))
        return Child(self._folder, self._folder / LOG, cores)

    def _linked(self, split: str, file: SplitFile) -> Path:
        """Give a split's file the name that its owner knows, so that messages name it so."""
        folder = self._folder / "input" / split
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / file.filename
        path.unlink(missing_ok=True)
        path.symlink_to(self._context.artefacts.local_path(file.digest))
        return path

    def _told(self, event: AnyEvent) -> None:
        if isinstance(event, RecipeResolved):
            self._note(resolved=event.recipe)
        self._emit(event)

    def _sign(self) -> dict[str, Any]:
        """Sign the bundle and keep its archive; one that is signed already stays as it is."""
        from yunmo.bundle.archive import export
        from yunmo.bundle.files import bundle_digest
        from yunmo.bundle.sign import sign
        from yunmo.bundle.verify import verify

        folder = self._folder / BUNDLE
        private, public = self._context.signing_keys()
        trusted = public.read_text(encoding="ascii")
        try:
            verify(folder, trusted)
        except BundleError:
            sign(folder, private)
            verify(folder, trusted)
        archive = self._folder / "bundle.zip"
        export(folder, archive)
        stored = self._context.artefacts.put_file(archive)
        archive.unlink()
        digest = bundle_digest(folder)
        self._context.bundle(digest, stored.digest)
        return {"digest": digest, "artefact": stored.digest}

    def _register(self, signed: dict[str, Any]) -> dict[str, Any]:
        """Make the bundle the next version of its model, in one transaction and once only."""
        with self._context.database.write() as session:
            row = session.get_one(RunRow, self._run_id)
            summary = dict(row.summary or {})
            version, model = Models(self._context).add_version(
                session,
                self._project_id,
                self._name,
                digest=signed["digest"],
                artefact=signed["artefact"],
                summary=summary,
                run_id=self._run_id,
            )
            return {"model": model.name, "version": version.version, "summary": summary}

    def _check(self) -> None:
        # An attempt that broke off may come back when the runner starts again, beside the one that followed it.
        if self._stopping() or self._outdated():
            raise Interrupted
        if self._cancel_requested():
            raise Cancelled("someone stopped the run")

    def _outdated(self) -> bool:
        with self._context.database.read() as session:
            return session.scalar(select(RunRow.attempt).where(RunRow.id == self._run_id)) != self._attempt

    def _to_stop(self) -> bool:
        return self._stopping() or self._cancel_requested()

    def _cancel_requested(self) -> bool:
        with self._context.database.read() as session:
            return bool(session.scalar(select(RunRow.cancel_requested).where(RunRow.id == self._run_id)))

    def _note(self, **values: Any) -> None:
        with self._context.database.write() as session:
            row = session.get_one(RunRow, self._run_id)
            for name, value in values.items():
                setattr(row, name, value)

    def _emit(self, event: AnyEvent) -> None:
        self._context.events.emit(self._project_id, self._run_id, event)
