"""Models of a data worker, opened and run so that one that throws, hangs or dies takes as little along as can be."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from yunmo.core.settings import Settings
from yunmo.core.snapshot import Deployment, Variant
from yunmo.serving.lane import Lane
from yunmo.serving.marks import Marks
from yunmo.serving.observer import Observer
from yunmo.serving.quarantine import Quarantine, quarantine_path
from yunmo.serving.shelf import open_predictor

if TYPE_CHECKING:
    from yunmo.inference.predictor import Predictor

BEAT_SECONDS = 1.0


class Guard:
    """Opens models and makes their lanes.

    Args:
        state_path: where the process says what it has applied; its marks are beside it.
        settings: limits and times.
        observer: makes the meters of lanes.
        timeout: returns the seconds that a request to an endpoint may take, by the endpoint's key.
        stuck: called when a run cannot be stopped, so that only a new process helps; None: nothing can be done.
    """

    def __init__(
        self,
        state_path: Path,
        settings: Settings,
        observer: Observer,
        *,
        timeout: Callable[[str], float],
        stuck: Callable[[], None] | None,
    ) -> None:
        self.quarantine = Quarantine(quarantine_path(state_path.parent), settings.isolate)
        """Says which models run in a process of their own."""
        self._settings = settings
        self._observer = observer
        self._timeout = timeout
        self._stuck = stuck
        self._marks = Marks(state_path.with_suffix(".marks"))
        self._beating: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to show that the event loop turns; to be called on it."""
        self._beating = asyncio.get_running_loop().create_task(self._beat())

    def stop(self) -> None:
        """Forget the marks, unless a model hangs."""
        if self._beating is not None:
            self._beating.cancel()
        self._marks.close()

    def open(self, variant: Variant, trusted_key: str, *, isolated: bool) -> Predictor:
        """Open the bundle of a variant; as `yunmo.serving.shelf.open_predictor`."""
        settings = self._settings
        with contextlib.nullcontext() if isolated else self._marks.loading(variant.digest):
            return open_predictor(
                variant,
                trusted_key,
                max_pixels=settings.max_pixels,
                isolated=isolated,
                timeout=settings.deploy_timeout,
            )

    def make_lane(self, deployment: Deployment, variant: Variant, predictor: Predictor) -> Lane:
        """Make the lane of an endpoint's version."""
        key = deployment.key
        meter = self._observer.lane(deployment.project_id, deployment.endpoint, variant.model, variant.version)
        if predictor.isolated:
            # One process, so one run at a time; it is killed where another would be stuck.
            return Lane(predictor, meter, inline=False, run_timeout=lambda: self._timeout(key))
        watched = self._marks.watch(variant.digest, predictor)

        def stuck() -> None:
            watched.hangs()
            if self._stuck is not None:
                self._stuck()

        return Lane(
            watched,
            meter,
            runs=self._settings.runs,
            inline=predictor.inline,
            run_timeout=lambda: self._timeout(key),
            stuck=stuck,
        )

    async def _beat(self) -> None:
        while True:
            self._marks.beat()
            await asyncio.sleep(BEAT_SECONDS)


def tell_crashes(path: Path) -> None:
    """Have this process write down where it was when it crashes.

    Args:
        path: of the file; the supervisor reads in it which thread it was.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    faulthandler.enable(path.open("wb"))
