"""Datasets: uploaded files become immutable versions; the same bytes are the same version."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
import time
from collections.abc import AsyncIterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from yunmo.control.context import Context
from yunmo.core.errors import InvalidInput, NotFound
from yunmo.core.ids import LARGEST_VERSION, check_name, new_id, split_reference
from yunmo.core.resources import Dataset, NewDataset, SplitFile, Upload
from yunmo.store.tables import DatasetRow, UploadRow

SPLITS = ("train", "validation", "test")
_MAX_FILENAME = 255


class Datasets:
    """The datasets of projects."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def upload(self, project_id: str, chunks: AsyncIterable[bytes]) -> Upload:
        """Keep a file of a project; it is known by its SHA-256 from then on.

        Raises:
            BodyTooLarge: more than the setting ``max_upload`` allows.
            StorageFull: no space left; nothing is kept.
        """
        stored = await self._context.artefacts.put_stream(chunks, limit=self._context.settings.max_upload)
        await asyncio.to_thread(self._note_upload, project_id, stored.digest, stored.size)
        return Upload(digest=stored.digest, size=stored.size)

    def keep(self, project_id: str, path: Path) -> Upload:
        """Keep a file that is here already as if the project had uploaded it.

        Raises:
            StorageFull: no space left; nothing is kept.
        """
        stored = self._context.artefacts.put_file(path)
        self._note_upload(project_id, stored.digest, stored.size)
        return Upload(digest=stored.digest, size=stored.size)

    def create(self, project_id: str, request: NewDataset) -> Dataset:
        """Make a version of a dataset; if the newest or an older one has the very same files, that one is returned.

        Raises:
            InvalidInput: a name or split that is none, or no split train.
            NotFound: a file that the project has not uploaded.
            DataError: the files cannot be read as data.
        """
        check_name(request.name, "dataset")
        splits = self._checked_splits(project_id, request.splits)
        content = _content(splits)
        with self._context.database.read() as session:
            known = _by_content(session, project_id, request.name, content)
        if known is not None:
            return resource(known)
        kind, rows, fields = self._describe(splits)
        with self._context.database.write() as session:
            row = _by_content(session, project_id, request.name, content)
            if row is None:
                newest = session.scalar(
                    select(func.max(DatasetRow.version)).where(
                        DatasetRow.project_id == project_id, DatasetRow.name == request.name
                    )
                )
                row = DatasetRow(
                    id=new_id("ds"),
                    project_id=project_id,
                    created_at=time.time(),
                    name=request.name,
                    version=(newest or 0) + 1,
                    content=content,
                    kind=kind,
                    splits={split: msgspec.to_builtins(file) for split, file in splits.items()},
                    rows=rows,
                    fields=list(fields),
                )
                session.add(row)
        return resource(row)

    def list(self, project_id: str) -> list[Dataset]:
        """Return all versions, by name and version."""
        query = select(DatasetRow).where(DatasetRow.project_id == project_id)
        with self._context.database.read() as session:
            return [resource(row) for row in session.scalars(query.order_by(DatasetRow.name, DatasetRow.version))]

    def get(self, project_id: str, name: str, version: int | None = None) -> Dataset:
        """Return a version; the newest if none is named.

        Raises:
            NotFound: there is none.
        """
        with self._context.database.read() as session:
            return resource(find(session, project_id, name, version))

    def _note_upload(self, project_id: str, digest: str, size: int) -> None:
        with self._context.database.write() as session:
            query = select(UploadRow).where(UploadRow.project_id == project_id, UploadRow.digest == digest)
            if session.scalar(query) is None:
                session.add(
                    UploadRow(id=new_id("upl"), project_id=project_id, created_at=time.time(), digest=digest, size=size)
                )

    def _checked_splits(self, project_id: str, splits: Mapping[str, SplitFile]) -> dict[str, SplitFile]:
        for split in splits:
            if split not in SPLITS:
                raise InvalidInput(f"unknown split {split!r}", where="splits", remedy=f"Known: {', '.join(SPLITS)}")
        if "train" not in splits:
            raise InvalidInput("a dataset needs the split 'train'", where="splits")
        return {
            split: self.checked_file(project_id, splits[split], f"splits.{split}")
            for split in SPLITS
            if split in splits
        }

    def checked_file(self, project_id: str, file: SplitFile, where: str) -> SplitFile:
        """Return a file's record with its true size, if the project uploaded it.

        Raises:
            NotFound: it did not.
            InvalidInput: its name is none.
        """
        name = file.filename
        if not name or len(name) > _MAX_FILENAME or name in {".", ".."} or "/" in name or "\\" in name or "\0" in name:
            raise InvalidInput(f"{name!r} is not a file name", where=where)
        with self._context.database.read() as session:
            query = select(UploadRow).where(UploadRow.project_id == project_id, UploadRow.digest == file.digest)
            upload = session.scalar(query)
        if upload is None:
            raise NotFound(f"no file {file.digest} was uploaded", where=where, remedy="Upload it first: POST /uploads")
        return SplitFile(digest=upload.digest, filename=name, size=upload.size)

    def _describe(self, splits: Mapping[str, SplitFile]) -> tuple[str, dict[str, Any], Sequence[Any]]:
        """Read the files once: kind, rows by split, and what is known of each column."""
        kind: str = ""
        rows: dict[str, Any] = {}
        fields: Sequence[Any] = ()
        for split, file in splits.items():
            with self.named(file) as path:
                found = describe(path)
            rows[split] = found[1]
            if split == "train":
                kind, fields = found[0], found[2]
        return kind, rows, fields

    @contextlib.contextmanager
    def named(self, file: SplitFile) -> Iterator[Path]:
        """Give a path to a file under the name that its owner knows, for messages."""
        with tempfile.TemporaryDirectory(dir=self._context.workspace.temporary_folder) as folder:
            path = Path(folder) / file.filename
            path.symlink_to(self._context.artefacts.local_path(file.digest))
            yield path


