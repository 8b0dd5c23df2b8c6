import pytest

from yunmo.core.recipe import ScheduleSpec
from yunmo.training.schedules import Schedule


def _rates(spec: ScheduleSpec, steps: int = 100) -> list[float]:
    schedule = Schedule(spec, 1.0, steps=steps, steps_per_epoch=10)
    return [schedule.rate(step) for step in range(steps)]


def test_constant_and_warm_up() -> None:
    rates = _rates(ScheduleSpec(type="constant", warmup=0.1))
    assert rates[0] == pytest.approx(0.05)
    assert rates[:10] == sorted(rates[:10])
    assert set(rates[10:]) == {1.0}


def test_step_falls_every_few_epochs() -> None:
    rates = _rates(ScheduleSpec(type="step", step_epochs=4, factor=0.5))
    assert (rates[0], rates[39], rates[40], rates[80]) == (1.0, 1.0, 0.5, 0.25)


def test_cosine_falls_to_almost_nothing() -> None:
    rates = _rates(ScheduleSpec(type="cosine"))
    assert rates == sorted(rates, reverse=True)
    assert rates[49] == pytest.approx(0.5, abs=0.02)
    assert rates[-1] < 1e-3


def test_one_cycle_rises_for_a_fifth_and_falls() -> None:
    rates = _rates(ScheduleSpec(type="one_cycle"))
    top = rates.index(max(rates))
    assert 18 <= top <= 21
    assert rates[0] < 0.05
    assert rates[-1] < 0.01


def test_plateau_falls_when_nothing_gets_better_and_resumes() -> None:
    spec = ScheduleSpec(type="plateau", patience=1, factor=0.1)
    schedule = Schedule(spec, 1.0, steps=100, steps_per_epoch=10)
    for loss in (1.0, 0.9, 0.95):
        schedule.epoch_ended(loss)
    assert schedule.rate(50) == 1.0
    other = Schedule(spec, 1.0, steps=100, steps_per_epoch=10)
    other.restore(schedule.state())
    for one in (schedule, other):
        one.epoch_ended(0.93)
        assert one.rate(50) == pytest.approx(0.1)
