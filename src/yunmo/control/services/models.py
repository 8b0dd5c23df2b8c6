"""Models: versions and their bundles, aliases, verification, export, import, evaluation."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from yunmo.bundle.files import BOM
from yunmo.control.context import Context
from yunmo.control.services.datasets import Datasets
from yunmo.core.errors import (
    BundleError,
    IntegrityError,
    InternalError,
    NotFound,
    YunmoError,
    from_problem,
)
from yunmo.core.ids import LARGEST_VERSION, check_name, name_from_stem, new_id, split_reference
from yunmo.core.resources import ModelVersion, NewEvaluation, NewImport, Verification
from yunmo.store.tables import AliasRow, ModelRow, VersionRow

CHAMPION = "champion"
"""Alias that a model's first version gets; a person moves it."""

_IMPORT_SECONDS = 60
"""Time, and processor time, that importing an ONNX file may take, and one more for each `_IMPORT_RATE` bytes."""
_IMPORT_RATE = 10 * 2**20
_IMPORT_MEMORY = 2 * 2**30
"""Bytes of address space that it may take (about 1 GB is reserved before it begins), and more by the file's size."""
_IMPORT_FACTOR = 8


class Models:
    """The models of projects."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def list(self, project_id: str, name: str | None = None) -> list[ModelVersion]:
        """Return all versions, by name and version; of one model if it is named.

        Raises:
            NotFound: there is no model of that name.
        """
        query = select(VersionRow, ModelRow).join(ModelRow, VersionRow.model_id == ModelRow.id)
        query = query.where(VersionRow.project_id == project_id).order_by(ModelRow.name, VersionRow.version)
        if name is not None:
            query = query.where(ModelRow.name == name)
        with self._context.database.read() as session:
            found = [resource(session, version, model) for version, model in session.execute(query)]
        if name is not None and not found:
            raise _no_model(name)
        return found

    def get(self, project_id: str, name: str, version: int) -> ModelVersion:
        """Return a version.

        Raises:
            NotFound: there is none.
        """
        with self._context.database.read() as session:
            return resource(session, *find(session, project_id, name, version))

    def set_alias(self, project_id: str, name: str, alias: str, version: int) -> ModelVersion:
        """Let an alias mean a version (and no other any more).

        Raises:
            NotFound: there is no such version.
            InvalidInput: the alias has other characters than names may have.
        """
        split_reference(f"{name}@{alias}")
        with self._context.database.write() as session:
            row, model = find(session, project_id, name, version)
            _set_alias(session, row, alias)
            session.flush()
            return resource(session, row, model)

    def verify(self, project_id: str, name: str, version: int) -> Verification:
        """Check a version's signature and every byte of its bundle, as it is stored.

        Raises:
            NotFound: there is no such version.
        """
        with self._context.database.read() as session:
            row, _ = find(session, project_id, name, version)
        try:
            self._context.verified_bundle(row.digest, row.artefact)
        except (BundleError, NotFound) as error:
            return Verification(model=name, version=version, valid=False, detail=str(error))
        return Verification(
            model=name,
            version=version,
            valid=True,
            detail=f"signed by this workspace, every file as signed ({row.digest})",
        )

    def report(self, project_id: str, name: str, version: int) -> dict[str, Any]:
        """Return the report in a version's bundle.

        Raises:
            NotFound: there is no such version.
            IntegrityError: the bundle is not as it was signed.
        """
        report: dict[str, Any] = msgspec.json.decode(self._report_file(project_id, name, version, "report.json"))
        return report

    def report_page(self, project_id: str, name: str, version: int) -> str:
        """Return the report in a version's bundle as an HTML page; otherwise as `report`."""
        return self._report_file(project_id, name, version, "report.html").decode()

    def bom(self, project_id: str, name: str, version: int) -> bytes:
        """Return the bill of materials in a version's bundle: CycloneDX in JSON.

        Raises:
            NotFound: there is no such version, or its bundle is of before there were bills.
            IntegrityError: the bundle is not as it was signed.
        """
        return self._report_file(project_id, name, version, BOM)

    def export(self, project_id: str, name: str, version: int) -> tuple[ModelVersion, Iterator[bytes]]:
        """Return a version and its bundle's archive, in portions.

        Raises:
            NotFound: there is no such version, or its archive is gone.
        """
        with self._context.database.read() as session:
            row, model = find(session, project_id, name, version)
            found = resource(session, row, model)
        return found, self._context.artefacts.open(row.artefact)

    async def receive(self, chunks: AsyncIterable[bytes]) -> str:
        """Keep an archive that is sent, and return its digest.

        Raises:
            BodyTooLarge: more than the setting ``max_upload`` allows.
            StorageFull: no space left.
        """
        return (await self._context.artefacts.put_stream(chunks, limit=self._context.settings.max_upload)).digest

    def import_bundle(self, project_id: str, artefact: str) -> ModelVersion:
        """Make a bundle that was sent the next version of the model that it names.

        Args:
            project_id: whose model it becomes.
            artefact: digest of the archive.

        Raises:
            BundleError: no bundle, or made by a newer Yunmo.
            IntegrityError: not signed by this workspace's key, or changed since.
        """
        from yunmo.bundle.archive import place, unpack
        from yunmo.bundle.files import bundle_digest
        from yunmo.bundle.read import open_bundle

        with tempfile.TemporaryDirectory(dir=self._context.workspace.temporary_folder) as temporary:
            folder = Path(temporary) / "bundle"
            unpack(self._context.artefacts.local_path(artefact), folder)
            try:
                bundle = open_bundle(folder, self._context.trusted_key())
            except IntegrityError as error:
                raise IntegrityError(
                    f"{error.where or 'bundle'}: {error.message}",
                    remedy="Only bundles that this workspace signed, unchanged, can be imported",
                ) from error
            digest = bundle_digest(folder)
            summary = {key: float(value) for key, value in bundle.report.get("summary", {}).items()}
            name = check_name(bundle.manifest.name, "model")
            place(folder, self._context.workspace.bundle_folder(digest))
        with self._context.database.write() as session:
            row, model = self.add_version(
                session, project_id, name, digest=digest, artefact=artefact, summary=summary, run_id=None
            )
            return resource(session, row, model)

    def import_onnx(self, project_id: str, request: NewImport) -> ModelVersion:
        """Make a signed bundle of an uploaded ONNX file, in a process of its own with limits.

        Raises:
            NotFound: the project has not uploaded the file.
            BundleError: the file is refused.
            InvalidInput: the fields do not fit the file, or the name is none.
        """
        from yunmo.bundle.archive import export, place
        from yunmo.bundle.files import bundle_digest
        from yunmo.bundle.verify import verify

        datasets = Datasets(self._context)
        file = datasets.checked_file(project_id, request.file, "file")
        name = check_name(request.name or name_from_stem(Path(file.filename).stem), "model")
        seconds = _IMPORT_SECONDS + file.size // _IMPORT_RATE
        private, public = self._context.signing_keys()
        trusted = public.read_text(encoding="ascii")
        with tempfile.TemporaryDirectory(dir=self._context.workspace.temporary_folder) as temporary:
            folder = Path(temporary) / "bundle"
            with datasets.named(file) as path:
                order = {
                    "file": str(path),
                    "folder": str(folder),
                    "name": name,
                    "fields": request.fields,
                    "private_key": str(private),
                    "public_key": trusted,
                    "memory": _IMPORT_MEMORY + _IMPORT_FACTOR * file.size,
                    "seconds": seconds,
                    "max_pixels": self._context.settings.max_pixels,
                }
                _child("yunmo.control.jobs.import_onnx", order, timeout=seconds, ended=_import_ended)
            verify(folder, trusted)
            digest = bundle_digest(folder)
            archive = Path(temporary) / "bundle.zip"
            export(folder, archive)
            artefact = self._context.artefacts.put_file(archive).digest
            with contextlib.suppress(OSError):  # it is unpacked when needed
                place(folder, self._context.workspace.bundle_folder(digest))
        with self._context.database.write() as session:
            row, model = self.add_version(
                session, project_id, name, digest=digest, artefact=artefact, summary={}, run_id=None
            )
            return resource(session, row, model)

    def add_version(
        self,
        session: Session,
        project_id: str,
        name: str,
        *,
        digest: str,
        artefact: str,
        summary: dict[str, float],
        run_id: str | None,
    ) -> tuple[VersionRow, ModelRow]:
        """Add a version within a write transaction. The same run or, without one, the same bundle is added once only.

        Raises:
            NotFound: the archive is not in the artefact store.
        """
        model = session.scalar(select(ModelRow).where(ModelRow.project_id == project_id, ModelRow.name == name))
        now = time.time()
        if model is None:
            model = ModelRow(id=new_id("mdl"), project_id=project_id, created_at=now, name=name)
            session.add(model)
            session.flush()
        same = VersionRow.run_id == run_id if run_id is not None else VersionRow.digest == digest
        known = session.scalars(select(VersionRow).where(VersionRow.model_id == model.id, same)).first()
        if known is not None:
            return known, model
        newest = session.scalar(select(func.max(VersionRow.version)).where(VersionRow.model_id == model.id)) or 0
        row = VersionRow(
            id=new_id("ver"),
            project_id=project_id,
            created_at=now,
            model_id=model.id,
            version=newest + 1,
            digest=digest,
            artefact=artefact,
            size=self._context.artefacts.size(artefact),
            run_id=run_id,
            summary=summary,
        )
        session.add(row)
        session.flush()
        if newest == 0:
            _set_alias(session, row, CHAMPION)
            session.flush()
        return row, model

    def evaluate(self, project_id: str, name: str, version: int, request: NewEvaluation) -> dict[str, Any]:
        """Evaluate a version on an uploaded file with known answers, in a process of its own.

        Raises:
            NotFound: no such version or file.
            DataError: the file cannot be read, or lacks a column.
            MissingExtra: what training needs is not installed here.
        """
        datasets = Datasets(self._context)
        file = datasets.checked_file(project_id, request.data, "data")
        with self._context.database.read() as session:
            row, _ = find(session, project_id, name, version)
        folder = self._context.bundle(row.digest, row.artefact)
        with datasets.named(file) as path:
            order = {"bundle": str(folder), "public_key": self._context.trusted_key(), "data": str(path)}
            answer: dict[str, Any] = _child("yunmo.control.jobs.evaluate", order)
        return answer

    def _report_file(self, project_id: str, name: str, version: int, file: str) -> bytes:
        from yunmo.bundle.read import open_bundle

        with self._context.database.read() as session:
            row, _ = find(session, project_id, name, version)
        bundle = open_bundle(self._context.bundle(row.digest, row.artefact), self._context.trusted_key())
        if file not in bundle.manifest.files:
            raise NotFound(f"the bundle has no {file}", where=f"{name}:{version}", remedy="Train or import it again")
        return bundle.read(file)


