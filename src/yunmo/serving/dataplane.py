"""The data plane: predictions, knowing no protocol. Faces translate to it and from it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from yunmo.core.access import Principal
from yunmo.core.errors import Forbidden, InvalidInput, ModelFailed, NotFound, Unavailable, YunmoError
from yunmo.serving.admission import Admission
from yunmo.serving.deployments import Deployments
from yunmo.serving.observer import Activity, LaneMeter, Span
from yunmo.serving.routing import Loaded, Route
from yunmo.serving.shadow import Mirror

if TYPE_CHECKING:
    from yunmo.inference.predictor import Predictor

INLINE_BYTES = 64 * 1024
"""Requests of up to so many bytes are encoded on the event loop; a hop to a thread would cost more than it frees."""

Row = Mapping[str, Any]
Columns = Mapping[str, Sequence[Any]]
"""Raw values by field, a value for each row; numpy arrays are sequences too."""

_logger = logging.getLogger("yunmo.dataplane")


class Call(msgspec.Struct):
    """One request to an endpoint: what a face knows of it, and what the data plane leaves in it."""

    endpoint: str
    principal: Principal
    version: int | None = None
    """The one version that may answer; None: any."""
    timeout: float | None = None
    """Seconds that the caller gives it; the endpoint's own limit holds if it is less."""
    sticky: str | None = None
    """What keeps a caller on one side of a canary."""
    size: int = 0
    """Bytes of the request."""
    span: Span | None = None
    """Is told of the batch, if the request is traced."""
    meter: LaneMeter | None = None
    """Of the version that was chosen: who made the call tells it how the request ended."""


class Answer(msgspec.Struct, frozen=True):
    """The predictions of one request, in the order of its rows, and who made them."""

    endpoint: str
    model: str
    version: int
    predictions: list[dict[str, Any]]


class Inferred(msgspec.Struct, frozen=True):
    """The graph's outputs for one request, and who made them."""

    model: str
    version: int
    predictor: Any
    """The `Predictor` whose outputs these are: it knows their names and categories."""
    tensors: dict[str, Any]


class DataPlane:
    """Answers requests to endpoints.

    Args:
        deployments: which versions answer for which endpoint.
        admission: holds the limits of endpoints over all workers.
        timeout: seconds that a prediction may take, all in all.
    """

    def __init__(self, deployments: Deployments, admission: Admission, *, timeout: float) -> None:
        self.deployments = deployments
        self._admission = admission
        self.mirror = Mirror()
        """Shows what was answered to shadows."""
        self.activity = Activity()
        """The requests in progress; faces count theirs in it."""
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
            TooManyRequests: what would be asked of it now could not be answered in time.
            Unavailable: the endpoint exists but its model is not loaded.
        """
        looking = read and principal.may("read")
        if not looking and not principal.may("predict"):
            raise Forbidden("this key may not call endpoints", remedy="Use a key with the scope 'predict'")
        if looking or principal.may_call(endpoint):
            route = self.deployments.route(principal.project_id, endpoint)
            if route is not None:
                if not read and route.canary is None:  # else it is not known yet whose queue it is
                    route.live.lane.check_room(1, route.deployment.limits.seconds(self._timeout))
                return route
            if self.deployments.wanted(principal.project_id, endpoint):
                raise Unavailable(f"the model of endpoint {endpoint!r} is not loaded", remedy="Try again in a moment")
        raise NotFound(f"there is no endpoint {endpoint[:100]!r}", remedy="See 'yunmo endpoints ls'")

    def endpoints(self, principal: Principal) -> dict[str, Route | None]:
        """Return the endpoints that a principal may know of, each with what answers for it; None if nothing does yet.

        Raises:
            Forbidden: the key may neither look at endpoints nor call them.
        """
        looking = principal.may("read")
        if not looking and not principal.may("predict"):
            raise Forbidden("this key may not see endpoints", remedy="Use a key with the scope 'predict' or 'read'")
        every = self.deployments.endpoints(principal.project_id)
        return {name: route for name, route in every.items() if looking or principal.may_call(name)}

    async def predict(self, call: Call, rows: Sequence[Row]) -> Answer:
        """Answer one request of rows.

        Args:
            call: the request.
            rows: raw values by field.

        Raises:
            InvalidInput: the rows do not fit the model's fields.
            DeadlineExceeded: no answer in time.
            TooManyRequests: a queue or limit is full.
            ModelFailed: the model raised an error.
            YunmoError: as `route`.
        """
        loaded, answers = await self._answer(call, len(rows), lambda model: model.encode(rows))
        predictions = await _translate(call, loaded.predictor.decode, answers)
        variant = loaded.variant
        return Answer(call.endpoint, variant.model, variant.version, predictions)

    async def infer(self, call: Call, columns: Callable[[Predictor], Columns], rows: int) -> Inferred:
        """Answer one request of columns with the graph's own outputs.

        Args:
            call: the request.
            columns: called with the predictor that was chosen, returns raw values by field; raises InvalidInput if
                they are not what it needs.
            rows: how many values each column has.

        Raises:
            YunmoError: as `predict`.
        """
        loaded, answers = await self._answer(call, rows, lambda model: model.encode_columns(columns(model), rows))
        return Inferred(loaded.variant.model, loaded.variant.version, loaded.predictor, answers)

    async def _answer(
        self, call: Call, rows: int, encode: Callable[[Predictor], dict[str, Any]]
    ) -> tuple[Loaded, dict[str, Any]]:
        route = self.route(call.endpoint, call.principal)
        if not rows:
            raise InvalidInput("there is no row to predict", remedy="Send at least one")
        loaded = route.choose(call)
        meter = call.meter = loaded.lane.meter
        meter.begin()
        timeout = route.deployment.limits.seconds(self._timeout)
        if call.timeout is not None and call.timeout < timeout:
            timeout = call.timeout
        deadline = asyncio.get_running_loop().time() + timeout
        with self._admission.enter(route.deployment, rows), loaded.lane as lane:
            tensors = await _translate(call, encode, loaded.predictor)
            answers = await lane.run(tensors, rows, deadline, alone=self.activity.alone, span=call.span)
        self.mirror.show(route, loaded, encode, rows, answers)
        return loaded, answers


async def _translate(call: Call, work: Callable[[Any], Any], argument: Any) -> Any:
    """Encode or decode: on the event loop if the request is small, else in a thread."""
    try:
        return work(argument) if call.size <= INLINE_BYTES else await asyncio.to_thread(work, argument)
    except (YunmoError, asyncio.CancelledError):
        raise
    except Exception as error:
        _logger.exception("a request could not be translated")
        raise ModelFailed("the model could not compute an answer") from error
