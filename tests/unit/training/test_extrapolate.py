import pytest

from yunmo.training.extrapolate import Point, extrapolate


def law(rows: int, error: float = 0.4, power: float = 0.2, judged: int = 100_000) -> Point:
    """A point of a curve that falls as a power, from an error at 1,000 rows."""
    return Point(rows, 1, error * (rows / 1000) ** -power, judged)


def test_a_power_law_goes_on_within_the_range() -> None:
    for power in (0.0, 0.1, 0.2, 0.35):
        points = [law(1000, power=power), law(4000, power=power)]
        found = extrapolate(points, rows=64_000, epochs=1, judged=100_000, share=True)
        assert found.low <= law(64_000, power=power).error <= found.high


def test_a_whole_training_is_repeated_but_for_chance() -> None:
    found = extrapolate([law(1000), law(4000)], rows=4000, epochs=1, judged=100_000, share=True)
    error = law(4000).error
    assert found.low < error < found.high
    assert found.high - found.low < 0.02
    assert found.middle == pytest.approx(error, abs=1e-4)


def test_fewer_rows_to_judge_on_and_farther_ends_are_less_certain() -> None:
    def width(judged: int, rows: int) -> float:
        points = [law(1000, judged=judged), law(4000, judged=judged)]
        found = extrapolate(points, rows=rows, epochs=1, judged=judged, share=True)
        return found.high - found.low

    assert width(200, 8000) > width(2000, 8000) > width(20_000, 8000)
    assert width(20_000, 64_000) > width(20_000, 8000)


def test_the_bad_end_is_never_better_than_what_was_measured_without_a_slope() -> None:
    found = extrapolate(
        [Point(1000, 1, 0.3, 500), Point(4000, 1, 0.3, 500)], rows=400_000, epochs=1, judged=500, share=True
    )
    assert found.high >= 0.3
    assert found.low < 0.1


def test_a_single_point_says_little_of_how_fast_errors_fall() -> None:
    one, two = ([law(4000)], [law(1000), law(4000)])
    ranges = [extrapolate(each, rows=64_000, epochs=1, judged=100_000, share=True) for each in (one, two)]
    assert ranges[0].low < ranges[1].low < ranges[1].high < ranges[0].high


def test_an_error_of_nothing_is_not_believed_and_none_is_above_everything() -> None:
    found = extrapolate([Point(1000, 1, 0.0, 100)], rows=1000, epochs=1, judged=100, share=True)
    assert 0 < found.low < found.high < 0.1
    assert extrapolate([Point(1000, 1, 1.0, 20)], rows=1000, epochs=1, judged=20, share=True).high == 1.0


def test_an_unexplained_variance_may_exceed_the_variance() -> None:
    found = extrapolate([Point(100, 1, 1.5, 200)], rows=100, epochs=1, judged=200, share=False)
    assert found.low < 1.5 < found.high


def test_more_passes_help_less_than_more_rows_but_may_help_as_much() -> None:
    points = [law(1000), law(4000)]
    rows = extrapolate(points, rows=16_000, epochs=1, judged=100_000, share=True)
    passes = extrapolate(points, rows=4000, epochs=4, judged=100_000, share=True)
    assert rows.middle < passes.middle
    assert rows.high < passes.high
    assert rows.low == passes.low
