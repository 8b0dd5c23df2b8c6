"""The snapshot: all that data workers need to know, published by control as one atomic, numbered file."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from yunmo.core.access import KeyRecord
from yunmo.core.schema import Spec

Role = Literal["live", "canary", "shadow", "standby"]
"""What a version does for an endpoint: it answers; it answers a share; its answers are compared and never returned; it
stays loaded without traffic, so that a rollback takes no load."""
Sticky = Literal["request", "key"]
"""What decides whether the canary answers, where a request does not say: chance, or who asks."""


class Variant(Spec, frozen=True):
    """A model version and its part in an endpoint."""

    model: str
    version: int
    digest: str
    path: str
    """Folder of the bundle, readable by data workers."""
    weight: Annotated[int, Meta(ge=0, le=100)] = 100
    """Share of the requests in percent: of the live version what the canary leaves, of a shadow those it is shown."""
    role: Role = "live"
    until: float | None = None
    """When a standby is given up, in seconds since 1970 (UTC); None: never."""


class Limits(Spec, frozen=True):
    """What an endpoint takes on, over all workers; None: no limit but the installation's."""

    concurrency: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Requests in progress."""
    queue: Annotated[int, Meta(ge=1, le=100_000_000)] | None = None
    """Rows in progress: those that wait and those that run."""
    timeout: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    """Seconds that a request may take."""

    def seconds(self, installation: float) -> float:
        """Return the seconds that a request may take, where the installation's limit is ``installation``."""
        return installation if self.timeout is None else self.timeout


class Deployment(Spec, frozen=True):
    """An endpoint and the versions behind it: the first is the live one, of each other role there is one at most."""

    endpoint: str
    project_id: str
    variants: tuple[Variant, ...]
    limits: Limits = Limits()
    sticky: Sticky = "request"

    def __post_init__(self) -> None:
        """Refuse what no worker could route.

        Raises:
            ValueError: the first variant is not the live one, or two have the same role.
        """
        roles = [each.role for each in self.variants]
        if not roles or roles[0] != "live" or len(set(roles)) != len(roles):
            raise ValueError("a deployment has one live variant, its first, and one at most of each other role")

    @property
    def key(self) -> str:
        """The deployment's name among those of all projects."""
        return endpoint_key(self.project_id, self.endpoint)

    @property
    def live(self) -> Variant:
        """The version that answers."""
        return self.variants[0]

    def variant(self, role: Role) -> Variant | None:
        """Return the version that has a role, None if none has."""
        return next((each for each in self.variants if each.role == role), None)


class Snapshot(Spec, frozen=True):
    """Keys and deployments as of one moment. A higher number is newer."""

    number: int
    keys: tuple[KeyRecord, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    trusted_key: str = ""
    """PEM of the public key that signs the workspace's bundles."""


class EndpointState(Spec, frozen=True):
    """What one data worker has made of one endpoint."""

    snapshot: int
    """Newest snapshot whose word on this endpoint it has carried out or refused."""
    loaded: tuple[str, ...] = ()
    """Digests of the versions that are loaded for it, the live one first."""
    failed: dict[str, str] = {}
    """Digest of a version that was refused to the reason."""
    isolated: tuple[str, ...] = ()
    """Digests of those loaded versions that run in a process of their own."""


class WorkerState(Spec, frozen=True):
    """What one data worker has applied; control waits for it, readiness shows it."""

    pid: int
    snapshot: int
    """Newest snapshot of which everything is carried out or refused; -1: none yet."""
    endpoints: dict[str, EndpointState] = {}
    """By `endpoint_key`."""
    keys: int = -1
    """Newest snapshot whose keys are in force, which they are at once, whatever loads meanwhile."""


def endpoint_key(project_id: str, endpoint: str) -> str:
    """Return the name of an endpoint among those of all projects; neither part can have a slash in it."""
    return f"{project_id}/{endpoint}"


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return a snapshot as JSON."""
    return msgspec.json.encode(snapshot)


def decode_snapshot(data: bytes) -> Snapshot:
    """Read a snapshot from JSON."""
    return msgspec.json.decode(data, type=Snapshot)
