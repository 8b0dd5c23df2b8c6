from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yunmo.core.errors import Cancelled
from yunmo.core.events import RunNotice
from yunmo.core.recipe import Recipe, recipe_from
from yunmo.data.limits import DEFAULT_LIMITS
from yunmo.data.prepare import prepare
from yunmo.training.cross_validate import cross_validate
from yunmo.training.loop import train


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table whose kind follows from a number, by and by less so."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    dice = np.random.default_rng(0)
    rows = [f"{day},{x:.4f},{'ab'[int(x > 0)]}" for day, x in enumerate(dice.normal(size=180))]
    path.write_text("\n".join(["day,x,kind", *rows]), encoding="utf-8")
    return path


def resolved(table: Path, folder: Path, **spec: Any) -> Recipe:
    """Return the recipe of a training, everything decided."""
    recipe = recipe_from(
        {
            "data": {"train": str(table)},
            "inputs": [{"name": "x", "type": "number"}],
            "outputs": [{"name": "kind", "type": "category"}],
            "train": {"epochs": 3, "batch_size": 32, "threads": 1, "precision": "fp32"},
            "evaluate": {"cross_validation": spec} if spec else {},
        }
    )
    data = prepare(recipe, {"train": table}, folder / "data")
    folder.joinpath("training").mkdir()
    return train(data, data.recipe, folder / "training").recipe


def run(recipe: Recipe, table: Path, folder: Path, told: list[str], stop_after: int = 99) -> Any:
    def emit(event: Any) -> None:
        assert isinstance(event, RunNotice)
        told.append(event.message)

    return cross_validate(
        recipe,
        {"train": table},
        folder,
        emit=emit,
        cancelled=lambda: len(told) >= stop_after,
        cores=1,
        limits=DEFAULT_LIMITS,
    )


def test_mean_and_deviation_of_the_folds_and_stopped_it_goes_on(table: Path, tmp_path: Path) -> None:
    recipe = resolved(table, tmp_path, folds=3)
    told: list[str] = []
    with pytest.raises(Cancelled):
        run(recipe, table, tmp_path / "folds", told, stop_after=1)
    assert len(told) == 1
    found = run(recipe, table, tmp_path / "folds", told)
    assert [line.partition(":")[0] for line in told] == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3"]
    assert sum(found["rows"]) == 180 - 36
    for metric in ("accuracy", "f1", "log_loss"):
        values = found["outputs"]["kind"][metric]
        assert len(set(values["values"])) > 1
        assert values["mean"] == pytest.approx(statistics.fmean(values["values"]))
        assert values["deviation"] == pytest.approx(statistics.stdev(values["values"]))
    assert found == run(recipe, table, tmp_path / "again", [])
    assert {path.name for path in (tmp_path / "folds" / "fold-1").iterdir()} == {"done.json"}


def test_by_time_the_first_fold_may_have_less_than_a_batch(table: Path, tmp_path: Path) -> None:
    found = run(resolved(table, tmp_path, folds=5, method="time", column="day"), table, tmp_path / "folds", [])
    assert (found["method"], found["column"], found["rows"]) == ("time", "day", [24] * 5)


def test_without_it_nothing_is_done(table: Path, tmp_path: Path) -> None:
    assert run(resolved(table, tmp_path), table, tmp_path / "folds", []) is None
    assert not (tmp_path / "folds").exists()
