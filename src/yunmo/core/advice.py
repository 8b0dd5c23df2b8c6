"""What ``yunmo advise`` answers: networks for a task with what they are expected to cost and to reach."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from yunmo.core.events import Decision
from yunmo.core.schema import Spec


class ShortTraining(Spec, frozen=True):
    """A training of seconds on some of the rows."""

    rows: int
    epochs: int
    value: Annotated[float, Meta(description="the metric on validation rows")]
    judged: Annotated[int, Meta(description="validation rows")]


class Range(Spec, frozen=True):
    """Where the metric on the test rows is expected, in four of five cases."""

    low: float
    middle: float
    high: float


class Seconds(Spec, frozen=True):
    """How long a run is expected to take."""

    epochs: Annotated[float, Meta(description="all steps of all epochs: what the report calls timing.train")]
    run: Annotated[float, Meta(description="the whole of `yunmo train`, from the command to the signed bundle")]


class Candidate(Spec, frozen=True):
    """A network for the task."""

    name: str
    command: Annotated[str, Meta(description="the line that trains it")]
    settings: Annotated[tuple[str, ...], Meta(description="what the line sets beside what was asked for")] = ()
    epochs: int | None = None
    batch_size: int | None = None
    threads: int | None = None
    precision: str | None = None
    parameters: int | None = None
    seconds: Seconds | None = None
    memory: Annotated[
        int | None, Meta(description="bytes: the most that the training process is expected to have resident")
    ] = None
    metric: Range | None = None
    probes: tuple[ShortTraining, ...] = ()
    note: Annotated[str | None, Meta(description="why something is not known")] = None


class Yardstick(Spec, frozen=True):
    """The linear model that the report puts beside the network."""

    name: str
    seconds: float | None = None
    metric: Range | None = None
    probes: tuple[ShortTraining, ...] = ()
    note: str | None = None


class Advice(Spec, frozen=True):
    """Which network to take, and why."""

    data: str
    task: Literal["category", "number"]
    output: str
    metric: Annotated[Literal["accuracy", "r2"], Meta(description="of the first output")]
    rows: Annotated[dict[str, int], Meta(description="of each split, as training would divide them")]
    read: Annotated[float, Meta(description="share of the rows that were read; below 1, their numbers are estimates")]
    sampled: Annotated[dict[str, int], Meta(description="of these, how many were looked at")]
    decisions: Annotated[tuple[Decision, ...], Meta(description="what fields were taken for, and why")]
    candidates: Annotated[tuple[Candidate, ...], Meta(description="the first is what training takes by itself")]
    linear: Yardstick
    recommended: Annotated[str, Meta(description="name of a candidate")]
    reason: str
    command: str
    cores: int
    load: Annotated[float | None, Meta(description="processes that ran beside this, by the last minute's mean")]
    free_memory: Annotated[int, Meta(description="bytes")]
    seconds: Annotated[float, Meta(description="how long the advice took")]
