from pathlib import Path

import msgspec
import numpy as np
import pytest

from yunmo.core.recipe import recipe_from
from yunmo.data.prepare import prepare
from yunmo.data.prepared import Prepared
from yunmo.training.findings import Cost, Finding, Learned
from yunmo.training.memory import Memory
from yunmo.training.probe import divided, probe
from yunmo.training.probe_linear import probe_linear
from yunmo.training.sampled import Subset, Whole


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Prepared texts: 240 short ones."""
    folder = tmp_path_factory.mktemp("reviews")
    generator = np.random.default_rng(0)
    lines = ["text,label"]
    for row in range(240):
        words = " ".join(f"w{word}" for word in generator.integers(0, 400, 8))
        lines.append(f"{'good' if row % 2 else 'bad'} {words},{'yes' if row % 2 else 'no'}")
    (folder / "reviews.csv").write_text("\n".join(lines), encoding="utf-8")
    recipe = recipe_from({"data": {"train": "x"}, "inputs": [{"name": "text", "type": "text"}]})
    return prepare(recipe, {"train": folder / "reviews.csv"}, folder / "prepared", target="label")


def run(data: Prepared, folder: Path, rows: int = 5000) -> tuple[Cost, list[Learned]]:
    told: list[Finding] = []
    whole = {"train": rows, "validation": 200, "test": 300}
    probe(data, data.recipe, whole, folder, cores=1, seconds=60, tell=told.append)
    early, cost = (each for each in told if isinstance(each, Cost))
    probes = [each for each in told if isinstance(each, Learned)]
    assert early.step == cost.step
    return cost, probes


def test_a_probe_tells_what_a_table_costs_and_how_it_learns(flowers: Prepared, tmp_path: Path) -> None:
    cost, probes = run(flowers, tmp_path, rows=200_000)
    recipe = recipe_from(cost.recipe)
    # Decided for all rows, not for those of the sample.
    assert (recipe.train.batch_size, recipe.train.threads, recipe.train.precision) == (256, 1, "fp32")
    assert recipe.train.epochs is not None
    assert min(cost.step, cost.judge, cost.parameters, cost.grown) > 0
    assert probes[-1].error < 0.2
    assert [each.judged for each in probes] == [flowers.rows["validation"]] * len(probes)
    # Plain data: it comes from another process.
    assert msgspec.convert(msgspec.to_builtins(cost), Finding) == cost  # type: ignore[arg-type]  # a union


def test_a_probe_of_texts_has_the_vocabulary_of_all_rows(reviews: Prepared, tmp_path: Path) -> None:
    few, _ = run(reviews, tmp_path, rows=reviews.rows["train"])
    many, _ = run(reviews, tmp_path)
    assert many.parameters > 1.5 * few.parameters


def test_a_subset_has_the_ngrams_of_its_rows_alone(reviews: Prepared) -> None:
    part = Subset(reviews, reviews.recipe, 40)
    learned, all_of_it = part.statistics["text"], reviews.statistics["text"]
    tokens = part.inputs("train")["text"]
    assert len(tokens) == part.rows["train"] == learned.count == 40
    assert set(learned.buckets) < set(all_of_it.buckets)
    assert list(learned.buckets) == sorted(learned.buckets)
    assert set(np.unique(tokens)) - {0} == set(range(1, len(learned.buckets) + 1))
    # The same n-grams as before, under other numbers.
    before = np.array([0, *all_of_it.buckets])[reviews.inputs("train")["text"][:40]]
    np.testing.assert_array_equal(np.array([0, *learned.buckets])[tokens], before)
    counts = [int((before == bucket).any(1).sum()) for bucket in learned.buckets[:20]]
    assert list(learned.bucket_counts[:20]) == counts
    # What only other rows have is padding.
    held = part.inputs("validation")["text"]
    assert held.max() <= len(learned.buckets)
    assert len(part.texts("train")["text"]) == 40
    assert part.texts("train")["text"][38:60] == reviews.texts("train")["text"][38:40]


def test_a_whole_says_all_rows_and_holds_those_of_the_sample(flowers: Prepared) -> None:
    whole = Whole(flowers, flowers.recipe, {"train": 10**6, "validation": 10**5, "test": 10**5})
    assert whole.rows["train"] == 10**6
    assert len(whole.inputs("train")["length"]) == flowers.rows["train"]
    assert whole.statistics["length"] == flowers.statistics["length"]


def test_the_linear_model_is_tried_on_a_part_and_on_all(reviews: Prepared) -> None:
    told: list[Finding] = []
    probe_linear(reviews, reviews.recipe, seconds=20, memory=Memory(), tell=told.append)
    assert [each.rows for each in told if isinstance(each, Learned)] == [64, reviews.rows["train"]]
    assert all(isinstance(each, Learned) and 0 <= each.error <= 1 for each in told)


def test_rows_come_before_passes_but_a_few_passes_before_all_rows() -> None:
    assert divided(300, 1000, 10) == (100, 3)
    assert divided(3000, 1000, 10) == (1000, 3)
    assert divided(7500, 1000, 10) == (1000, 7)
    assert divided(10**6, 1000, 10) == (1000, 10)
    assert divided(500, 1000, 1) == (500, 1)
