"""Which versions answer for which endpoint in this worker: follows the snapshot that control publishes.

A new version is opened beside the old one (signature, files, golden examples: that is also its warm-up), gets its
traffic in one assignment, and only then those that are no longer named drain. A deployment of which a version cannot
be opened changes nothing; the reason stands in this worker's state file, where control looks for it. Endpoints don't
wait for each other: one can be rolled back while another's model loads.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from yunmo.core.errors import YunmoError
from yunmo.core.snapshot import (
    Deployment,
    EndpointState,
    Limits,
    Snapshot,
    Variant,
    WorkerState,
    decode_snapshot,
    endpoint_key,
)
from yunmo.serving.gate import Keyring
from yunmo.serving.quarantine import Quarantine
from yunmo.serving.routing import Loaded, Route
from yunmo.serving.shelf import OpenPredictor, Shelf

if TYPE_CHECKING:
    from yunmo.inference.predictor import Predictor
    from yunmo.serving.lane import Lane

POLL_SECONDS = 0.1
RETRY_SECONDS = 30.0
"""A bundle that could not be opened is tried again after so long: its folder may only have been away for a moment."""

_logger = logging.getLogger("yunmo.deployments")

Identity = tuple[str, int, str, bool]
"""Model, version, digest, and whether it runs in a process of its own: what stays the same when a version of an
endpoint changes its role."""
MakeLane = Callable[[Deployment, Variant, "Predictor"], "Lane"]
"""Makes the lane of an endpoint's version."""


