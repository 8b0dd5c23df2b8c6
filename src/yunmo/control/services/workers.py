"""What the data workers say of themselves, and waiting until they do as told."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import msgspec

from yunmo.control.context import Context
from yunmo.core.errors import BundleError, DeadlineExceeded
from yunmo.core.snapshot import WorkerState

_POLL_SECONDS = 0.02
_KEY_SECONDS = 5.0


class WorkerStates:
    """Reads the state files of live data workers."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def live(self) -> Sequence[WorkerState]:
        """Return the states of all data workers that run."""
        states = []
        for path in self._context.workspace.workers_folder.glob("*.json"):
            try:
                state = msgspec.json.decode(path.read_bytes(), type=WorkerState)
            except (OSError, msgspec.MsgspecError):
                continue  # just ended; a file is replaced in one piece, so it is never half there
            if _is_alive(state.pid):
                states.append(state)
        return states

    def wait(self, number: int, key: str, digest: str | None = None) -> None:
        """Wait until every live worker has carried out what a snapshot says of one endpoint.

        Args:
            number: of the snapshot.
            key: of the endpoint, as `yunmo.core.snapshot.endpoint_key` makes it.
            digest: of a version that must then be loaded for it; None: of none.

        Raises:
            BundleError: a worker refused that version.
            DeadlineExceeded: a worker did not answer in time.
        """
        end = time.monotonic() + self._context.settings.deploy_timeout
        while True:
            waiting = None
            for state in self.live():
                endpoint = state.endpoints.get(key)
                if endpoint is None or endpoint.snapshot < number:
                    waiting = state.pid
                elif digest is not None and digest not in endpoint.loaded:
                    reason = endpoint.failed.get(digest, "it gave no reason")
                    raise BundleError(f"a worker refused the bundle: {reason}", where=_name(key))
            if waiting is None:
                return
            self._check_time(end, waiting, key)

    def wait_gone(self, key: str) -> None:
        """Wait until no live worker answers for an endpoint any more.

        Raises:
            DeadlineExceeded: a worker did not take it away in time.
        """
        end = time.monotonic() + self._context.settings.deploy_timeout
        while waiting := [state.pid for state in self.live() if key in state.endpoints]:
            self._check_time(end, waiting[0], key)

    def wait_keys(self, number: int) -> None:
        """Wait until every live worker holds requests against the keys of a snapshot, for a moment at most.

        What was done to a key is done in any case: a worker that hangs learns of it as soon as it can.

        Args:
            number: of the snapshot.
        """
        end = time.monotonic() + _KEY_SECONDS
        while any(state.keys < number for state in self.live()) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)

    def _check_time(self, end: float, pid: int, key: str) -> None:
        """Sleep a little, unless the time is over."""
        if time.monotonic() > end:
            raise DeadlineExceeded(
                f"worker {pid} did not take the change within {self._context.settings.deploy_timeout:g} s",
                where=_name(key),
                remedy="See its log, or raise the setting deploy_timeout",
            )
        time.sleep(_POLL_SECONDS)


def has_loaded(states: Sequence[WorkerState], key: str, digest: str) -> bool:
    """Say whether there are workers, and all of them have a version loaded for an endpoint."""
    return bool(states) and all(key in state.endpoints and digest in state.endpoints[key].loaded for state in states)


def is_isolated(states: Sequence[WorkerState], key: str, digest: str) -> bool:
    """Say whether a worker runs a version of an endpoint in a process of its own."""
    return any(key in state.endpoints and digest in state.endpoints[key].isolated for state in states)


def _name(key: str) -> str:
    return key.partition("/")[2]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
