"""Shadows: versions that are shown what the live one was asked, after it was answered; nobody gets their answers.

What a shadow costs, its caller never pays: copies wait for the answer, a shadow without room drops them, and whatever
goes wrong with them ends here. They do share the machine's cores with the requests that count.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from yunmo.core.errors import YunmoError
from yunmo.serving.routing import Loaded, Route

if TYPE_CHECKING:
    from yunmo.inference.predictor import Predictor

ROOM = 16
"""Copies of requests that one shadow holds in this worker; those beyond are dropped, so their bodies' memory is."""
SECONDS = 10.0
"""Time that a shadow has for one."""
NEAR = 0.05
"""Numbers agree up to this share of their size."""

Encode = Callable[["Predictor"], Mapping[str, Any]]
"""Encodes the raw values of a request for a predictor; raises InvalidInput if they are not what its model takes."""

_logger = logging.getLogger("yunmo.shadow")


class Mirror:
    """Shows requests to shadows and tells their meters whether the answers agree. It is used on the event loop."""

    def __init__(self) -> None:
        self._copies: dict[asyncio.Task[None], Loaded] = {}
        # One thread: shadows must not take more of the machine than they can be given. It starts when it is needed.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="yunmo-shadow")

    def show(self, route: Route, answered: Loaded, encode: Encode, rows: int, answers: Mapping[str, Any]) -> None:
        """Show a request to the endpoint's shadow, if it has one with room; this returns at once.

        Args:
            route: what the request went through.
            answered: who answered; only what the live version answered is compared.
            encode: encodes the request's raw values, which must stay as they are after its answer.
            rows: how many they are.
            answers: the graph's outputs that the caller gets.
        """
        shadow = route.shadow
        if shadow is None or answered is not route.live:
            return
        if sum(each.lane is shadow.lane for each in self._copies.values()) >= ROOM:
            shadow.lane.meter.shadow(None)
            return
        task = asyncio.get_running_loop().create_task(self._compare(shadow, answered, encode, rows, answers))
        self._copies[task] = shadow
        task.add_done_callback(self._copies.pop)

    async def close(self) -> None:
        """Drop what is under way."""
        for task in list(self._copies):
            task.cancel()
        await asyncio.gather(*self._copies, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _compare(
        self, shadow: Loaded, live: Loaded, encode: Encode, rows: int, expected: Mapping[str, Any]
    ) -> None:
        loop = asyncio.get_running_loop()
        verdict = None
        try:
            with shadow.lane as lane:
                tensors = await loop.run_in_executor(self._thread, encode, shadow.predictor)
                found = await lane.run(dict(tensors), rows, loop.time() + SECONDS)
                verdict = await loop.run_in_executor(
                    self._thread, agree, live.predictor, expected, shadow.predictor, found
                )
        except YunmoError as error:
            _logger.debug("a shadow did not answer", exc_info=error)
        except Exception:
            _logger.exception("a request could not be shown to a shadow")
        shadow.lane.meter.shadow(verdict)


def agree(live: Predictor, expected: Mapping[str, Any], shadow: Predictor, found: Mapping[str, Any]) -> bool | None:
    """Say whether two models gave the same answers to the same rows; None if they answer different things.

    Categories agree if the best is the same one by name, whatever its probability; labels if the same ones
    hold; numbers if they are within `NEAR` of the live one's.

    Args:
        live: whose answers count.
        expected: its graph's outputs.
        shadow: the other.
        found: that one's outputs.
    """
    from yunmo.data.fields.labels import held_labels
    from yunmo.inference.compare import tensor_difference

    if live.categories.keys() != shadow.categories.keys() or live.labels.keys() != shadow.labels.keys():
        return None
    same = True
    for name, names in live.categories.items():
        others = shadow.categories[name]
        if name in live.labels:
            mine = map(set, held_labels(expected[name], live.labels[name]))
            same = same and list(mine) == [set(its) for its in held_labels(found[name], shadow.labels[name])]
            continue
        if (names is None) != (others is None):
            return None
        if names is not None and others is not None:
            best = zip(expected[name].argmax(axis=1).tolist(), found[name].argmax(axis=1).tolist(), strict=True)
            same = same and all(names[mine] == others[its] for mine, its in best)
        elif expected[name].shape != found[name].shape or expected[name].dtype.kind != found[name].dtype.kind:
            return None
        else:
            same = same and bool((tensor_difference(found[name], expected[name]) <= NEAR).all())
    return same
