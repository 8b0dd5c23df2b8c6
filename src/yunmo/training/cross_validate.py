"""Cross-validation: the same recipe trained once for each fold, never on or with the test rows.

Each fold is prepared anew, so that statistics, too, are learned from its training rows alone.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from yunmo.core.events import AnyEvent, RunNotice
from yunmo.core.files import write_atomic
from yunmo.core.recipe import METRICS, CrossValidationSpec, Recipe
from yunmo.data.folds import Fold
from yunmo.data.limits import Limits
from yunmo.data.prepare import prepare
from yunmo.models.answers import answer, load_network
from yunmo.training.evaluate import evaluate, predict_split
from yunmo.training.loop import train

_BATCH = 256

Values = dict[str, dict[str, float | None]]
"""By output and metric."""


def cross_validate(
    recipe: Recipe,
    splits: Mapping[str, Path],
    folder: Path,
    *,
    emit: Callable[[AnyEvent], None],
    cancelled: Callable[[], bool],
    cores: int | None,
    limits: Limits,
    embeddings: Mapping[str, Path] | None = None,
    pretrained: Mapping[str, Path] | None = None,
) -> dict[str, Any] | None:
    """Train and measure each fold; called again in the same folder, it goes on where it was stopped.

    Args:
        recipe: resolved: every fold has the same network and settings.
        splits: the file of each split; the test's is not opened.
        folder: for the folds' data and training; what is large is removed once a fold is measured.
        emit: gets a `RunNotice` for each fold.
        cancelled: asked often; True stops, and what is done stays.
        cores: processor cores it may use; None: all.
        limits: how much the files may hold.
        embeddings: as `prepare` takes them.
        pretrained: as for `prepare`.

    Returns:
        ``method``, ``column``, ``folds``, the ``rows`` held out in each, and for every output and metric (as METRICS
        names them) ``mean``, ``deviation`` (the sample's) and the ``values`` of the folds; None if the recipe asks for
        no cross-validation. A metric that a fold could not measure is None there, and left out of the mean.

    Raises:
        DataError: the folds cannot be made.
        TrainingFailed: as `train`.
        Cancelled: ``cancelled`` answered True.
        StorageFull: no space left.
    """
    spec = recipe.evaluate.cross_validation
    if spec is None:
        return None
    found: list[dict[str, Any]] = []
    for number in range(spec.folds):
        place = folder / f"fold-{number + 1}"
        done = place / "done.json"
        if not done.is_file():
            place.mkdir(parents=True, exist_ok=True)
            fold = Fold(number, without_test="test" not in splits)
            measured = _measure(recipe, splits, place, fold, cancelled, cores, limits, embeddings, pretrained)
            write_atomic(done, msgspec.json.encode(measured))
            for each in ("data", "training"):
                shutil.rmtree(place / each, ignore_errors=True)
            emit(RunNotice(message=_told(spec, number, measured)))
        found.append(msgspec.json.decode(done.read_bytes()))
    return _summary(spec, found)


def _measure(
    recipe: Recipe,
    splits: Mapping[str, Path],
    place: Path,
    fold: Fold,
    cancelled: Callable[[], bool],
    cores: int | None,
    limits: Limits,
    embeddings: Mapping[str, Path] | None,
    pretrained: Mapping[str, Path] | None,
) -> dict[str, Any]:
    """Prepare, train and measure one fold."""
    given = {split: path for split, path in splits.items() if split != "test"}
    data = prepare(
        recipe,
        given,
        place / "data",
        cancelled=cancelled,
        limits=limits,
        fold=fold,
        embeddings=embeddings,
        pretrained=pretrained,
    )
    folder = place / "training"
    folder.mkdir(exist_ok=True)
    result = train(data, _fitting(data.recipe, data.rows["train"]), folder, cancelled=cancelled, cores=cores)
    network = load_network(result.recipe, data.statistics, result.weights)
    answers = predict_split(partial(answer, network), data.inputs("test"), _BATCH)
    outputs = result.recipe.outputs or ()
    measured = evaluate(outputs, data.statistics, data.outputs("test"), answers)
    values: Values = {
        name: {metric: metrics.get(metric) for metric in METRICS[metrics["type"]]} for name, metrics in measured.items()
    }
    return {"rows": data.rows["test"], "values": values}


def _fitting(recipe: Recipe, rows: int) -> Recipe:
    """Return the recipe with batches no larger than a fold's training rows; by time, the first fold has few."""
    batch = recipe.train.batch_size
    if not isinstance(batch, int) or batch <= rows:
        return recipe
    return msgspec.structs.replace(recipe, train=msgspec.structs.replace(recipe.train, batch_size=rows))


def _told(spec: CrossValidationSpec, number: int, measured: Mapping[str, Any]) -> str:
    parts = []
    for output, metrics in measured["values"].items():
        name, value = next(iter(metrics.items()))
        parts.append(f"{output} {name} {value:.4g}" if value is not None else f"{output} {name} unknown")
    return f"fold {number + 1} of {spec.folds}: {', '.join(parts)} on {measured['rows']:,} rows"


def _summary(spec: CrossValidationSpec, found: list[dict[str, Any]]) -> dict[str, Any]:
    outputs: dict[str, dict[str, Any]] = {}
    for output, metrics in found[0]["values"].items():
        outputs[output] = {}
        for metric in metrics:
            values = [fold["values"][output][metric] for fold in found]
            known = [value for value in values if value is not None]
            outputs[output][metric] = {
                "mean": statistics.fmean(known) if known else None,
                "deviation": statistics.stdev(known) if len(known) > 1 else None,
                "values": values,
            }
    rows = [fold["rows"] for fold in found]
    return {"method": spec.method, "column": spec.column, "folds": spec.folds, "rows": rows, "outputs": outputs}
