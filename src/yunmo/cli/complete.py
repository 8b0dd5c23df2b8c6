"""What the shell completes: names of endpoints, models and datasets, as far as they are found at once and silently."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from yunmo.cli.place import home

if TYPE_CHECKING:
    from yunmo.client.client import Client
    from yunmo.store.workspace import Workspace

_SECONDS = 2.0
"""How long a service may take to answer."""


def endpoint_names(incomplete: str) -> list[str]:
    """Return the endpoints that begin so."""

    def ask(client: Client) -> Iterable[str]:
        return [endpoint.name for endpoint in client.endpoints()]

    def read(workspace: Workspace) -> Iterable[str]:
        from yunmo.store.names import endpoint_names

        return endpoint_names(workspace)

    return _beginning(incomplete, ask, read)


def model_versions(incomplete: str) -> list[str]:
    """Return the model versions, as NAME:V, that begin so."""

    def ask(client: Client) -> Iterable[str]:
        return [f"{model.model}:{model.version}" for model in client.models()]

    def read(workspace: Workspace) -> Iterable[str]:
        from yunmo.store.names import model_versions

        return model_versions(workspace)

    return _beginning(incomplete, ask, read)


def dataset_versions(incomplete: str) -> list[str]:
    """Return the dataset versions, as NAME:V, that begin so."""

    def ask(client: Client) -> Iterable[str]:
        return [f"{dataset.name}:{dataset.version}" for dataset in client.datasets()]

    def read(workspace: Workspace) -> Iterable[str]:
        from yunmo.store.names import dataset_versions

        return dataset_versions(workspace)

    return _beginning(incomplete, ask, read)


def _beginning(
    incomplete: str, ask: Callable[[Client], Iterable[str]], read: Callable[[Workspace], Iterable[str]]
) -> list[str]:
    names: Iterable[str] = ()
    # Whatever is wrong, the next command says it; a message here would spoil the line that is being typed.
    with contextlib.suppress(Exception):
        names = _names(ask, read)
    return [name for name in names if name.startswith(incomplete)]


def _names(ask: Callable[[Client], Iterable[str]], read: Callable[[Workspace], Iterable[str]]) -> Iterable[str]:
    """Ask the service at ``YUNMO_URL``, or the one that holds the workspace; without one, look into the workspace."""
    from yunmo.store.workspace import Workspace

    if not os.environ.get("YUNMO_URL") and not home().is_dir():
        return ()
    with _service() as client:
        return ask(client) if client is not None else read(Workspace(home()))


@contextlib.contextmanager
def _service() -> Iterator[Client | None]:
    from yunmo.app.session import service_at

    found = service_at(home(), timeout=_SECONDS)
    if found is None:
        yield None
        return
    with found:
        yield found
