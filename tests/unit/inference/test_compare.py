from __future__ import annotations

import numpy as np
import pytest

from yunmo.inference.compare import difference


def test_probabilities_are_compared_as_they_are() -> None:
    off = difference([[0.5, 0.5], [0.2, 0.8]], [[0.5, 0.5], [0.1, 0.9]], None)
    assert off == pytest.approx([0, 0.1])


@pytest.mark.parametrize(
    ("found", "expected", "deviation", "off"),
    [(1010, 1000, 1, 0.01), (0.001, 0, 10, 0.0001), (2e-6, 1e-6, 1e-6, 1), (0.5, 0, 0, 0.5), (-1010, -1000, 1, 0.01)],
)
def test_numbers_are_compared_relative_to_size_or_deviation(
    found: float, expected: float, deviation: float, off: float
) -> None:
    assert difference([found], [expected], deviation) == pytest.approx([off])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_infinitely_far(bad: float) -> None:
    assert difference([bad], [1.0], 1.0)[0] > 1e300
    assert difference([[0.5, bad]], [[0.5, 0.5]], None)[0] > 1e300
