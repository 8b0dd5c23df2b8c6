"""Which of an endpoint's versions answers a request.

The share of a canary is drawn from a stable hash: whoever is within the first 10 % is also within the first 20 %, in
every worker and after every restart, so a caller never goes back and forth while the share grows.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from yunmo.core.access import Principal
from yunmo.core.errors import NotFound
from yunmo.core.snapshot import Deployment, Variant

if TYPE_CHECKING:
    from yunmo.inference.predictor import Predictor
    from yunmo.serving.lane import Lane

PLACES = 10_000
"""Into so many places callers are spread; a weight of 1 % takes the first 100 of them."""


class Caller(Protocol):
    """What routing looks at in a request: `yunmo.serving.dataplane.Call` is one."""

    @property
    def principal(self) -> Principal:
        """Who asks."""

    @property
    def version(self) -> int | None:
        """The one version that may answer; None: any."""

    @property
    def sticky(self) -> str | None:
        """What keeps a caller on one side of the canary, as the request says; None: it says nothing."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version that can answer: what it is, its predictor, and the lane of this endpoint's requests to it."""

    variant: Variant
    predictor: Predictor
    lane: Lane


@dataclass(frozen=True, slots=True)
class Route:
    """A deployment that answers: the versions behind it, loaded."""

    deployment: Deployment
    live: Loaded
    canary: Loaded | None = None
    shadow: Loaded | None = None
    standby: Loaded | None = None

    @property
    def loaded(self) -> tuple[Loaded, ...]:
        """All versions that are loaded, the live one first."""
        return tuple(each for each in (self.live, self.canary, self.shadow, self.standby) if each is not None)

    def choose(self, call: Caller) -> Loaded:
        """Return the version that answers a request: the live one or the canary.

        A request that names what it sticks to is always answered by the same side; else, if the endpoint sticks to
        keys, each key is; else chance decides.

        Args:
            call: the request.

        Raises:
            NotFound: it asks for a version that gets no traffic here.
        """
        if call.version is not None:
            return self._exactly(call.version)
        canary = self.canary
        if canary is None:
            return self.live
        text = call.sticky
        if text is None and self.deployment.sticky == "key":
            text = call.principal.key_id
        # Chance needs no cryptography here: nothing is kept secret by it.
        drawn = random.randrange(PLACES) if text is None else place(self.deployment.endpoint, text)  # noqa: S311
        return canary if drawn * 100 < canary.variant.weight * PLACES else self.live

    def _exactly(self, version: int) -> Loaded:
        for each in (self.live, self.canary):
            if each is not None and each.variant.version == version:
                return each
        raise NotFound(
            f"version {version} does not answer for endpoint {self.deployment.endpoint!r}",
            remedy="Leave the version out, or see 'yunmo endpoints show'",
        )


def place(endpoint: str, text: str) -> int:
    """Return where a caller stands among `PLACES`: the same at any time, in any process; another at each endpoint.

    Args:
        endpoint: name of the endpoint.
        text: what the caller sticks to.
    """
    digest = hashlib.blake2b(f"{endpoint}\0{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % PLACES
