"""The snapshot: all that data workers need to know, published by control as one atomic, numbered file."""

from __future__ import annotations

import msgspec

from yunmo.core.access import KeyRecord
from yunmo.core.schema import Spec


class Deployment(Spec, frozen=True):
    """An endpoint and the bundle that answers for it."""

    endpoint: str
    project_id: str
    model: str
    version: int
    digest: str
    path: str
    """Folder of the bundle, readable by data workers."""


class Snapshot(Spec, frozen=True):
    """Keys and deployments as of one moment. A higher number is newer."""

    number: int
    keys: tuple[KeyRecord, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    trusted_key: str = ""
    """PEM of the public key that signs the workspace's bundles."""


class WorkerState(Spec, frozen=True):
    """What one data worker has applied; control waits for it, readiness shows it."""

    pid: int
    snapshot: int
    loaded: dict[str, str] = {}
    """Endpoint to the digest that answers for it."""
    failed: dict[str, str] = {}
    """Endpoint to the reason why its newest digest was refused."""


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return a snapshot as JSON."""
    return msgspec.json.encode(snapshot)


def decode_snapshot(data: bytes) -> Snapshot:
    """Read a snapshot from JSON."""
    return msgspec.json.decode(data, type=Snapshot)
