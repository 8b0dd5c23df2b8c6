from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yunmo.core.fields import CategoryOutput, NumberOutput
from yunmo.data.splits import hold_out, strata


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    share=st.floats(0.05, 0.6),
    seed=st.integers(0, 2**32),
)
def test_every_row_is_in_one_part_and_every_stratum_stays(sizes: list[int], share: float, seed: int) -> None:
    codes = np.repeat(np.arange(len(sizes)), sizes)
    stay, held = hold_out(codes, share, seed)
    assert sorted([*stay, *held]) == list(range(len(codes)))
    assert set(codes[stay]) == set(codes)
    for code, size in enumerate(sizes):
        assert abs((codes[held] == code).sum() - share * size) <= 1


def test_shares_are_exact_where_they_can_be() -> None:
    codes = np.repeat([0, 1, 2], [100, 50, 10])
    _, held = hold_out(codes, 0.2, 0)
    assert np.bincount(codes[held]).tolist() == [20, 10, 2]


def test_the_seed_decides() -> None:
    codes = np.zeros(100, np.int64)
    assert np.array_equal(hold_out(codes, 0.3, 1)[1], hold_out(codes, 0.3, 1)[1])
    assert not np.array_equal(hold_out(codes, 0.3, 1)[1], hold_out(codes, 0.3, 2)[1])


def test_a_class_of_one_row_stays_in_train() -> None:
    stay, held = hold_out(np.array([0] * 20 + [1]), 0.5, 0)
    assert 20 in stay
    assert len(held) == 10


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_hold_nothing_out(rows: int) -> None:
    assert len(hold_out(np.zeros(rows, np.int64), 0.2, 0)[1]) == 0


def test_strata_of_labels_and_of_numbers() -> None:
    assert strata(CategoryOutput(name="t"), ["b", "a", "b"]).tolist() == [1, 0, 1]
    tenths = strata(NumberOutput(name="t"), [str(number) for number in range(100)])
    assert np.bincount(tenths).tolist() == [10] * 10
