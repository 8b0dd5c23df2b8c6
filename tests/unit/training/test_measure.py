import itertools

from yunmo.core.recipe import Recipe, recipe_from
from yunmo.training.measure import fix_threads, time_steps


def _recipe(**train: object) -> Recipe:
    return recipe_from({"data": {"train": "x"}, "train": train})


def test_the_faster_number_of_threads_is_chosen() -> None:
    free = {1: 0.3, 2: 0.16, 4: 0.1}
    busy = {1: 0.3, 2: 0.4, 4: 0.7}
    recipe, decision = fix_threads(_recipe(), 4, free.__getitem__)
    assert recipe.train.threads == 4
    assert decision is not None
    assert "300 ms on 1, 160 ms on 2, 100 ms on 4" in decision.reason
    assert fix_threads(_recipe(), 4, busy.__getitem__)[0].train.threads == 1


def test_given_threads_are_not_measured() -> None:
    given = _recipe(threads=3)
    assert fix_threads(given, 4, {}.__getitem__) == (given, None)


def test_one_slow_step_does_not_count() -> None:
    import time

    waits = itertools.chain([0.05, 0.05, 0.05], itertools.repeat(0.001))
    assert time_steps(lambda: time.sleep(next(waits))) < 0.02
