"""The data plane: predictions, knowing no protocol. Faces translate to it and from it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from yunmo.core.access import Principal
from yunmo.core.errors import DeadlineExceeded, Forbidden, InvalidInput, ModelFailed, NotFound, Unavailable, YunmoError
from yunmo.serving.deployments import Deployments, Route

INLINE_BYTES = 64 * 1024
"""Requests of up to so many bytes are encoded on the event loop; a hop to a thread would cost more than it frees."""

Row = Mapping[str, Any]

_logger = logging.getLogger("yunmo.dataplane")


class Answer(msgspec.Struct, frozen=True):
    """The predictions of one request, in the order of its rows, and who made them."""

    endpoint: str
    model: str
    version: int
    predictions: list[dict[str, Any]]


class DataPlane:
    """Answers requests to endpoints.

    Args:
        deployments: which model answers for which endpoint.
        timeout: seconds that a prediction may take, all in all.
    """

    def __init__(self, deployments: Deployments, *, timeout: float) -> None:
        self.deployments = deployments
        self._timeout = timeout

    def route(self, endpoint: str, principal: Principal, *, read: bool = False) -> Route:
        """Return what answers for an endpoint, if the principal may call it.

        Args:
            endpoint: its name.
            principal: who asks.
            read: looking is enough (its schema), which the scope ``read`` allows too.

        Raises:
            Forbidden: the key has not the scope.
            NotFound: no such endpoint, or none that this key may know of.
            Unavailable: the endpoint exists but its model is not loaded.
        """
        looking = read and principal.may("read")
        if not looking and not principal.may("predict"):
            raise Forbidden("this key may not call endpoints", remedy="Use a key with the scope 'predict'")
        unknown = NotFound(f"there is no endpoint {endpoint!r}", remedy="See 'yunmo endpoints ls'")
        if not looking and not principal.may_call(endpoint):
            raise unknown
        route = self.deployments.route(principal.project_id, endpoint)
        if route is not None:
            return route
        if self.deployments.wanted(principal.project_id, endpoint):
            raise Unavailable(f"the model of endpoint {endpoint!r} is not loaded", remedy="Try again in a moment")
        raise unknown

    async def predict(self, endpoint: str, rows: Sequence[Row], principal: Principal, *, size: int = 0) -> Answer:
        """Answer one request.

        Args:
            endpoint: its name.
            rows: raw values by field.
            principal: who asks.
            size: bytes of the request, which decide where it is encoded.

        Raises:
            InvalidInput: the rows do not fit the model's fields.
            DeadlineExceeded: no answer in time.
            TooManyRequests: the queue is full.
            ModelFailed: the model raised an error.
            YunmoError: as `route`.
        """
        route = self.route(endpoint, principal)
        if not rows:
            raise InvalidInput("there is no row to predict", remedy="Send at least one")
        try:
            async with asyncio.timeout(self._timeout):
                predictions = await self._answer(route, rows, size)
        except TimeoutError:
            raise DeadlineExceeded(f"no answer within {self._timeout:g} seconds", remedy="Try again later") from None
        deployment = route.deployment
        return Answer(deployment.endpoint, deployment.model, deployment.version, predictions)

    @staticmethod
    async def _answer(route: Route, rows: Sequence[Row], size: int) -> list[dict[str, Any]]:
        inline = size <= INLINE_BYTES
        with route.lane as lane:
            try:
                model = lane.model
                tensors = model.encode(rows) if inline else await asyncio.to_thread(model.encode, rows)
                answers = await lane.run(tensors, len(rows))
                return model.decode(answers) if inline else await asyncio.to_thread(model.decode, answers)
            except (YunmoError, asyncio.CancelledError):
                raise
            except Exception as error:
                _logger.exception("a request could not be translated")
                raise ModelFailed("the model could not compute an answer") from error
