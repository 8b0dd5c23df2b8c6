from pathlib import Path

import numpy as np
import pytest

from yunmo.core.errors import DataError
from yunmo.core.fields import TextField
from yunmo.core.recipe import recipe_from
from yunmo.data.fields.text import TextField as OpenedText
from yunmo.data.prepare import prepare
from yunmo.data.sample import CHARACTERS, FEWEST_ROWS, MOST_ROWS, TEXT_ROWS, Sample, rows_enough

ROWS = 12_000


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12,000 rows, each known by its number; one label in a hundred is rare."""
    lines = ["x,y,label"]
    lines += [f"{row},{row % 7},{'rare' if row % 100 == 0 else 'ab'[row % 2]}" for row in range(ROWS)]
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_sample_knows_all_rows_and_takes_its_test_rows_from_the_test(table: Path, tmp_path: Path) -> None:
    recipe = recipe_from({"data": {"train": "x"}, "inputs": [{"name": "x", "type": "number", "scale": "none"}]})
    sample = Sample()
    whole = prepare(recipe, {"train": table}, tmp_path / "whole", target="label")
    part = prepare(recipe, {"train": table}, tmp_path / "part", target="label", sample=sample)
    assert sample.whole == whole.rows
    assert part.rows["train"] == pytest.approx(MOST_ROWS, abs=2)
    for split in ("train", "validation", "test"):
        drawn, known = (set(data.inputs(split)["x"].tolist()) for data in (part, whole))
        assert drawn <= known
        assert len(drawn) == part.rows[split]
    # In an order of chance, every class as often as in all rows.
    rows = part.inputs("train")["x"]
    assert not (np.diff(rows) > 0).all()
    share = np.mean(part.outputs("train")["label"] == part.statistics["label"].categories.index("rare"))
    assert share == pytest.approx(0.01, abs=0.002)
    assert sample.drawn_at > 0


def test_the_same_seed_draws_the_same(table: Path, tmp_path: Path) -> None:
    recipe = recipe_from({"data": {"train": "x"}})
    drawn = [
        prepare(recipe, {"train": table}, tmp_path / str(number), target="label", sample=Sample(seed=seed))
        for number, seed in enumerate((3, 3, 4))
    ]
    first, again, other = (data.inputs("train")["y"] for data in drawn)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_rare_labels_that_were_not_drawn_are_left_out_but_mistakes_are_told(table: Path, tmp_path: Path) -> None:
    lines = table.read_text(encoding="utf-8").splitlines()
    once = tmp_path / "once.csv"
    once.write_text("\n".join([*lines, "-1,0,once", "-2,0,twice", "-3,0,twice"]), encoding="utf-8")
    recipe = recipe_from({"data": {"train": "x"}})
    test = tmp_path / "test.csv"
    test.write_text("x,y,label\n1,1,once\n2,2,a\n3,3,b\n", encoding="utf-8")
    part = prepare(recipe, {"train": once, "test": test}, tmp_path / "part", target="label", sample=Sample())
    assert "once" not in part.statistics["label"].categories
    assert part.rows["test"] == 2
    test.write_text("x,y,label\n1,1,nobody\n2,2,a\n3,3,b\n", encoding="utf-8")
    with pytest.raises(DataError, match="'nobody' does not occur in train"):
        prepare(recipe, {"train": once, "test": test}, tmp_path / "bad", target="label", sample=Sample())


def test_too_many_labels_for_a_sample_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yunmo.data.sample.MOST_ROWS", FEWEST_ROWS)
    train = tmp_path / "names.csv"
    train.write_text("\n".join(["x,label", *(f"{row % 7},n{row // 2}" for row in range(3000))]), encoding="utf-8")
    recipe = recipe_from({"data": {"train": "x"}, "clean": {"duplicates": "keep"}})
    with pytest.raises(DataError, match="none of the labels in validation"):
        prepare(recipe, {"train": train}, tmp_path / "part", sample=Sample())


def test_long_texts_are_fewer() -> None:
    field = OpenedText(TextField(name="text"))
    assert rows_enough([field], {"text": ["a" * 100] * 50}) == TEXT_ROWS
    assert rows_enough([field], {"text": ["a" * 1000] * 50}) == CHARACTERS // 1000
    assert rows_enough([field], {"text": ["a" * 100_000] * 50}) == FEWEST_ROWS
    assert rows_enough([], {}) == MOST_ROWS


def test_there_is_no_advice_on_several_labels_at_once(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,t\n" + "".join(f"{row % 9},{'a|b' if row % 2 else 'a'}\n" for row in range(40)))
    outputs = [{"name": "t", "type": "labels", "separator": "|"}]
    recipe = recipe_from({"data": {"train": "x"}, "outputs": outputs})
    with pytest.raises(DataError, match="no advice on several labels at once"):
        prepare(recipe, {"train": tmp_path / "t.csv"}, tmp_path / "part", sample=Sample())
    assert prepare(recipe, {"train": tmp_path / "t.csv"}, tmp_path / "whole").rows["train"] > 5