def find(session: Session, project_id: str, name: str, version: int | None) -> DatasetRow:
    """Return the row of a version; of the newest if none is named.

    Raises:
        NotFound: there is none.
    """
    query = select(DatasetRow).where(DatasetRow.project_id == project_id, DatasetRow.name == name)
    if version is not None:
        query = query.where(DatasetRow.version == version)
    possible = version is None or 0 < version <= LARGEST_VERSION
    row = session.scalars(query.order_by(DatasetRow.version.desc()).limit(1)).first() if possible else None
    if row is None:
        reference = name if version is None else f"{name}:{version}"
        raise NotFound(f"there is no dataset {reference!r}", remedy="List them with `yunmo data ls`")
    return row


def find_reference(session: Session, project_id: str, reference: str) -> DatasetRow:
    """Return the row that ``NAME`` or ``NAME:VERSION`` means.

    Raises:
        NotFound: there is none.
        InvalidInput: no such reference; datasets have no aliases.
    """
    name, version, alias = split_reference(reference)
    if alias is not None:
        raise InvalidInput("datasets have no aliases", where="data.dataset", remedy="Write NAME or NAME:VERSION")
    return find(session, project_id, name, version)


def resource(row: DatasetRow) -> Dataset:
    """Return the resource of a row."""
    return Dataset(
        id=row.id,
        name=row.name,
        version=row.version,
        splits={split: SplitFile(**file) for split, file in row.splits.items()},
        kind=row.kind,
        rows=dict(row.rows),
        schema=list(row.fields),
        created_at=row.created_at,
    )


def _content(splits: Mapping[str, SplitFile]) -> str:
    lines = "".join(f"{split} {file.digest}\n" for split, file in splits.items())
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def _by_content(session: Session, project_id: str, name: str, content: str) -> DatasetRow | None:
    return session.scalar(
        select(DatasetRow).where(
            DatasetRow.project_id == project_id, DatasetRow.name == name, DatasetRow.content == content
        )
    )


def describe(path: Path) -> tuple[str, int, Sequence[dict[str, Any]]]:
    """Return a data file's kind, number of rows, and what is known of each column.

    Raises:
        DataError: it cannot be read as data.
    """
    # Late: numpy and Pillow are needed only where data is read.
    from yunmo.data.profile import profile
    from yunmo.data.sources.open import open_source

    source = open_source(path)
    try:
        found = profile(source)
        return source.kind, len(source), found["fields"]
    finally:
        source.close()
