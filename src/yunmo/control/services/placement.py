"""What an endpoint's row says, and how each verb changes it: which version answers, which is tried beside it.

An endpoint has one live version. Beside it there may be a canary, which answers a share, and a shadow, whose answers
are compared: the trials. A version has one part only; to give it another is to take it from the first.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from yunmo.core.errors import Conflict
from yunmo.core.snapshot import Limits, Role, Sticky
from yunmo.store.tables import EndpointRow

ALL = 100
"""Percent."""


@dataclass(frozen=True)
class Placement:
    """The columns of an endpoint's row that verbs change; versions by the ids of their rows."""

    version_id: str
    previous_id: str | None = None
    canary_id: str | None = None
    canary_weight: int | None = None
    shadow_id: str | None = None
    switched_at: float | None = None
    sticky: Sticky = "request"
    concurrency: int | None = None
    queue: int | None = None
    timeout: float | None = None

    @property
    def limits(self) -> Limits:
        """The endpoint's limits."""
        return Limits(concurrency=self.concurrency, queue=self.queue, timeout=self.timeout)

    def parts(self, now: float, standby_seconds: float) -> list[tuple[Role, str, int, float | None]]:
        """Return the versions that workers need: role, version's id, weight in percent, and until when.

        Args:
            now: seconds since 1970.
            standby_seconds: how long a replaced version stays loaded.
        """
        canary = self.canary_weight or 0 if self.canary_id else 0
        found: list[tuple[Role, str, int, float | None]] = [("live", self.version_id, ALL - canary, None)]
        if self.canary_id:
            found.append(("canary", self.canary_id, canary, None))
        if self.shadow_id:
            found.append(("shadow", self.shadow_id, ALL, None))
        until = (self.switched_at or 0.0) + standby_seconds
        if self.previous_id and self.previous_id not in {each[1] for each in found} and until > now:
            found.append(("standby", self.previous_id, 0, until))
        return found

    def with_live(self, version_id: str, now: float) -> Placement:
        """Give a version all traffic; trials end. The live one before becomes the previous one."""
        if version_id == self.version_id:
            return self._alone()
        return replace(self._alone(), version_id=version_id, previous_id=self.version_id, switched_at=now)

    def with_canary(self, version_id: str, weight: int) -> Placement:
        """Give a version a share in place of the canary, if there is one.

        Raises:
            Conflict: it is the live version.
        """
        self._refuse_live(version_id, "canary")
        shadow_id = None if self.shadow_id == version_id else self.shadow_id
        return replace(self, canary_id=version_id, canary_weight=weight, shadow_id=shadow_id)

    def with_shadow(self, version_id: str) -> Placement:
        """Compare a version with the live one in place of the shadow, if there is one.

        Raises:
            Conflict: it is the live version.
        """
        self._refuse_live(version_id, "shadow")
        if self.canary_id == version_id:
            return replace(self, shadow_id=version_id, canary_id=None, canary_weight=None)
        return replace(self, shadow_id=version_id)

    def rolled_back(self, now: float) -> Placement:
        """End the trials if there is one, else go back to the previous version.

        Raises:
            Conflict: there was no other version.
        """
        if self.canary_id or self.shadow_id:
            return self._alone()
        if self.previous_id is None:
            raise Conflict("the endpoint has had no other version")
        return self.with_live(self.previous_id, now)

    def _alone(self) -> Placement:
        return replace(self, canary_id=None, canary_weight=None, shadow_id=None)

    def _refuse_live(self, version_id: str, role: str) -> None:
        if version_id == self.version_id:
            raise Conflict(f"the live version cannot be its own {role}", remedy="Name another version")


def placement(row: EndpointRow) -> Placement:
    """Return what a row says."""
    return Placement(**{name: getattr(row, name) for name in _COLUMNS})


def write(row: EndpointRow, placement: Placement) -> None:
    """Change a row."""
    for name in _COLUMNS:
        setattr(row, name, getattr(placement, name))


_COLUMNS = tuple(each.name for each in fields(Placement))