class Deployments:
    """Applies snapshots to this worker.

    Args:
        snapshot_path: the file that control replaces.
        state_path: where this worker's state is written; None: nowhere.
        keyring: gets the keys of each snapshot, at once, whatever loads meanwhile.
        drain_timeout: seconds that requests to a replaced version get.
        open_predictor: opens a bundle, in a thread.
        make_lane: makes the lane of an endpoint's version; it is kept when the version changes its role.
        quarantine: says which versions run in a process of their own; None: none does.
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
        make_lane: MakeLane,
        quarantine: Quarantine | None = None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._snapshot_path = snapshot_path
        self._state_path = state_path
        self._keyring = keyring
        self._drain_timeout = drain_timeout
        self._shelf = Shelf(open_predictor)
        self._make_lane = make_lane
        self._quarantine = quarantine
        self._retry_seconds = retry_seconds
        self._retry_at = 0.0
        self._routes: dict[str, Route] = {}
        self._wanted: dict[str, Deployment] = {}
        self._carried_out: dict[str, int] = {}
        self._failed: dict[str, dict[str, str]] = {}
        self._working: set[str] = set()
        self._seen: tuple[int, int, int] | None = None
        self._snapshot = Snapshot(-1)
        self._applied = -1
        self._all_applied = asyncio.Event()
        self._started = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._drains: set[asyncio.Task[None]] = set()

    @property
    def applied(self) -> int:
        """Number of the newest snapshot whose every deployment is carried out or refused; -1: none yet."""
        return self._applied

    @property
    def counts(self) -> tuple[int, int]:
        """How many endpoints answer, and for how many a version was refused."""
        return len(self._routes), len(self._failed)

    @property
    def open_bundles(self) -> frozenset[str]:
        """Digests of the bundles that are open, each once."""
        return self._shelf.digests

    def route(self, project_id: str, endpoint: str) -> Route | None:
        """Return what answers for an endpoint, None if nothing does."""
        return self._routes.get(endpoint_key(project_id, endpoint))

    def wanted(self, project_id: str, endpoint: str) -> bool:
        """Say whether the endpoint exists, though it may not answer yet."""
        return endpoint_key(project_id, endpoint) in self._wanted

    def limits(self, key: str) -> Limits:
        """Return the limits of an endpoint, by `yunmo.core.snapshot.endpoint_key`."""
        deployment = self._wanted.get(key)
        return deployment.limits if deployment is not None else Limits()

    def endpoints(self, project_id: str) -> dict[str, Route | None]:
        """Return the endpoints of a project by name, each with what answers for it; None if nothing does yet."""
        return {
            each.endpoint: self._routes.get(key) for key, each in self._wanted.items() if each.project_id == project_id
        }

    async def start(self) -> None:
        """Apply the snapshot that is there, if any, then follow the file until `stop`."""
        if self._quarantine is not None:
            self._quarantine.look()
        self._look()
        if self._seen is not None:
            await self._all_applied.wait()
            self._write_state()
        self._started = True
        self._spawn(self._follow(), self._tasks)

    async def stop(self) -> None:
        """Stop following, drain every lane and remove the state file."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for key in list(self._routes):
            self._retire(self._routes.pop(key).loaded)
        await asyncio.gather(*self._drains, return_exceptions=True)
        if self._state_path is not None:
            self._state_path.unlink(missing_ok=True)

    def _spawn(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self._look()
            if self._quarantine is not None and self._quarantine.look():
                self._isolate()
            now = time.time()
            again = [key for key, route in self._routes.items() if _expired(route, now)]
            if self._failed and time.monotonic() >= self._retry_at:
                self._retry_at = time.monotonic() + self._retry_seconds
                again += self._failed
            if again:
                self._carry_out(again)

    def _isolate(self) -> None:
        """Have versions that ended a worker loaded anew, in processes of their own.

        Until that is done, their endpoints don't answer: who asks again at once would end this worker too.
        """
        for key, route in list(self._routes.items()):
            asked = [each for each in (route.live, route.canary, route.shadow) if each is not None]
            bad = [each for each in asked if self._isolated(each.variant) and not each.predictor.isolated]
            if not bad:
                continue
            facts = {"endpoint": key, "digests": [each.variant.digest for each in bad]}
            _logger.warning("a version ended a worker and is isolated", extra={"facts": facts})
            if route.live in bad:
                del self._routes[key]
                self._retire(route.loaded)
            else:
                canary = None if route.canary in bad else route.canary
                shadow = None if route.shadow in bad else route.shadow
                self._routes[key] = replace(route, canary=canary, shadow=shadow)
                self._retire(tuple(bad))
        self._carry_out(list(self._wanted))

    def _look(self) -> None:
        """Read the snapshot if its file is another one than last time, and begin to carry it out."""
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
        if snapshot.number < self._snapshot.number:
            _logger.warning("an older snapshot was published; it is applied", extra={"facts": {"to": snapshot.number}})
        self._snapshot = snapshot
        self._all_applied.clear()
        self._keyring.replace(snapshot.keys)
        self._wanted = {each.key: each for each in snapshot.deployments}
        self._carry_out(self._wanted.keys() | self._routes.keys() | self._carried_out.keys())

    def _carry_out(self, keys: Iterable[str]) -> None:
        """Do what takes no loading at once, and begin the rest; what loads already sees the new word by itself."""
        for key in keys:
            missing = self._missing(key, {}, {})
            if missing is None or missing.role == "standby":
                self._switch(key, {}, {})
            if missing is not None and key not in self._working:
                self._working.add(key)
                self._spawn(self._load_and_switch(key), self._tasks)
        self._note()

    async def _load_and_switch(self, key: str) -> None:
        """Load what an endpoint lacks, then switch; go on until it is as the newest snapshot says."""
        fresh: dict[Identity, Loaded] = {}
        failed: dict[str, str] = {}
        try:
            while (variant := self._missing(key, fresh, failed)) is not None:
                if variant.role == "standby":
                    self._switch(key, fresh, failed)
                    self._note()
                try:
                    loaded = await self._load(self._wanted[key], variant)
                    fresh[_identity(loaded)] = loaded
                except YunmoError as error:
                    failed[variant.digest] = str(error)
                except Exception as error:
                    failed[variant.digest] = "the bundle could not be opened; the worker's log has the details"
                    _logger.error("bundle refused", exc_info=error, extra={"facts": {"endpoint": key}})
            self._switch(key, fresh, failed)
        finally:
            self._working.discard(key)
        self._note()

    async def _load(self, deployment: Deployment, variant: Variant) -> Loaded:
        isolated = self._isolated(variant)
        predictor = await self._shelf.take(variant, self._snapshot.trusted_key, isolated=isolated)
        try:
            return Loaded(variant, predictor, self._make_lane(deployment, variant, predictor))
        except BaseException:
            await self._shelf.give_back(variant.digest, isolated=isolated)
            raise

    def _missing(self, key: str, fresh: dict[Identity, Loaded], failed: dict[str, str]) -> Variant | None:
        """Return a version that is still to be loaded for an endpoint, its standby last; None: there is none."""
        deployment = self._wanted.get(key)
        if deployment is None:
            return None
        known = self._known(key, fresh)
        missing = [
            each
            for each in deployment.variants
            if self._identity(each) not in known and each.digest not in failed and not _past(each, time.time())
        ]
        return min(missing, key=lambda each: each.role == "standby", default=None)

    def _known(self, key: str, fresh: dict[Identity, Loaded]) -> dict[Identity, Loaded]:
        route = self._routes.get(key)
        return {**fresh, **({_identity(each): each for each in route.loaded} if route else {})}

    def _isolated(self, variant: Variant) -> bool:
        return self._quarantine is not None and self._quarantine.holds(variant.digest)

    def _identity(self, variant: Variant) -> Identity:
        """Return what a version has to be loaded as."""
        return variant.model, variant.version, variant.digest, self._isolated(variant)

    def _switch(self, key: str, fresh: dict[Identity, Loaded], failed: dict[str, str]) -> None:
        """Make an endpoint's route that of the newest snapshot, in one assignment, from what is loaded for it.

        If a version that is new to it could not be loaded, the old route stays; a worker that has none, because it has
        just started, answers with what it has. What is not used drains.

        Args:
            key: of the endpoint.
            fresh: what was loaded for it; it is empty afterwards.
            failed: why versions of it could not be loaded, by digest.
        """
        known, old, deployment = self._known(key, fresh), self._routes.get(key), self._wanted.get(key)
        fresh.clear()
        if deployment is None:
            self._routes.pop(key, None)
            self._carried_out.pop(key, None)
            self._failed.pop(key, None)
        else:
            route = _route(deployment, [known.get(self._identity(each)) for each in deployment.variants])
            before = {self._identity(each) for each in old.deployment.variants} if old else set()
            lacking = {self._identity(each) for each in deployment.variants if each.role != "standby"} - known.keys()
            if route is not None and (old is None or lacking <= before):
                self._routes[key] = route
            self._carried_out[key] = self._snapshot.number
            self._tell(key, deployment, old, failed)
        used = {id(each.lane) for each in self._routes[key].loaded} if key in self._routes else set()
        self._retire(tuple(each for each in known.values() if id(each.lane) not in used))

    def _tell(self, key: str, deployment: Deployment, old: Route | None, failed: dict[str, str]) -> None:
        """Remember what was refused, and log what changed."""
        failed = {each.digest: failed[each.digest] for each in deployment.variants if each.digest in failed}
        if failed:
            if key not in self._failed:
                self._retry_at = time.monotonic() + self._retry_seconds
            self._failed[key] = failed
            for digest, reason in failed.items():
                facts = {"endpoint": key, "digest": digest, "reason": reason}
                _logger.error("deployment refused", extra={"facts": facts})
        else:
            self._failed.pop(key, None)
        route = self._routes.get(key)
        if route is not None and (old is None or old.deployment != route.deployment):
            facts = {each.variant.role: f"{each.variant.model}:{each.variant.version}" for each in route.loaded}
            _logger.info("deployed", extra={"facts": {"endpoint": deployment.endpoint, **facts}})

    def _retire(self, versions: tuple[Loaded, ...]) -> None:
        for each in versions:
            self._spawn(self._drain(each.lane, each.variant.digest, each.predictor.isolated), self._drains)

    async def _drain(self, lane: Lane, digest: str, isolated: bool) -> None:
        try:
            await lane.drain(self._drain_timeout)
        finally:
            del lane
            await self._shelf.give_back(digest, isolated=isolated)

    def _note(self) -> None:
        """Tell control, by the state file, what is carried out."""
        number = self._snapshot.number
        if all(self._carried_out.get(key) == number for key in self._wanted):
            self._applied = number
            self._all_applied.set()
        if self._started:
            self._write_state()

    def _write_state(self) -> None:
        if self._state_path is None:
            return
        endpoints = {
            key: EndpointState(
                snapshot=number,
                loaded=tuple(each.variant.digest for each in loaded),
                failed=self._failed.get(key, {}),
                isolated=tuple(each.variant.digest for each in loaded if each.predictor.isolated),
            )
            for key, number in self._carried_out.items()
            for loaded in (self._routes[key].loaded if key in self._routes else (),)
        }
        number = self._snapshot.number if self._snapshot is not None else -1
        state = WorkerState(pid=os.getpid(), snapshot=self._applied, endpoints=endpoints, keys=number)
        try:
            self._state_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = self._state_path.with_name(f".{self._state_path.name}.tmp")
            temporary.write_bytes(msgspec.json.encode(state))
            temporary.replace(self._state_path)
        except OSError as error:
            # Predictions go on; control will say that this worker does not answer.
            _logger.error("the worker's state cannot be written", exc_info=error)


def _identity(loaded: Loaded) -> Identity:
    """Return what a version is loaded as."""
    variant = loaded.variant
    return variant.model, variant.version, variant.digest, loaded.predictor.isolated


def _past(variant: Variant, now: float) -> bool:
    return variant.role == "standby" and variant.until is not None and variant.until <= now


def _expired(route: Route, now: float) -> bool:
    return route.standby is not None and _past(route.standby.variant, now)


def _route(deployment: Deployment, known: Iterable[Loaded | None]) -> Route | None:
    """Put a route together from what is loaded of each version; None without the live one."""
    parts: dict[str, Loaded] = {}
    now = time.time()
    for variant, loaded in zip(deployment.variants, known, strict=True):
        if loaded is not None and not _past(variant, now):
            parts[variant.role] = Loaded(variant, loaded.predictor, loaded.lane)
    if "live" not in parts:
        return None
    return Route(deployment, parts["live"], parts.get("canary"), parts.get("shadow"), parts.get("standby"))
