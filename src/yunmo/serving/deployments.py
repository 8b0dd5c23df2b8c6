"""Which version answers for which endpoint in this worker: follows the snapshot that control publishes.

A new version is opened beside the old one (signature, files, golden examples: that is also its warm-up), gets the
traffic in one assignment, and only then the old one drains. A version that cannot be opened changes nothing; the
reason stands in this worker's state file, where control looks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from yunmo.core.errors import IntegrityError, YunmoError
from yunmo.core.snapshot import Deployment, Snapshot, WorkerState, decode_snapshot
from yunmo.serving.gate import Keyring

if TYPE_CHECKING:
    from yunmo.inference.predictor import Predictor
    from yunmo.serving.lane import Lane

POLL_SECONDS = 0.1
RETRY_SECONDS = 30.0
"""A bundle that could not be opened is tried again after so long: its folder may only have been away for a moment."""

_logger = logging.getLogger("yunmo.deployments")

OpenPredictor = Callable[[Deployment, str], "Predictor"]
"""Opens the bundle of a deployment, checked against a public key in PEM."""


def open_predictor(deployment: Deployment, trusted_key: str, *, max_pixels: int) -> Predictor:
    """Open the bundle of a deployment after checking that it is the very one deployed.

    Args:
        deployment: what to open.
        trusted_key: public key in PEM that must have signed it.
        max_pixels: most pixels of a picture that it decodes.

    Raises:
        IntegrityError: another bundle lies in the folder, or it was changed.
        BundleError: the bundle cannot be used, or its golden examples give other answers.
    """
    # Only now, so that a worker without a model needs no numpy and no onnxruntime.
    from yunmo.inference.predictor import Predictor

    folder = Path(deployment.path)
    try:
        manifest = (folder / "manifest.json").read_bytes()
    except OSError as error:
        raise IntegrityError("the bundle is not there", where=f"{deployment.model}:{deployment.version}") from error
    if f"sha256:{hashlib.sha256(manifest).hexdigest()}" != deployment.digest:
        raise IntegrityError(
            "the bundle's digest is not the deployed one", where=f"{deployment.model}:{deployment.version}"
        )
    return Predictor.open(folder, public_key_pem=trusted_key, max_pixels=max_pixels)


@dataclass(frozen=True, slots=True)
class Route:
    """A deployment that answers: what was deployed, its predictor and its lane."""

    deployment: Deployment
    predictor: Predictor
    lane: Lane


Key = tuple[str, str]
"""Project id and endpoint."""


class Deployments:
    """Applies snapshots to this worker.

    Args:
        snapshot_path: the file that control replaces.
        state_path: where this worker's state is written; None: nowhere.
        keyring: gets the keys of each snapshot, at once, whatever loads meanwhile.
        drain_timeout: seconds that requests to a replaced version get.
        open_predictor: opens a bundle, in a thread.
        retry_seconds: after which a bundle that could not be opened is tried again.
    """

    def __init__(
        self,
        snapshot_path: Path,
        state_path: Path | None,
        keyring: Keyring,
        *,
        drain_timeout: float,
        open_predictor: OpenPredictor,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._snapshot_path = snapshot_path
        self._state_path = state_path
        self._keyring = keyring
        self._drain_timeout = drain_timeout
        self._open = open_predictor
        self._retry_seconds = retry_seconds
        self._routes: dict[Key, Route] = {}
        self._wanted: frozenset[Key] = frozenset()
        self._failed: dict[Key, str] = {}
        self._seen: tuple[int, int, int] | None = None
        self._snapshot: Snapshot | None = None
        self._applied = -1
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def applied(self) -> int:
        """Number of the newest snapshot whose every deployment is loaded or refused; -1: none yet."""
        return self._applied

    @property
    def counts(self) -> tuple[int, int]:
        """How many endpoints answer, and for how many the newest version was refused."""
        return len(self._routes), len(self._failed)

    def route(self, project_id: str, endpoint: str) -> Route | None:
        """Return what answers for an endpoint, None if nothing does."""
        return self._routes.get((project_id, endpoint))

    def wanted(self, project_id: str, endpoint: str) -> bool:
        """Say whether the endpoint exists, though it may not answer yet."""
        return (project_id, endpoint) in self._wanted

    async def start(self) -> None:
        """Apply the snapshot that is there, if any, then follow the file until `stop`."""
        await self._look()
        if self._snapshot is not None:
            await self._reconcile(self._snapshot)
        self._changed.clear()
        self._spawn(self._follow())
        self._spawn(self._apply())

    async def stop(self) -> None:
        """Stop following, drain every lane and remove the state file."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(route.lane.drain(self._drain_timeout) for route in self._routes.values()))
        self._routes.clear()
        if self._state_path is not None:
            self._state_path.unlink(missing_ok=True)

    def _spawn(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self._look()

    async def _look(self) -> None:
        """Read the snapshot if its file is another one than last time."""
        try:
            stat = self._snapshot_path.stat()
            mark = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if mark == self._seen:
                return
            snapshot = decode_snapshot(self._snapshot_path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError) as error:
            _logger.error("the snapshot cannot be read; the last one stays in force", exc_info=error)
            return
        self._seen = mark
        if self._snapshot is not None and snapshot.number < self._snapshot.number:
            _logger.warning("an older snapshot was published; it is applied", extra={"facts": {"to": snapshot.number}})
        self._snapshot = snapshot
        self._keyring.replace(snapshot.keys)
        self._wanted = frozenset((each.project_id, each.endpoint) for each in snapshot.deployments)
        self._changed.set()

    async def _apply(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), self._retry_seconds if self._failed else None)
            self._changed.clear()
            if self._snapshot is not None:
                await self._reconcile(self._snapshot)

    async def _reconcile(self, snapshot: Snapshot) -> None:
        """Make the routes those of a snapshot, then tell control."""
        failed: dict[Key, str] = {}
        for deployment in snapshot.deployments:
            key = (deployment.project_id, deployment.endpoint)
            old = self._routes.get(key)
            if old is not None and old.deployment.digest == deployment.digest:
                self._routes[key] = Route(deployment, old.predictor, old.lane)
                continue
            try:
                self._routes[key] = await self._load(deployment, snapshot.trusted_key)
            except YunmoError as error:
                failed[key] = str(error)
            except Exception as error:
                failed[key] = "the bundle could not be opened; the worker's log has the details"
                _logger.error("bundle refused", exc_info=error, extra={"facts": {"endpoint": deployment.endpoint}})
            else:
                self._retire(old)
            if key in failed:
                _logger.error("deployment refused", extra={"facts": {"endpoint": key[1], "reason": failed[key]}})
        for key in set(self._routes) - {(each.project_id, each.endpoint) for each in snapshot.deployments}:
            self._retire(self._routes.pop(key))
        self._failed = failed
        self._applied = snapshot.number
        self._write_state()

    async def _load(self, deployment: Deployment, trusted_key: str) -> Route:
        predictor = await asyncio.to_thread(self._open, deployment, trusted_key)
        # Only now: the lane needs numpy, which came with the predictor.
        from yunmo.serving.lane import Lane

        _logger.info(
            "deployed",
            extra={"facts": {"endpoint": deployment.endpoint, "model": f"{deployment.model}:{deployment.version}"}},
        )
        return Route(deployment, predictor, Lane(predictor))

    def _retire(self, route: Route | None) -> None:
        if route is not None:
            self._spawn(route.lane.drain(self._drain_timeout))

    def _write_state(self) -> None:
        if self._state_path is None:
            return
        state = WorkerState(
            pid=os.getpid(),
            snapshot=self._applied,
            loaded={key[1]: route.deployment.digest for key, route in self._routes.items()},
            failed={key[1]: reason for key, reason in self._failed.items()},
        )
        try:
            self._state_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = self._state_path.with_name(f".{self._state_path.name}.tmp")
            temporary.write_bytes(msgspec.json.encode(state))
            temporary.replace(self._state_path)
        except OSError as error:
            # Predictions go on; control will say that this worker does not answer.
            _logger.error("the worker's state cannot be written", exc_info=error)
