"""What probes tell: plain data, so that it can come from another process. No torch."""

from __future__ import annotations

from typing import Any

from yunmo.core.events import Decision
from yunmo.core.schema import Spec


class Cost(Spec, frozen=True, tag_field="found", tag=True):
    """What training would decide, and what the network costs then."""

    recipe: dict[str, Any]
    """Resolved."""
    decisions: tuple[Decision, ...]
    parameters: int
    deciding: float
    """Seconds of measuring what decisions need."""
    step: float
    """Seconds of a step with a whole batch."""
    judge: float
    """Seconds of judging a validation row."""
    save: float
    """Seconds of keeping an epoch."""
    grown: int
    """Bytes that this process grew by at most."""


class Learned(Spec, frozen=True, tag_field="found", tag=True):
    """A short training."""

    rows: int
    epochs: int
    error: float
    """Share of validation rows that were wrong, or share of the variance that is left."""
    judged: int
    """Validation rows."""
    seconds: float
    """Of learning, without making the network and judging it."""
    batch: int | None
    """Rows of a step; None: it has no steps."""
    grown: int
    """Bytes that this process had grown by at most by then."""


Finding = Cost | Learned
