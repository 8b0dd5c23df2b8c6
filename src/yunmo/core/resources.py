"""What the management API answers with and takes: the shapes that control, client and CLI share.

They are plain dataclasses so that FastAPI documents them and a client decodes them without FastAPI. Times are seconds
since 1970 (UTC).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from yunmo.core.snapshot import Sticky

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
class NewImport:
    """A request to make a bundle of an uploaded ONNX file.

    ``name`` is that of the model (by default the file's), ``fields`` the content of a fields file.
    """

    __pydantic_config__: ClassVar[Any] = _REFUSE_UNKNOWN
    file: SplitFile
    name: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verification:
    """What checking a bundle's signature and files found."""

    model: str
    version: int
    valid: bool
    detail: str


@dataclass(frozen=True, slots=True)
class NewDeployment:
    """A request to give a model version (``NAME:V`` or ``NAME@ALIAS``) a part in an endpoint.

    Without more it gets all traffic. ``canary`` gives it so many percent (1 to 99) beside the live version; ``shadow``
    has it shown every request, and compares its answers, which nobody gets.
    """

    __pydantic_config__: ClassVar[Any] = _REFUSE_UNKNOWN
    model: str
    canary: int | None = None
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class EndpointVersion:
    """A model version and its part in an endpoint."""

    model: str
    version: int
    digest: str
    weight: int
    """Percent of the requests that it answers, or is shown as a shadow."""
    ready: bool
    """Whether every data worker has it loaded."""
    isolated: bool = False
    """Whether it runs in a process of its own, because it ended a data worker or the setting ``isolate`` says so."""


@dataclass(frozen=True, slots=True)
class EndpointLimits:
    """What an endpoint takes on, over all data workers; null: no limit but the installation's."""

    concurrency: int | None
    """Requests in progress."""
    queue: int | None
    """Rows in progress: those that wait and those that run."""
    timeout: float | None
    """Seconds that a request may take."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A stable name, and the model versions behind it."""

    id: str
    name: str
    live: EndpointVersion
    canary: EndpointVersion | None
    shadow: EndpointVersion | None
    previous: EndpointVersion | None
    """Where a rollback without a canary or shadow goes; if it is ready, at once."""
    limits: EndpointLimits
    sticky: Sticky
    ready: bool
    """Whether every data worker answers as told."""
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class NewJob:
    """A request for the answers of an endpoint's live version to every row of a dataset's split.

    ``dataset`` is ``NAME`` or ``NAME:V``. The answers become a version of the dataset ``name``, by default
    ``NAME-answers``.
    """

    __pydantic_config__: ClassVar[Any] = _REFUSE_UNKNOWN
    dataset: str
    split: str = "train"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """The prediction of a whole dataset."""

    id: str
    endpoint: str
    model: str
    version: int
    dataset: str
    split: str
    status: RunStatus
    rows: int
    done: int
    """Rows that are answered and kept, whatever happens."""
    output: str | None
    """The dataset version with the answers."""
    problem: dict[str, Any] | None
    attempt: int
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
