"""The metadata tables. Every row has its ``project_id``; times are seconds since 1970 (UTC)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, MetaData, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_Id = String(32)
_Name = String(64)
_Digest = String(71)
_JSON = JSON(none_as_null=True)


class Table(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: _JSON, list[Any]: _JSON}


class ProjectRow(Table):
    """A tenant; its ``id`` is what other rows have as ``project_id``."""

    __tablename__ = "projects"
    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    name: Mapped[str] = mapped_column(_Name, unique=True)
    created_at: Mapped[float]


class Owned:
    """What all rows of a project have: an id that sorts by time, the project, when they were made."""

    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    project_id: Mapped[str] = mapped_column(_Id, ForeignKey("projects.id"), index=True)
    created_at: Mapped[float]


class KeyRow(Owned, Table):
    """An API key; of its secret only the hash."""

    __tablename__ = "keys"
    name: Mapped[str] = mapped_column(String(128))
    prefix: Mapped[str] = mapped_column(String(16), unique=True)
    hash: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[Any]]
    endpoints: Mapped[list[Any] | None]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    internal: Mapped[bool]
    """The workspace's own key, which is not listed and cannot be revoked."""


class UploadRow(Owned, Table):
    """A file that a project uploaded; the bytes are in the artefact store and may be shared."""

    __tablename__ = "uploads"
    __table_args__ = (UniqueConstraint("project_id", "digest"),)
    digest: Mapped[str] = mapped_column(_Digest)
    size: Mapped[int]


class DatasetRow(Owned, Table):
    """One version of a dataset."""

    __tablename__ = "datasets"
    __table_args__ = (
        UniqueConstraint("project_id", "name", "version"),
        UniqueConstraint("project_id", "name", "content"),
    )
    name: Mapped[str] = mapped_column(_Name)
    version: Mapped[int]
    content: Mapped[str] = mapped_column(_Digest)
    """SHA-256 over the splits' digests: the same bytes are the same version."""
    kind: Mapped[str] = mapped_column(String(32))
    splits: Mapped[dict[str, Any]]
    rows: Mapped[dict[str, Any]]
    fields: Mapped[list[Any]]


class WorkRow(Owned, Table):
    """What the runner carries out, and how far it is: the columns that runs and jobs share."""

    __abstract__ = True
    name: Mapped[str] = mapped_column(_Name)
    status: Mapped[str] = mapped_column(String(16), index=True)
    problem: Mapped[dict[str, Any] | None]
    attempt: Mapped[int]
    cancel_requested: Mapped[bool]
    updated_at: Mapped[float]


class RunRow(WorkRow):
    """One execution of a recipe."""

    __tablename__ = "runs"
    dataset_id: Mapped[str] = mapped_column(_Id, ForeignKey("datasets.id"))
    target: Mapped[str | None] = mapped_column(String(128))
    recipe: Mapped[dict[str, Any]]
    resolved: Mapped[dict[str, Any] | None]
    summary: Mapped[dict[str, Any] | None]


class JobRow(WorkRow):
    """One prediction of a whole dataset; its name is that of the dataset that the answers become.

    It outlives its endpoint, which it knows by id and name.
    """

    __tablename__ = "jobs"
    endpoint_id: Mapped[str] = mapped_column(_Id)
    endpoint: Mapped[str] = mapped_column(_Name)
    version_id: Mapped[str] = mapped_column(_Id, ForeignKey("versions.id"))
    """What the endpoint's live version was when the job was accepted."""
    dataset_id: Mapped[str] = mapped_column(_Id, ForeignKey("datasets.id"))
    split: Mapped[str] = mapped_column(String(16))
    rows: Mapped[int]
    done: Mapped[int]
    output_id: Mapped[str | None] = mapped_column(_Id, ForeignKey("datasets.id"))


class ModelRow(Owned, Table):
    """A named line of versions."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("project_id", "name"),)
    name: Mapped[str] = mapped_column(_Name)


class VersionRow(Owned, Table):
    """A version of a model: one signed bundle."""

    __tablename__ = "versions"
    __table_args__ = (UniqueConstraint("model_id", "version"), UniqueConstraint("run_id"))
    model_id: Mapped[str] = mapped_column(_Id, ForeignKey("models.id"))
    version: Mapped[int]
    digest: Mapped[str] = mapped_column(_Digest)
    """Of the bundle: of its manifest."""
    artefact: Mapped[str] = mapped_column(_Digest)
    """Of the archive in the artefact store that holds the bundle."""
    size: Mapped[int]
    run_id: Mapped[str | None] = mapped_column(_Id, ForeignKey("runs.id"))
    summary: Mapped[dict[str, Any]]


class AliasRow(Owned, Table):
    """A name for one of a model's versions, such as ``champion``."""

    __tablename__ = "aliases"
    __table_args__ = (UniqueConstraint("model_id", "alias"),)
    model_id: Mapped[str] = mapped_column(_Id, ForeignKey("models.id"))
    alias: Mapped[str] = mapped_column(_Name)
    version_id: Mapped[str] = mapped_column(_Id, ForeignKey("versions.id"))


class EndpointRow(Owned, Table):
    """A stable name, the versions behind it, and its limits (null: none of its own)."""

    __tablename__ = "endpoints"
    __table_args__ = (UniqueConstraint("project_id", "name"),)
    name: Mapped[str] = mapped_column(_Name)
    version_id: Mapped[str] = mapped_column(_Id, ForeignKey("versions.id"))
    previous_id: Mapped[str | None] = mapped_column(_Id, ForeignKey("versions.id"))
    canary_id: Mapped[str | None] = mapped_column(_Id, ForeignKey("versions.id"))
    canary_weight: Mapped[int | None]
    """Percent of the requests that the canary answers."""
    shadow_id: Mapped[str | None] = mapped_column(_Id, ForeignKey("versions.id"))
    switched_at: Mapped[float | None]
    """When the live version took over from the previous one."""
    sticky: Mapped[str] = mapped_column(String(16), server_default="request")
    concurrency: Mapped[int | None]
    queue: Mapped[int | None]
    timeout: Mapped[float | None]
    updated_at: Mapped[float]


class CounterRow(Table):
    """A number that only ever grows, such as the snapshot's."""

    __tablename__ = "counters"
    project_id: Mapped[str] = mapped_column(_Id, ForeignKey("projects.id"), primary_key=True)
    name: Mapped[str] = mapped_column(_Name, primary_key=True)
    value: Mapped[int]