def find(session: Session, project_id: str, name: str, version: int) -> tuple[VersionRow, ModelRow]:
    """Return the rows of a version and its model.

    Raises:
        NotFound: there is none.
    """
    model = session.scalar(select(ModelRow).where(ModelRow.project_id == project_id, ModelRow.name == name))
    if model is None:
        raise _no_model(name)
    possible = 0 < version <= LARGEST_VERSION
    query = select(VersionRow).where(VersionRow.model_id == model.id, VersionRow.version == version)
    row = session.scalar(query) if possible else None
    if row is None:
        raise NotFound(f"model {name!r} has no version {version}", remedy="List them with `yunmo models ls`")
    return row, model


def find_reference(session: Session, project_id: str, reference: str) -> tuple[VersionRow, ModelRow]:
    """Return the rows that ``NAME:VERSION`` or ``NAME@ALIAS`` means; ``NAME`` means the newest version.

    Raises:
        NotFound: there is none.
        InvalidInput: no such reference.
    """
    name, version, alias = split_reference(reference)
    if version is not None:
        return find(session, project_id, name, version)
    model = session.scalar(select(ModelRow).where(ModelRow.project_id == project_id, ModelRow.name == name))
    if model is None:
        raise _no_model(name)
    query = select(VersionRow).where(VersionRow.model_id == model.id)
    if alias is not None:
        query = query.join(AliasRow, AliasRow.version_id == VersionRow.id).where(AliasRow.alias == alias)
    row = session.scalars(query.order_by(VersionRow.version.desc()).limit(1)).first()
    if row is None:
        raise NotFound(f"model {name!r} has no alias {alias!r}", remedy="List them with `yunmo models ls`")
    return row, model


