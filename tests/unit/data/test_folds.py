from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from yunmo.core.errors import DataError, RecipeError
from yunmo.core.recipe import CrossValidationSpec, Recipe, recipe_from
from yunmo.data.folds import Fold, divide
from yunmo.data.prepare import prepare


def where(row: int) -> str:
    return f"t.csv, row {row}"


def divisions(
    spec: CrossValidationSpec, codes: list[int], keys: list[object] | None = None
) -> list[tuple[set[int], set[int]]]:
    found = [
        divide(spec, Fold(number, without_test=False), np.array(codes), keys, 0, where) for number in range(spec.folds)
    ]
    return [(set(stay.tolist()), set(held.tolist())) for stay, held in found]


def test_stratified_folds_hold_each_row_out_once_and_have_each_class() -> None:
    codes = [0] * 40 + [1] * 10
    found = divisions(CrossValidationSpec(folds=5), codes)
    assert sorted(row for _, held in found for row in held) == list(range(50))
    for stay, held in found:
        assert not stay & held
        assert sum(codes[row] for row in held) == 2
    assert found == divisions(CrossValidationSpec(folds=5), codes)


def test_a_group_is_on_one_side_only() -> None:
    keys: list[object] = [f"p{row // 4}" for row in range(60)]
    found = divisions(CrossValidationSpec(folds=3, method="group", column="p"), [row % 2 for row in range(60)], keys)
    assert sorted(row for _, held in found for row in held) == list(range(60))
    for stay, held in found:
        assert not {keys[row] for row in stay} & {keys[row] for row in held}


@pytest.mark.parametrize("form", [float, lambda day: f"{1 + day % 28}.{1 + day // 28}.2024"])
def test_by_time_the_future_is_held_out(form: Callable[[int], object]) -> None:
    days = np.random.default_rng(0).permutation(200)
    found = divisions(CrossValidationSpec(folds=4, method="time", column="t"), [0] * 200, [form(int(d)) for d in days])
    for stay, held in found:
        assert max(days[list(stay)]) < min(days[list(held)])
    assert len({frozenset(held) for _, held in found}) == 4


@pytest.mark.parametrize(
    ("spec", "keys", "message"),
    [
        (CrossValidationSpec(folds=9), None, "9 folds cannot be made"),
        (CrossValidationSpec(folds=3, method="group", column="p"), ["a"] * 6, "3 folds cannot be made|no rows"),
        (CrossValidationSpec(folds=2, method="group", column="p"), ["a", "", "b", "c", "d", "e"], "row 1, p: no group"),
        (CrossValidationSpec(folds=2, method="time", column="p"), [1, 2, None, 4, 5, 6], "row 2, p: no time"),
        (CrossValidationSpec(folds=2, method="time", column="p"), [1, 2, 3, "soon", 5, 6], "'soon' is no number"),
    ],
)
def test_folds_that_cannot_be_made_say_why(spec: CrossValidationSpec, keys: list[object] | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        divisions(spec, [0, 1, 0, 1, 0, 1], keys)


@pytest.mark.parametrize("spec", [{"method": "group"}, {"method": "time"}, {"column": "x"}, {"folds": 1}, {"fold": 3}])
def test_a_recipe_says_its_folds_right(spec: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        recipe_from({"data": {"train": "t.csv"}, "evaluate": {"cross_validation": spec}})


def rows_of(folder: Path, split: str, recipe: Recipe, path: Path, fold: Fold | None) -> set[float]:
    prepared = prepare(recipe, {"train": path}, folder, target="y", fold=fold)
    return set(prepared.inputs(split)["a"].ravel().tolist())


def test_the_test_rows_are_in_no_fold(write_csv: Callable[..., Path], tmp_path: Path) -> None:
    path = write_csv("id,a,y\n" + "".join(f"g{row // 3},{row}.5,{'ab'[row % 2]}\n" for row in range(120)))
    recipe = recipe_from(
        {
            "data": {"train": str(path)},
            "inputs": [{"name": "a", "type": "number"}],
            "evaluate": {"cross_validation": {"folds": 3, "method": "group", "column": "id"}},
        }
    )
    test = rows_of(tmp_path / "main", "test", recipe, path, None)
    train = rows_of(tmp_path / "main", "train", recipe, path, None)
    every = {row + 0.5 for row in range(120)}
    held: list[float] = []
    for number in range(3):
        fold, folder = Fold(number, without_test=True), tmp_path / f"fold-{number}"
        parts = {split: rows_of(folder, split, recipe, path, fold) for split in ("train", "validation", "test")}
        assert not test & set.union(*parts.values())
        assert set.union(*parts.values()) == every - test
        groups = [{value // 3 for value in parts[split]} for split in ("train", "test")]
        assert not groups[0] & groups[1]
        held += parts["test"]
    assert sorted(held) == sorted(every - test)
    assert train
