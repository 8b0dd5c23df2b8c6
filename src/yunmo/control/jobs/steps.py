"""The steps of a run that need torch: prepare, train, evaluate, pack. The child process calls them.

Each can be called again after it was done, killed or cancelled: it finds in the run's folder what is there already.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from yunmo.control.services.runs import REPORT, REPORT_PAGE
from yunmo.core.events import AnyEvent, Decision, EpochFinished, RecipeResolved, RunNotice
from yunmo.core.fields import LabelsOutput
from yunmo.core.files import write_atomic
from yunmo.core.recipe import Recipe, recipe_data, recipe_from
from yunmo.core.schema import Spec

if TYPE_CHECKING:
    from yunmo.data.limits import Limits

ORDER = "order.json"
BUNDLE = "bundle"
LOCK = "lock"

_DATA = "data"
_TRAINING = "training"
_FOLDS = "folds"
_TRAINED = "trained.json"
_BATCH = 256

Emit = Callable[[AnyEvent], None]
Cancelled = Callable[[], bool]


class Order(Spec, frozen=True):
    """What a run's child is to do; the runner writes it into the run's folder."""

    name: str
    recipe: dict[str, Any]
    target: str | None
    splits: dict[str, str]
    """Path of each split's file."""
    cores: int
    max_pixels: int
    embeddings: dict[str, str] = {}
    """Path of the file of vectors of each text that has one."""
    pretrained: dict[str, str] = {}
    """Path of each pretrained encoder's packed folder, by its digest."""


class _Trained(Spec, frozen=True):
    """What later steps need of the training."""

    recipe: dict[str, Any]
    decisions: tuple[Decision, ...]
    history: tuple[EpochFinished, ...]
    seconds: float


