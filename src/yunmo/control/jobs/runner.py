"""The runner: carries out queued runs and jobs as durable workflows. The only process that launches DBOS."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dbos import DBOS, DBOSConfig, SetWorkflowID
from sqlalchemy import func, select

from yunmo.control.context import Context
from yunmo.control.jobs.execution import Execution, Outcome
from yunmo.control.jobs.prediction import JobExecution
from yunmo.control.jobs.serializer import JsonSerializer
from yunmo.control.jobs.workflow import RunExecution
from yunmo.core.errors import YunmoError
from yunmo.core.events import RunQueued
from yunmo.core.recipe import SCHEMA_VERSION
from yunmo.store.database import database_space
from yunmo.store.tables import RunRow

_POLL_SECONDS = 0.1
_PAUSE_SECONDS = 5.0
"""Between two tries of what failed, such as writing to a disk that is full."""
_PENDING = ("PENDING", "ENQUEUED")
KINDS: dict[str, type[Execution]] = {kind.kind: kind for kind in (RunExecution, JobExecution)}
"""What is carried out, by the prefix of its id. Of each kind there are as many at a time as the setting ``jobs`` says:
a prediction need not wait for a training."""

_logger = logging.getLogger("yunmo.runner")


class Runner:
    """Carries out runs and jobs, in a process of its own or within one that serves itself.

    What is to be carried out is a row with the status queued. The runner gives it a workflow whose id is made of
    the row's and the attempt, so that it can't begin twice. A workflow that a crash cut short goes on at its last step
    when the next runner starts.

    Args:
        context: the workspace. One runner at a time may work on it; the workspace's lock sees to that.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._active: dict[str, Execution | None] = {}
        self._broken: dict[str, int] = {}
        self._dispatcher = threading.Thread(target=self._dispatch, name="yunmo-dispatcher", daemon=True)

    def start(self) -> None:
        """Launch, take up what a crash left unfinished, then what is queued.

        Raises:
            StorageFull: no space left for the tables of durable workflows.
        """
        config: DBOSConfig = {
            "name": "yunmo",
            "system_database_url": self._context.workspace.dbos_url,
            "executor_id": "runner",
            # The recipe's, not Yunmo's: an upgrade must not strand a run.
            "application_version": f"recipe-{SCHEMA_VERSION}",
            "serializer": JsonSerializer(),
            "log_level": "WARNING",
            "enable_otlp": False,
            "notification_listener_polling_interval_sec": 1.0,
        }
        DBOS(config=config)
        _log_as_we_do()
        self._workflows = self._define()
        try:
            with database_space(self._context.workspace.dbos_url.removeprefix("sqlite:///")):
                DBOS.launch()
        except BaseException:
            DBOS.destroy(destroy_registry=True)
            raise
        self._adopt_strays()
        self._dispatcher.start()

    def stop(self) -> None:
        """Stop taking up runs and interrupt the running ones after a checkpoint: they go on at the next start."""
        self._stop.set()
        self._dispatcher.join()
        with self._changed:
            self._changed.wait_for(lambda: not self._active, timeout=self._context.settings.drain_timeout)
            left = [execution for execution in self._active.values() if execution is not None]
        for execution in left:
            # Too slow to stop by itself. Its workflow is unfinished, as after a crash.
            execution.close()
        with self._changed:
            self._changed.wait_for(lambda: not self._active, timeout=self._context.settings.drain_timeout)
        DBOS.destroy(destroy_registry=True)

    def _dispatch(self) -> None:
        pause = _POLL_SECONDS
        while not self._stop.wait(pause):
            pause = _POLL_SECONDS
            try:
                self._queue_broken()
                self._take_up()
            except Exception as error:
                # A runner that no longer looks would leave every later run waiting without a word.
                known = isinstance(error, YunmoError)
                _logger.error("looking for queued runs failed: %s", error, exc_info=not known)
                pause = _PAUSE_SECONDS

    def _queue_broken(self) -> None:
        """Queue anew what broke off because the state of its workflow could not be written."""
        with self._changed:
            broken = dict(self._broken)
        for work_id, attempt in broken.items():
            with self._context.database.write() as session:
                row = session.get_one(_kind(work_id).table, work_id)
                if row.status in ("queued", "running") and row.attempt == attempt:
                    row.status = "queued"
                    # A workflow's id has the attempt in it, and this attempt's is used up.
                    row.attempt += 1
                    if isinstance(row, RunRow):
                        self._context.events.emit(row.project_id, work_id, RunQueued(name=row.name))
            with self._changed:
                self._broken.pop(work_id, None)

    def _take_up(self) -> None:
        for kind in KINDS.values():
            self._take_up_kind(kind)

    def _take_up_kind(self, kind: type[Execution]) -> None:
        table = kind.table
        with self._context.database.read() as session:
            running = session.scalar(select(func.count()).select_from(table).where(table.status == "running")) or 0
            queued = session.execute(
                select(table.id, table.attempt).where(table.status == "queued").order_by(table.id)
            ).all()
        with self._changed:
            active = sum(_kind(work_id) is kind for work_id in self._active)
        room = self._context.settings.jobs - max(running, active)
        for work_id, attempt in queued[: max(0, room)]:
            with self._changed:
                if work_id in self._active:
                    continue
                self._active[work_id] = None
            try:
                with SetWorkflowID(f"{work_id}.{attempt}"):
                    DBOS.start_workflow(self._workflows[kind.kind], work_id, attempt)
            except Exception:
                with self._changed:
                    self._active.pop(work_id, None)
                    self._broken[work_id] = attempt
                raise

    def _adopt_strays(self) -> None:
        """Queue anew what is marked as running though DBOS knows of no unfinished workflow for it."""
        for kind in KINDS.values():
            with self._context.database.write() as session:
                for row in session.scalars(select(kind.table).where(kind.table.status == "running")):
                    status = DBOS.get_workflow_status(f"{row.id}.{row.attempt}")
                    if status is None or status.status not in _PENDING:
                        row.status = "queued"
                        row.attempt += 1

    def _define(self) -> dict[str, Callable[[str, int], Outcome]]:
        """Make the workflows known to DBOS under the names that it keeps, and return them by kind."""

        @DBOS.step(name="begin")
        def begin(work_id: str) -> Outcome:
            return self._execution(work_id).begin()

        @DBOS.step(name="step")
        def step(work_id: str, name: str, given: dict[str, Any]) -> Outcome:
            return self._execution(work_id).step(name, given)

        @DBOS.step(name="end")
        def end(work_id: str, outcome: Outcome) -> None:
            self._execution(work_id).end(outcome)

        def carry_out(work_id: str, attempt: int) -> Outcome:
            with self._carried_out(work_id, attempt):
                outcome = begin(work_id)
                if outcome["result"] is None:
                    return outcome
                for name in _kind(work_id).steps:
                    outcome = step(work_id, name, outcome["result"])
                    if "result" not in outcome:
                        break
                end(work_id, outcome)
                return outcome

        @DBOS.workflow(name=RunExecution.kind)
        def run(run_id: str, attempt: int) -> Outcome:
            return carry_out(run_id, attempt)

        @DBOS.workflow(name=JobExecution.kind)
        def job(job_id: str, attempt: int) -> Outcome:
            return carry_out(job_id, attempt)

        return {RunExecution.kind: run, JobExecution.kind: job}

    @contextmanager
    def _carried_out(self, work_id: str, attempt: int) -> Iterator[None]:
        """Note that a run or job is being carried out, until it is not; then its process ends."""
        execution = None
        try:
            execution = _kind(work_id)(self._context, work_id, attempt, self._stop.is_set)
            with self._changed:
                self._active[work_id] = execution
            yield
        except Exception:
            _logger.exception("the workflow of %s broke off", work_id)
            with self._changed:
                self._broken[work_id] = attempt
            raise
        finally:
            if execution is not None:
                execution.close()
            with self._changed:
                self._active.pop(work_id, None)
                self._changed.notify_all()

    def _execution(self, work_id: str) -> Execution:
        execution = self._active[work_id]
        if execution is None:
            raise RuntimeError(f"{work_id} is not being carried out")
        return execution


def _kind(work_id: str) -> type[Execution]:
    return KINDS[work_id.partition("_")[0]]


def _log_as_we_do() -> None:
    """Send DBOS's log where this process's goes: its own handler writes to standard error, whatever is configured."""
    logger = logging.getLogger("dbos")
    logger.handlers.clear()
    logger.propagate = True
