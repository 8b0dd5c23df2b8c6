"""Work that is done some items ahead of whoever takes its results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def in_order(
    work: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, threads: int, ahead: int
) -> Iterator[tuple[ItemT, ResultT]]:
    """Yield each item with what became of it, in order.

    `Executor.map` would take all items at once. Whoever stops taking, and an error of the work, ends it: what has not
    begun is not done.

    Args:
        work: done in threads.
        items: taken one by one, only when there is room for another.
        threads: at a time.
        ahead: items that are done, or wait to be, before the first of them is taken.
    """
    following = iter(items)
    waiting: deque[tuple[ItemT, Future[ResultT]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in islice(following, ahead):
                waiting.append((item, pool.submit(work, item)))
            while waiting:
                item, future = waiting.popleft()
                result = future.result()
                for more in islice(following, 1):
                    waiting.append((more, pool.submit(work, more)))
                yield item, result
        finally:
            for _, future in waiting:
                future.cancel()
