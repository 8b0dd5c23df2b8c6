"""What the management API answers with and takes: the shapes that control, client and CLI share.

They are plain dataclasses so that FastAPI documents them and a client decodes them without FastAPI. Times are seconds
since 1970 (UTC).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

RunStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]

_REFUSE_UNKNOWN = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was stored: its SHA-256 is its name."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class SplitFile:
    """The file of one split."""

    digest: str
    filename: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class Dataset:
    """One version of a dataset."""

    id: str
    name: str
    version: int
    splits: dict[str, SplitFile]
    kind: str
    rows: dict[str, int]
    schema: list[dict[str, Any]]
    created_at: float


@dataclass(frozen=True, slots=True)
class NewDataset:
    """A request for a dataset version: uploaded files by split (train, validation, test)."""

    __pydantic_config__: ClassVar[Any] = _REFUSE_UNKNOWN
    name: str
    splits: dict[str, SplitFile]


@dataclass(frozen=True, slots=True)
class NewRun:
    """A request for a run. ``recipe.data`` names a dataset version; ``target`` names the output's column."""

    __pydantic_config__: ClassVar[Any] = _REFUSE_UNKNOWN
    recipe: dict[str, Any]
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a recipe."""

    id: str
    name: str
    status: RunStatus
    dataset: str
    recipe: dict[str, Any]
    resolved: dict[str, Any] | None
    model: str | None
    version: int | None
    summary: dict[str, float] | None
    problem: dict[str, Any] | None
    attempt: int
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a model: one signed bundle."""

    id: str
    model: str
    version: int
    digest: str
    size: int
    run_id: str | None
    summary: dict[str, float]
    aliases: list[str]
    created_at: float


@dataclass(frozen=True, slots=True)
class Verification:
    """What checking a bundle's signature and files found."""

    model: str
    version: int
    valid: bool
    detail: str


@dataclass(frozen=True, slots=True)
class NewDeployment:
    """A request to send an endpoint's traffic to a model version (``NAME:V`` or ``NAME@ALIAS``)."""

    __pydantic_config__: ClassVar[Any] = _REFUSE_UNKNOWN
    model: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A stable name whose traffic goes to a model version."""

    id: str
    name: str
    model: str
    version: int
    digest: str
    previous: str | None
    ready: bool
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class NewKey:
    """A request for a key."""

    __pydantic_config__: ClassVar[Any] = _REFUSE_UNKNOWN
    name: str
    scopes: list[str] = field(default_factory=lambda: ["predict"])
    endpoints: list[str] | None = None
    expires_in: float | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret."""

    id: str
    name: str
    prefix: str
    scopes: list[str]
    endpoints: list[str] | None
    created_at: float
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new key with its secret, which is shown this once."""

    secret: str
    key: Key


@dataclass(frozen=True, slots=True)
class NewEvaluation:
    """A request to evaluate a model version on uploaded data."""

    __pydantic_config__: ClassVar[Any] = _REFUSE_UNKNOWN
    data: SplitFile