def resource(session: Session, row: VersionRow, model: ModelRow) -> ModelVersion:
    """Return the resource of a version's row."""
    aliases = session.scalars(select(AliasRow.alias).where(AliasRow.version_id == row.id).order_by(AliasRow.alias))
    return ModelVersion(
        id=row.id,
        model=model.name,
        version=row.version,
        digest=row.digest,
        size=row.size,
        run_id=row.run_id,
        summary=dict(row.summary),
        aliases=list(aliases),
        created_at=row.created_at,
    )


def _no_model(name: str) -> NotFound:
    return NotFound(f"there is no model {name!r}", remedy="List them with `yunmo models ls`")


def _set_alias(session: Session, row: VersionRow, alias: str) -> None:
    known = session.scalar(select(AliasRow).where(AliasRow.model_id == row.model_id, AliasRow.alias == alias))
    if known is not None:
        known.version_id = row.id
        return
    session.add(
        AliasRow(
            id=new_id("ver"),
            project_id=row.project_id,
            created_at=time.time(),
            model_id=row.model_id,
            alias=alias,
            version_id=row.id,
        )
    )


def _import_ended() -> BundleError:
    return BundleError(
        "loading and trying it took more memory or time than an import may, or crashed",
        remedy="Import a smaller model, or describe its free axes with their sizes in a fields file",
    )


def _child(
    module: str,
    order: dict[str, Any],
    *,
    timeout: float | None = None,
    ended: Callable[[], YunmoError] | None = None,
) -> dict[str, Any]:
    """Run a module as a process that reads an order and writes an answer or a problem document, both JSON.

    Args:
        module: to run.
        order: what it reads.
        timeout: seconds until it is killed.
        ended: makes the error for a process that ended without an answer; None: that is a defect of ours.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=msgspec.json.encode(order),
            capture_output=True,
            check=False,
            timeout=timeout,
            env={**os.environ, "OMP_WAIT_POLICY": "passive"},
        )
    except subprocess.TimeoutExpired:
        raise (ended() if ended else InternalError("the process took too long")) from None
    try:
        answer: dict[str, Any] = msgspec.json.decode(done.stdout)
    except msgspec.DecodeError:
        if ended is not None and done.returncode < 0:
            raise ended() from None
        raise InternalError(f"the process ended with {done.returncode}: {done.stderr.decode()[-2000:]}") from None
    if "problem" in answer:
        raise from_problem(answer["problem"])
    result: dict[str, Any] = answer["result"]
    return result
