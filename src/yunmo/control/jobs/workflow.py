"""A run from its beginning to its end: the steps, what each leaves, and how a run ends."""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec

from yunmo.control.jobs.execution import Execution, Outcome
from yunmo.control.jobs.process import Child, ChildDied
from yunmo.control.jobs.steps import BUNDLE, ORDER, Order
from yunmo.control.services.models import Models
from yunmo.control.services.runs import LOG, REPORT, REPORT_PAGE, embedding_files
from yunmo.core.errors import BundleError, TrainingFailed
from yunmo.core.events import (
    AnyEvent,
    EpochFinished,
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
from yunmo.core.recipe import pretrained_encoders, recipe_from
from yunmo.core.resources import SplitFile
from yunmo.store.tables import DatasetRow, RunRow


class RunExecution(Execution):
    """One attempt at a run; its events tell what it does."""

    kind = "run"
    table = RunRow
    steps = ("prepare", "train", "evaluate", "pack", "sign", "register")
    kept = frozenset({LOG, REPORT, REPORT_PAGE})
    failed = TrainingFailed
    remedy = "If memory ran out, take a smaller batch_size or network; see `yunmo runs logs`"

    def _do(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        if name == "sign":
            return self._sign()
        if name == "register":
            return self._register(given)
        result = self._in_child(name)
        if name == "train":
            self._note(resolved=result["resolved"])  # with thresholds of labels, which training chose last
        if name == "evaluate":
            self._note(summary=result["summary"])
        return result

    def _timed(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        self._emit(StepStarted(step=name))
        result = self._do(name, given)
        self._emit(StepFinished(step=name, seconds=time.monotonic() - began))
        return result

    def _began(self) -> None:
        self._emit(RunStarted(attempt=self._attempt))

    def _ended(self, status: str, outcome: Outcome) -> None:
        event: AnyEvent
        if status == "queued":
            event = RunQueued(name=self._name)
        elif status == "cancelled":
            event = RunCancelled()
        elif status == "failed":
            event = RunFailed(problem=outcome["problem"])
        else:
            event = RunFinished(**outcome["result"])
        last = self._context.events.last(self._id)
        if last is None or last.event != event:
            self._emit(event)

    def _died(self, death: ChildDied) -> None:
        message = f"the process {death.reason()}; it goes on from its checkpoint"
        self._emit(RunNotice(message=message, level="warning"))

    def _told(self, event: AnyEvent) -> None:
        if isinstance(event, RecipeResolved):
            self._note(resolved=event.recipe)
        if isinstance(event, EpochFinished) and event.epoch <= self._last_epoch():
            return  # a training that goes on tells of its epochs again
        self._emit(event)

    def _last_epoch(self) -> int:
        """Return the last epoch that was told of, 0 if none was."""
        last = self._context.events.last(self._id, str(EpochFinished.__struct_config__.tag))
        return last.event.epoch if last is not None and isinstance(last.event, EpochFinished) else 0

    def _start_child(self) -> Child:
        with self._context.database.read() as session:
            row = session.get_one(RunRow, self._id)
            dataset = session.get_one(DatasetRow, row.dataset_id)
        recipe = recipe_from(row.recipe)
        cores = recipe.train.threads or self._context.settings.threads or len(os.sched_getaffinity(0))
        order = Order(
            name=row.name,
            recipe=row.recipe,
            target=row.target,
            splits={split: str(self._linked(split, SplitFile(**file))) for split, file in dataset.splits.items()},
            pretrained={
                encoder.digest: str(self._context.artefacts.local_path(encoder.digest))
                for _, encoder in pretrained_encoders(recipe)
                if encoder.digest is not None
            },
            cores=cores,
            max_pixels=self._context.settings.max_pixels,
            embeddings={
                name: str(self._linked(f"embeddings-{index}", file))
                for index, (name, file) in enumerate(embedding_files(recipe).items())
            },
        )
        write_atomic(self._folder / ORDER, msgspec.json.encode(order))
        return Child(self._folder, self._folder / LOG, cores, self.kind)

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
            row = session.get_one(RunRow, self._id)
            summary = dict(row.summary or {})
            version, model = Models(self._context).add_version(
                session,
                self._project_id,
                self._name,
                digest=signed["digest"],
                artefact=signed["artefact"],
                summary=summary,
                run_id=self._id,
            )
            return {"model": model.name, "version": version.version, "summary": summary}

    def _emit(self, event: AnyEvent) -> None:
        self._context.events.emit(self._project_id, self._id, event)