@dataclass(frozen=True)
class Run:
    """A run's folder and order, with what its steps tell and ask."""

    folder: Path
    order: Order
    emit: Emit
    cancelled: Cancelled

    def prepare(self) -> dict[str, Any]:
        """Read, clean, split and cache the data."""
        self._prepared()
        return {}

    def train(self) -> dict[str, Any]:
        """Train the network, from the last checkpoint if there is one; return the resolved recipe."""
        from yunmo.training.loop import train

        prepared = self._prepared()
        decisions: tuple[Decision, ...] = ()

        def emit(event: AnyEvent) -> None:
            nonlocal decisions
            if isinstance(event, RecipeResolved):
                decisions = event.decisions
            self.emit(event)

        folder = self.folder / _TRAINING
        folder.mkdir(exist_ok=True)
        result = train(prepared, prepared.recipe, folder, emit=emit, cancelled=self.cancelled, cores=self.order.cores)
        trained = _Trained(
            recipe=recipe_data(result.recipe),
            decisions=(*decisions, *result.decisions),
            history=tuple(result.history),
            seconds=sum(epoch.seconds for epoch in result.history),
        )
        write_atomic(self.folder / _TRAINED, msgspec.json.encode(trained))
        return {"resolved": trained.recipe}

    def evaluate(self) -> dict[str, Any]:
        """Measure the kept network and the baselines on the test split, and write the report; return its summary."""
        from yunmo.training.baselines import baselines
        from yunmo.training.evaluate import evaluate
        from yunmo.training.report import add_texts, make_report, summary
        from yunmo.training.report_html import render_html

        prepared, trained = self._prepared(), self._trained()
        recipe = recipe_from(trained.recipe)
        began = time.monotonic()
        predicted = {split: self._predict(split) for split in ("validation", "test")}
        measured = {
            split: evaluate(recipe.outputs or (), prepared.statistics, prepared.outputs(split), answers)
            for split, answers in predicted.items()
        }
        add_texts(measured["test"], prepared.texts("test"))
        evaluated = time.monotonic()
        against = baselines(prepared)
        report = make_report(
            name=self.order.name,
            recipe=recipe,
            statistics=prepared.statistics,
            rows=prepared.rows,
            cleaning=prepared.cleaning,
            decisions=trained.decisions,
            history=trained.history,
            test=measured["test"],
            validation=measured["validation"],
            baselines=against,
            timing={
                "train": trained.seconds,
                "evaluate": evaluated - began,
                "baselines": time.monotonic() - evaluated,
            },
        )
        report["summary"] = summary(report)
        folds = self._cross_validate(recipe)
        if folds is not None:
            report["cross_validation"] = folds
        write_atomic(self.folder / REPORT_PAGE, render_html(report).encode())
        write_atomic(self.folder / REPORT, msgspec.json.encode(report))
        return {"summary": report["summary"]}

    def pack(self) -> dict[str, Any]:
        """Export the network, prove that the packed model answers the same, and seal the bundle."""
        from yunmo.packaging.pack import pack

        recipe = recipe_from(self._trained().recipe)
        report: dict[str, Any] = msgspec.json.decode((self.folder / REPORT).read_bytes())
        page = (self.folder / REPORT_PAGE).read_text(encoding="utf-8")
        weights = self.folder / _TRAINING / "weights.safetensors"
        prepared = self._prepared()
        held_out = prepared.inputs("validation"), prepared.outputs("validation")
        out = self.folder / BUNDLE
        pack(prepared, recipe, weights, report, page, out, name=self.order.name, validation=held_out)
        if recipe.pack.precision != "fp32":
            told = report["decisions"][-1]
            self.emit(RunNotice(message=f"{told['key']} {told['value']}: {told['reason']}"))
        return {}

    def _cross_validate(self, recipe: Recipe) -> dict[str, Any] | None:
        from yunmo.training.cross_validate import cross_validate

        # A threshold was chosen on validation rows, which a fold may hold out: each fold chooses its own.
        asked = {output.name: output for output in self._prepared().recipe.outputs}
        outputs = tuple(
            msgspec.structs.replace(output, threshold=asked[output.name].threshold)
            if isinstance(output, LabelsOutput)
            else output
            for output in recipe.outputs or ()
        )
        return cross_validate(
            msgspec.structs.replace(recipe, outputs=outputs),
            self._files(),
            self.folder / _FOLDS,
            emit=self.emit,
            cancelled=self.cancelled,
            cores=self.order.cores,
            limits=self._limits(),
            embeddings=self._embeddings(),
            pretrained=self._pretrained(),
        )

    def _files(self) -> dict[str, Path]:
        return {split: Path(path) for split, path in self.order.splits.items()}

    def _embeddings(self) -> dict[str, Path]:
        return {name: Path(path) for name, path in self.order.embeddings.items()}

    def _pretrained(self) -> dict[str, Path]:
        return {digest: Path(path) for digest, path in self.order.pretrained.items()}

    def _limits(self) -> Limits:
        from yunmo.data.limits import Limits

        return Limits(pixels=self.order.max_pixels)

    def _prepared(self) -> Any:
        from yunmo.data.prepare import prepare

        return prepare(
            recipe_from(self.order.recipe),
            self._files(),
            self.folder / _DATA,
            target=self.order.target,
            emit=self.emit,
            cancelled=self.cancelled,
            limits=self._limits(),
            embeddings=self._embeddings(),
            pretrained=self._pretrained(),
        )

    def _trained(self) -> _Trained:
        return msgspec.json.decode((self.folder / _TRAINED).read_bytes(), type=_Trained)

    def _predict(self, split: str) -> dict[str, Any]:
        """Answer a split with the kept network, in full precision."""
        from yunmo.models.answers import answer, load_network
        from yunmo.training.evaluate import predict_split

        prepared, recipe = self._prepared(), recipe_from(self._trained().recipe)
        network = load_network(recipe, prepared.statistics, self.folder / _TRAINING / "weights.safetensors")
        return predict_split(partial(answer, network), prepared.inputs(split), _BATCH)


STEPS: dict[str, Callable[[Run], dict[str, Any]]] = {
    "prepare": Run.prepare,
    "train": Run.train,
    "evaluate": Run.evaluate,
    "pack": Run.pack,
}
"""What the child can do, in the order of a run."""
