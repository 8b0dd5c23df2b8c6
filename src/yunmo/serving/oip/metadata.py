"""What the protocol tells of the server and its models; the REST and the gRPC face say the same."""

from __future__ import annotations

from yunmo import __version__
from yunmo.core.access import Principal
from yunmo.core.errors import NotFound, Unavailable
from yunmo.data.fields.base import Wire
from yunmo.protocol.oip_types import MetadataTensor, ModelMetadata, RepositoryModel, ServerMetadata
from yunmo.serving.dataplane import DataPlane
from yunmo.serving.oip.signature import PLATFORM, dimensions, signature
from yunmo.serving.routing import Loaded, Route

EXTENSIONS = ["binary_tensor_data"]


def server_metadata() -> ServerMetadata:
    """Return name, version and extensions of the server."""
    return ServerMetadata("yunmo", __version__, EXTENSIONS)


def server_ready(dataplane: DataPlane, principal: Principal) -> bool:
    """Say whether every endpoint that a principal may know of answers."""
    return dataplane.deployments.applied >= 0 and all(dataplane.endpoints(principal).values())


def model_metadata(route: Route, version: int | None) -> ModelMetadata:
    """Describe a model.

    Args:
        route: its endpoint's.
        version: which of its versions; None: the live one.

    Raises:
        NotFound: that version gets no traffic.
    """
    chosen = _version(route, version)
    form = signature(chosen.predictor)
    return ModelMetadata(
        name=route.deployment.endpoint,
        versions=[str(each.variant.version) for each in _answering(route)],
        platform=PLATFORM,
        inputs=[_described(name, wires[0]) for name, wires in form.inputs.items()],
        outputs=[_described(each.name, each.wire) for each in form.outputs.values()],
    )


def model_ready(dataplane: DataPlane, endpoint: str, version: int | None, principal: Principal) -> bool:
    """Say whether a model answers.

    Raises:
        NotFound: there is no such endpoint or version for this principal.
        Forbidden: the key may not look at endpoints.
    """
    try:
        _version(dataplane.route(endpoint, principal, read=True), version)
    except Unavailable:
        return False
    return True


def repository_index(dataplane: DataPlane, principal: Principal, *, ready: bool) -> list[RepositoryModel]:
    """List the models that a principal may know of, a line for each version that gets traffic.

    Args:
        dataplane: has them.
        principal: who asks.
        ready: leave out those that don't answer.

    Raises:
        Forbidden: the key may neither look at endpoints nor call them.
    """
    models: list[RepositoryModel] = []
    for name, route in sorted(dataplane.endpoints(principal).items()):
        if route is not None:
            models += (RepositoryModel(name, str(each.variant.version), "READY", "") for each in _answering(route))
        elif not ready:
            models.append(RepositoryModel(name, "", "UNAVAILABLE", "the model is not loaded"))
    return models


def read_version(text: str | None) -> int | None:
    """Return the number of a version; None or an empty text: any version.

    Raises:
        NotFound: it is no number.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise NotFound(f"there is no version {text[:40]!r}", remedy="Versions are numbers such as 1")
    return int(text)


def _described(name: str, wire: Wire) -> MetadataTensor:
    return MetadataTensor(name, wire.datatype, dimensions(wire))


def _answering(route: Route) -> tuple[Loaded, ...]:
    return tuple(each for each in (route.live, route.canary) if each is not None)


def _version(route: Route, version: int | None) -> Loaded:
    for each in _answering(route):
        if version is None or each.variant.version == version:
            return each
    raise NotFound(
        f"version {version} does not answer for endpoint {route.deployment.endpoint!r}",
        remedy="Leave the version out, or see the model's metadata",
    )
