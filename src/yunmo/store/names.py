"""Names in a workspace that nobody need hold: looked up without changing anything, for the shell's completion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Select, create_engine, select
from sqlalchemy.engine import Connection

from yunmo.core.access import DEFAULT_PROJECT
from yunmo.store.tables import DatasetRow, EndpointRow, ModelRow, VersionRow
from yunmo.store.workspace import Workspace


def endpoint_names(workspace: Workspace) -> list[str]:
    """Return the names of the endpoints."""
    query = select(EndpointRow.name).where(EndpointRow.project_id == DEFAULT_PROJECT).order_by(EndpointRow.name)
    return [name for (name,) in _rows(workspace, query)]


def model_versions(workspace: Workspace) -> list[str]:
    """Return the model versions as NAME:V."""
    query = select(ModelRow.name, VersionRow.version).join(VersionRow, VersionRow.model_id == ModelRow.id)
    query = query.where(ModelRow.project_id == DEFAULT_PROJECT).order_by(ModelRow.name, VersionRow.version)
    return [f"{name}:{version}" for name, version in _rows(workspace, query)]


def dataset_versions(workspace: Workspace) -> list[str]:
    """Return the dataset versions as NAME:V."""
    query = select(DatasetRow.name, DatasetRow.version).where(DatasetRow.project_id == DEFAULT_PROJECT)
    query = query.order_by(DatasetRow.name, DatasetRow.version)
    return [f"{name}:{version}" for name, version in _rows(workspace, query)]


def _rows(workspace: Workspace, query: Select[*tuple[Any, ...]]) -> list[Any]:
    with _reading(workspace) as connection:
        return list(connection.execute(query))


@contextmanager
def _reading(workspace: Workspace) -> Iterator[Connection]:
    """Open the metadata for reading alone: no migration, and no file is made.

    Raises:
        OperationalError: there is none, or it is that of another version.
    """
    path = workspace.database_url.removeprefix("sqlite:///")
    engine = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
