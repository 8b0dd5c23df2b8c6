from typing import Any

import pytest

from yunmo.core.advice import Candidate, Range
from yunmo.core.recipe import recipe_data, recipe_from
from yunmo.training.budget import LINEAR_SECONDS
from yunmo.training.estimate import Surroundings, estimate, linear_seconds, metric_range, recommend
from yunmo.training.findings import Cost, Learned

MB = 10**6
BLANK = Candidate(name="bag", command="yunmo train x.csv")


def around(**changes: Any) -> Surroundings:
    return Surroundings(
        **{
            "whole": {"train": 8000, "validation": 1000, "test": 1000},
            "sampled": {"train": 2000, "validation": 500, "test": 500},
            "row_bytes": 1000,
            "base": 250 * MB,
            "starting": 2.0,
            "reading": 1.0,
            "prepared_bytes": 50 * MB,
            "encoding": 3.0,
            "linear": 4.0,
            "linear_bytes": 100 * MB,
            "share": True,
            **changes,
        }
    )


def cost(**changes: Any) -> Cost:
    recipe = recipe_data(recipe_from({"data": {"train": "x"}, "train": {"epochs": 10, "batch_size": 80, "threads": 1}}))
    return Cost(
        **{
            "recipe": recipe,
            "decisions": (),
            "parameters": 1000,
            "deciding": 0.5,
            "step": 0.02,
            "judge": 0.001,
            "save": 0.5,
            "grown": 120 * MB,
            **changes,
        }
    )


def learned(rows: int = 1000, epochs: int = 3, error: float = 0.3, seconds: float = 1.0, batch: int = 40) -> Learned:
    return Learned(rows=rows, epochs=epochs, error=error, judged=500, seconds=seconds, batch=batch, grown=10 * MB)


def test_time_is_that_of_all_steps_and_of_what_is_around_them() -> None:
    found = estimate(BLANK, cost(), [learned()], around())
    assert found.seconds is not None
    assert found.seconds.epochs == pytest.approx(10 * 100 * 0.02)
    # Judging and keeping each epoch; starting and packing; reading; encoding all; deciding; evaluating; signing.
    rest = 10 * (1.0 + 0.5) + 2.0 * 4 + 1.0 + 3.0 * 10_000 / 3000 + 1.0 + (2.0 + 4.0) + 1.0
    assert found.seconds.run == pytest.approx(found.seconds.epochs + rest)
    assert (found.epochs, found.batch_size, found.threads, found.parameters) == (10, 80, 1, 1000)


def test_a_longer_training_tells_of_slower_steps() -> None:
    def step(probe: Learned) -> float:
        found = estimate(BLANK, cost(), [probe], around()).seconds
        assert found is not None
        return found.epochs / 1000

    assert step(learned(800, 5, seconds=2.0, batch=80)) == pytest.approx(0.04)
    assert step(learned(800, 5, seconds=2.0, batch=40)) == pytest.approx(0.02)
    assert step(learned(800, 5, seconds=0.4, batch=80)) == pytest.approx(0.02)
    assert step(learned(800, 5, seconds=0.6, batch=80)) == pytest.approx(0.02)


def test_memory_is_that_of_steps_rows_linear_model_and_packing() -> None:
    found = estimate(BLANK, cost(), [], around())
    assert found.memory == (250 + 120 + 100) * MB + 2 * 6000 * 1000 + (80 << 20)
    large = estimate(BLANK, cost(), [], around(prepared_bytes=900 * MB))
    assert large.memory == (250 + 900 + 100) * MB + (80 << 20)
    unknown = estimate(BLANK, cost(), [], around(linear_bytes=None))
    assert unknown.memory is not None
    assert unknown.memory > found.memory


def test_what_was_not_probed_is_not_guessed() -> None:
    unknown = estimate(BLANK, None, [], around())
    assert unknown == BLANK
    found = estimate(BLANK, cost(), [], around())
    assert found.metric is None
    assert found.note == "no time for a short training"
    assert metric_range([], 10, around()) is None


def test_the_metric_is_what_errors_leave() -> None:
    found = estimate(BLANK, cost(), [learned(250), learned(1000, error=0.25)], around())
    assert found.metric is not None
    assert found.metric.low < 0.75 < found.metric.high < 1
    assert found.metric.low <= found.metric.middle <= found.metric.high
    assert [probe.value for probe in found.probes] == [0.7, 0.75]
    r2 = metric_range([learned(error=1.2)], 3, around(share=False))
    assert r2 is not None
    assert r2.low < 0


def test_the_linear_model_takes_as_long_as_it_has_rows_up_to_its_limit() -> None:
    assert linear_seconds([], 8000) is None
    assert linear_seconds([learned(500), learned(2000, seconds=1.5)], 8000) == 6.0
    assert linear_seconds([learned(2000, seconds=1.5)], 1000) == 1.5
    assert linear_seconds([learned(2000, seconds=1.5)], 10**6) == LINEAR_SECONDS


def named(name: str, low: float, middle: float, high: float, memory: int = 10 * MB) -> Candidate:
    metric = Range(low=low, middle=middle, high=high)
    return Candidate(name=name, command=f"train {name}", memory=memory, metric=metric)


def test_the_default_gives_way_only_to_what_is_clearly_better() -> None:
    default = named("bag", 0.70, 0.75, 0.80)
    likely = named("gru", 0.74, 0.79, 0.84)
    clear = named("transformer", 0.77, 0.80, 0.85)
    assert recommend([default, likely], None, 10**9)[0] is default
    chosen, reason = recommend([default, likely, clear], None, 10**9)
    assert chosen is clear
    assert "clearly better" in reason


def test_the_default_gives_way_where_it_does_not_fit() -> None:
    large, small = named("wide", 0.7, 0.75, 0.8, 1000 * MB), named("narrow", 0.6, 0.7, 0.8)
    chosen, reason = recommend([large, small], None, 500 * MB)
    assert chosen is small
    assert "memory" in reason


def test_nothing_probed_leaves_the_default_and_a_good_linear_model_is_named() -> None:
    assert recommend([BLANK], None, 10**9) == (BLANK, "the default; there was no time to compare it")
    _, reason = recommend([named("bag", 0.7, 0.75, 0.8)], Range(low=0.7, middle=0.76, high=0.8), 10**9)
    assert "a linear model may do as well" in reason
