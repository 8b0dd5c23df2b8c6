"""What the runner carries out, be it a run or a job: one attempt, step by step, in a child process where need be.

Every method is a step that can be called again after it was done: a runner that was killed calls the last one anew.
"""

from __future__ import annotations

import logging
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import select

from yunmo.control.context import Context
from yunmo.control.jobs.process import Child, ChildDied
from yunmo.core.errors import Cancelled, InternalError, NotFound, YunmoError, problem
from yunmo.core.events import AnyEvent
from yunmo.core.resources import SplitFile
from yunmo.store.tables import WorkRow

TRIES = 2
"""How often a step is begun whose process dies."""

_logger = logging.getLogger("yunmo.runner")

Outcome = dict[str, Any]
"""What a step comes to: ``{"result": …}``, ``{"problem": …}``, or ``{"interrupted": true}``. Plain JSON."""


class Interrupted(Exception):
    """The runner is stopping; the work goes on when it starts again."""


class Execution(ABC):
    """One attempt at a run or job, within the runner.

    Args:
        context: the workspace.
        work_id: the run or job.
        attempt: which attempt at it, from 1.
        stopping: says whether the runner is to stop.
    """

    kind: ClassVar[str]
    """What it is called in messages; also the name of its durable workflow, which must not change."""
    table: ClassVar[type[WorkRow]]
    steps: ClassVar[tuple[str, ...]]
    kept: ClassVar[frozenset[str]]
    """Files of its folder that outlive it."""
    failed: ClassVar[type[YunmoError]]
    """What it comes to if its process dies and dies again."""
    remedy: ClassVar[str]
    """What can be done about that."""

    def __init__(self, context: Context, work_id: str, attempt: int, stopping: Callable[[], bool]) -> None:
        self._context = context
        self._id = work_id
        self._attempt = attempt
        self._stopping = stopping
        self._folder = context.workspace.runs_folder(work_id)
        self._child: Child | None = None
        with context.database.read() as session:
            row = session.get(self.table, work_id)
            if row is None:
                raise NotFound(f"there is no {self.kind} {work_id!r}")
            self._project_id, self._name = row.project_id, row.name

    def begin(self) -> Outcome:
        """Mark the work as running; the result is None if it is no longer to be carried out."""
        with self._context.database.write() as session:
            row = session.get_one(self.table, self._id)
            if row.status not in ("queued", "running") or row.attempt != self._attempt:
                return {"result": None}
            row.status, row.updated_at = "running", time.time()
        self._began()
        return {"result": {}}

    def step(self, name: str, given: dict[str, Any]) -> Outcome:
        """Do a step.

        Args:
            name: one of `steps`.
            given: the result of the step before it.
        """
        try:
            self._check()
            result = self._timed(name, given)
        except Interrupted:
            return {"interrupted": True}
        except YunmoError as error:
            return {"problem": problem(error)}
        except Exception:
            _logger.exception("%s %s, step %s failed", self.kind, self._id, name)
            hidden = InternalError(
                f"the step {name} failed",
                remedy="See the log of the service (without one: session.log in the workspace)",
            )
            return {"problem": problem(hidden)}
        return {"result": result}

    def end(self, outcome: Outcome) -> None:
        """Write down how the attempt ended, and tell; by then its process has ended too."""
        self.close()
        status = _status(outcome)
        found = outcome.get("problem") if status == "failed" else None
        with self._context.database.write() as session:
            row = session.get_one(self.table, self._id)
            if row.attempt != self._attempt:
                return
            row.status, row.problem, row.updated_at, row.cancel_requested = status, found, time.time(), False
            if status == "queued":
                row.attempt += 1
        if status == "succeeded":
            self._clear()
        self._ended(status, outcome)

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.end()
            self._child = None

    @abstractmethod
    def _do(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """Do a step and return its result."""

    @abstractmethod
    def _start_child(self) -> Child:
        """Start the process that does the heavy steps."""

    def _timed(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        return self._do(name, given)

    @abstractmethod
    def _told(self, event: AnyEvent) -> None:
        """Take an event of the child."""

    def _began(self) -> None:  # noqa: B027 - not all tell it
        """Tell that the attempt began."""

    def _ended(self, status: str, outcome: Outcome) -> None:  # noqa: B027 - as above
        """Tell how the attempt ended."""

    def _died(self, death: ChildDied) -> None:  # noqa: B027 - as above
        """Tell that the child died and is started anew."""

    def _clear(self) -> None:
        """Remove what was needed on the way only."""
        for path in self._folder.iterdir():
            if path.name not in self.kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _in_child(self, name: str) -> dict[str, Any]:
        for last in (False, True):
            try:
                if self._child is None:
                    self._child = self._start_child()
                return self._child.step(name, self._told, self._to_stop)
            except ChildDied as death:
                self.close()
                if self._stopping():
                    raise Interrupted from None
                if last:
                    message = f"the process of the {self.kind} {death.reason()}, {TRIES} times in the step {name}"
                    raise self.failed(message, remedy=self.remedy) from None
                self._died(death)
            except Cancelled:
                if self._stopping():
                    raise Interrupted from None
                raise
        raise self.failed(f"the process of the {self.kind} cannot be started")

    def _linked(self, split: str, file: SplitFile) -> Path:
        """Give a split's file the name that its owner knows, so that messages name it so."""
        folder = self._folder / "input" / split
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / file.filename
        path.unlink(missing_ok=True)
        path.symlink_to(self._context.artefacts.local_path(file.digest))
        return path

    def _check(self) -> None:
        # An attempt that broke off may come back when the runner starts again, beside the one that followed it.
        if self._stopping() or self._outdated():
            raise Interrupted
        if self._cancel_requested():
            raise Cancelled(f"someone stopped the {self.kind}")

    def _outdated(self) -> bool:
        with self._context.database.read() as session:
            return session.scalar(select(self.table.attempt).where(self.table.id == self._id)) != self._attempt

    def _to_stop(self) -> bool:
        return self._stopping() or self._cancel_requested()

    def _cancel_requested(self) -> bool:
        with self._context.database.read() as session:
            return bool(session.scalar(select(self.table.cancel_requested).where(self.table.id == self._id)))

    def _note(self, **values: Any) -> None:
        with self._context.database.write() as session:
            row = session.get_one(self.table, self._id)
            for name, value in values.items():
                setattr(row, name, value)


def _status(outcome: Outcome) -> str:
    if "interrupted" in outcome:
        return "queued"
    if "problem" in outcome:
        return "cancelled" if outcome["problem"]["code"] == Cancelled.code else "failed"
    return "succeeded"
