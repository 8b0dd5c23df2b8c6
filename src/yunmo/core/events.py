"""Events: what happened, typed and versioned. Where they are kept is ``store``'s; who reads them, everybody's.

A change of an event's meaning is a new class with a higher ``v``; old ones stay readable.
"""

from __future__ import annotations

from typing import Any, Literal

from yunmo.core.schema import Spec
from yunmo.core.snapshot import Limits, Role, Sticky


class Decision(Spec, frozen=True):
    """A key of the recipe that was left open, and what it was given."""

    key: str
    value: str
    reason: str


class RunQueued(Spec, frozen=True, tag_field="event", tag="run.queued"):
    """A run was accepted and waits for its turn."""

    name: str
    v: int = 1


class RunStarted(Spec, frozen=True, tag_field="event", tag="run.started"):
    """The runner began (or went on with) a run."""

    attempt: int
    v: int = 1


class StepStarted(Spec, frozen=True, tag_field="event", tag="run.step_started"):
    """A step of the workflow began: prepare, train, evaluate, pack, sign or register."""

    step: str
    v: int = 1


class StepFinished(Spec, frozen=True, tag_field="event", tag="run.step_finished"):
    """A step of the workflow ended."""

    step: str
    seconds: float
    v: int = 1


class DataPrepared(Spec, frozen=True, tag_field="event", tag="run.data_prepared"):
    """The data was read, cleaned, split and cached."""

    rows: dict[str, int]
    cleaning: dict[str, Any]
    v: int = 1


class RecipeResolved(Spec, frozen=True, tag_field="event", tag="run.recipe_resolved"):
    """Every decision is made and fixed, before the first step."""

    recipe: dict[str, Any]
    decisions: tuple[Decision, ...]
    """Everything that the recipe had left open."""
    v: int = 1


class TrainingProgress(Spec, frozen=True, tag_field="event", tag="run.progress"):
    """Where training is, a few times a second at most."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    rows_per_second: float
    seconds_left: float
    v: int = 1


class EpochFinished(Spec, frozen=True, tag_field="event", tag="run.epoch"):
    """An epoch ended and its checkpoint is on disk."""

    epoch: int
    epochs: int
    train_loss: float
    validation_loss: float
    metric: str
    """Name of the validation metric: accuracy, f1_micro, or rmse."""
    value: float
    best: bool
    lr: float
    seconds: float
    v: int = 1


class RunNotice(Spec, frozen=True, tag_field="event", tag="run.notice"):
    """Something a person should know: a row left out, a guess made, a warning."""

    message: str
    level: str = "info"
    v: int = 1


class RunFinished(Spec, frozen=True, tag_field="event", tag="run.finished"):
    """A run ended with a model version."""

    model: str
    version: int
    summary: dict[str, float]
    v: int = 1


class RunFailed(Spec, frozen=True, tag_field="event", tag="run.failed"):
    """A run ended with an error: a problem document."""

    problem: dict[str, Any]
    v: int = 1


class RunCancelled(Spec, frozen=True, tag_field="event", tag="run.cancelled"):
    """A run was stopped by someone; it can be resumed."""

    v: int = 1


class JobProgress(Spec, frozen=True, tag_field="event", tag="job.progress"):
    """How many rows of a job are answered and kept."""

    done: int
    v: int = 1


class EndpointDeployed(Spec, frozen=True, tag_field="event", tag="endpoint.deployed"):
    """An endpoint got its traffic's new target. It is no longer written: see `EndpointChanged`."""

    endpoint: str
    model: str
    version: int
    snapshot: int
    v: int = 1


class RoutedVersion(Spec, frozen=True):
    """A model version and its part in an endpoint."""

    role: Role
    model: str
    version: int
    weight: int


class EndpointChanged(Spec, frozen=True, tag_field="event", tag="endpoint.changed"):
    """An endpoint's traffic, limits or stickiness were changed, or it was taken away.

    It took the place of `EndpointDeployed`, which knew of one version only.
    """

    endpoint: str
    change: Literal["deployed", "canary", "shadow", "rolled_back", "settings", "deleted"]
    versions: tuple[RoutedVersion, ...]
    """Whoever answers or is compared since then, the live version first; none of a deleted endpoint."""
    limits: Limits
    sticky: Sticky
    snapshot: int
    v: int = 1


class KeyChanged(Spec, frozen=True, tag_field="event", tag="key.changed"):
    """A key was made or revoked."""

    key_id: str
    change: str
    v: int = 1


AnyEvent = (
    RunQueued
    | RunStarted
    | StepStarted
    | StepFinished
    | DataPrepared
    | RecipeResolved
    | TrainingProgress
    | EpochFinished
    | RunNotice
    | RunFinished
    | RunFailed
    | RunCancelled
    | JobProgress
    | EndpointDeployed
    | EndpointChanged
    | KeyChanged
)

RUN_ENDINGS = (RunFinished, RunFailed, RunCancelled)
"""Events after which a run does nothing more until it is resumed."""


class Envelope(Spec, frozen=True):
    """An event as it is kept: who and what it is about, when, and its place in the one order of all events."""

    sequence: int
    id: str
    time: float
    """Seconds since 1970 (UTC)."""
    project_id: str
    subject: str
    """Id of what it is about: a run, endpoint or key."""
    event: AnyEvent
