"""What every service works on: the open workspace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from yunmo.core.errors import Conflict, IntegrityError
from yunmo.core.settings import Settings
from yunmo.store.artefacts import ArtefactStore
from yunmo.store.database import Database
from yunmo.store.events import EventSink
from yunmo.store.workspace import Workspace


@dataclass(frozen=True)
class Context:
    """An open workspace: settings, metadata, artefacts and events."""

    workspace: Workspace
    settings: Settings
    database: Database
    artefacts: ArtefactStore
    events: EventSink

    def signing_keys(self) -> tuple[Path, Path]:
        """Return the files of the private and the public key that sign bundles; they are made on first use."""
        # Late: cryptography is needed only where bundles are signed or a first key is made.
        from yunmo.bundle.sign import new_key_pair

        return self.workspace.signing_keys(new_key_pair)

    def trusted_key(self) -> str:
        """Return the PEM of the public key that signs the workspace's bundles."""
        return self.signing_keys()[1].read_text(encoding="ascii")

    def bundle(self, digest: str, artefact: str) -> Path:
        """Return the folder of a bundle, unpacked from the artefact store if need be. It is not verified here.

        Args:
            digest: of the bundle.
            artefact: of the archive that holds it.

        Raises:
            NotFound: the archive is gone.
            BundleError: the archive is none.
            StorageFull: no space left to unpack it.
        """
        from yunmo.bundle.archive import unpack

        folder = self.workspace.bundle_folder(digest)
        if not folder.exists():
            try:
                unpack(self.artefacts.local_path(artefact), folder)
            except (Conflict, OSError):
                # Another thread or process was faster; any other reason shows when the folder is used.
                if not folder.exists():
                    raise
        return folder

    def verified_bundle(self, digest: str, artefact: str) -> Path:
        """Return the folder of a bundle, as `bundle`, after holding it against its signature and its digest.

        Raises:
            IntegrityError: it is not as this workspace signed it, or another one lies in its place.
        """
        from yunmo.bundle.files import bundle_digest
        from yunmo.bundle.verify import verify

        folder = self.bundle(digest, artefact)
        verify(folder, self.trusted_key())
        if bundle_digest(folder) != digest:
            raise IntegrityError("another bundle lies in its place", where=str(folder))
        return folder


@contextlib.contextmanager
def open_context(workspace: Workspace, settings: Settings) -> Iterator[Context]:
    """Open a workspace, bringing its metadata up to date, and close it at the end.

    Raises:
        Conflict: it was used by a newer Yunmo.
        StorageFull: no space left.
    """
    database = Database(workspace.database_url)
    events = EventSink(workspace.events_path)
    artefacts = ArtefactStore(workspace.artefacts_url, cache=workspace.home / "cache")
    try:
        yield Context(workspace, settings, database, artefacts, events)
    finally:
        database.close()
        events.close()
