from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from yunmo.core.ahead import in_order


def test_results_come_in_order_and_items_are_taken_only_so_far_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    results = in_order(lambda number: number * number, items(), threads=3, ahead=4)
    assert next(results) == (0, 0)
    assert taken == [0, 1, 2, 3, 4]
    assert list(results) == [(number, number * number) for number in range(1, 20)]


def test_an_error_ends_it_and_what_has_not_begun_is_not_done() -> None:
    begun: list[int] = []
    go = threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number == 0:
            go.wait(30)
            raise ValueError("no")
        return number

    results = in_order(work, range(100), threads=1, ahead=50)
    go.set()
    with pytest.raises(ValueError, match="no"):
        next(results)
    assert begun[0] == 0
    assert len(begun) <= 50


def test_nothing_is_done_of_nothing() -> None:
    assert list(in_order(str, [], threads=1, ahead=1)) == []
