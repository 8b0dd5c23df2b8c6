"""The workspace: one folder (``YUNMO_HOME``, default ``./.yunmo``) that holds everything an installation keeps."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from yunmo.core.access import new_key
from yunmo.core.errors import InvalidInput, WorkspaceBusy
from yunmo.core.files import create_once, storage_errors, write_atomic
from yunmo.core.schema import Spec
from yunmo.core.settings import Settings, load_settings

DEFAULT_HOME = Path(".yunmo")


class Holder(Spec, frozen=True):
    """Who holds a workspace."""

    pid: int
    address: str | None = None
    """Where its service answers (``http://127.0.0.1:8080``); None while it starts, or if it serves nobody else."""


class Lock:
    """A held workspace; `Workspace.lock` gives it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def announce(self, address: str | None) -> None:
        """Write down who holds the workspace and where it answers (for example once the port is known)."""
        data = msgspec.json.encode(Holder(pid=os.getpid(), address=address))
        # The lock is on this very file, so it can't be replaced; a reader that sees half of it reads again.
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)


class Workspace:
    """Folders and files of one installation.

    Args:
        home: the folder; it is made (mode 0700) if it is not there.

    Raises:
        StorageFull: no space left to make its folders.
        InvalidInput: ``home`` is not a folder.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        if self.home.exists() and not self.home.is_dir():
            raise InvalidInput("the workspace is not a folder", where=str(home), remedy="Set YUNMO_HOME to a folder")
        with storage_errors(self.home):
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            for folder in (self.workers_folder, self.home / "runs", self.home / "bundles", self.temporary_folder):
                folder.mkdir(parents=True, exist_ok=True)

    @property
    def snapshot_path(self) -> Path:
        """The snapshot that control publishes and data workers read."""
        return self.home / "snapshot.json"

    @property
    def database_url(self) -> str:
        """URL of the metadata."""
        return f"sqlite:///{self.home / 'metadata.sqlite'}"

    @property
    def dbos_url(self) -> str:
        """URL of the durable workflows' own tables."""
        return f"sqlite:///{self.home / 'dbos.sqlite'}"

    @property
    def events_path(self) -> Path:
        """Database file of the event sink."""
        return self.home / "events.sqlite"

    @property
    def artefacts_url(self) -> str:
        """URL of the artefact store."""
        return (self.home / "artefacts").as_uri()

    @property
    def workers_folder(self) -> Path:
        """Where each data worker writes what it has applied (``<pid>.json``, a ``WorkerState``)."""
        return self.home / "run" / "workers"

    @property
    def control_socket(self) -> Path:
        """Unix socket on which the control process answers."""
        return self.home / "run" / "control.sock"

    @property
    def temporary_folder(self) -> Path:
        """For work in progress, on the same file system as everything else."""
        return self.home / "temporary"

    def runs_folder(self, run_id: str) -> Path:
        """Return the folder of a run (made if need be): cache, checkpoints, log, bundle."""
        folder = self.home / "runs" / _single_name(run_id)
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def bundle_folder(self, digest: str) -> Path:
        """Return where the bundle of a digest (``sha256:…``) is unpacked; it need not be there."""
        return self.home / "bundles" / _single_name(digest.removeprefix("sha256:"))

    def settings(self) -> Settings:
        """Return the settings: ``settings.yaml`` if there is one, ``YUNMO_*`` variables over it.

        Raises:
            SettingsError: an unknown key, or a value that does not fit.
        """
        path = self.home / "settings.yaml"
        text = path.read_text(encoding="utf-8") if path.exists() else None
        return load_settings(text, os.environ, where=str(path))

    @contextlib.contextmanager
    def lock(self, address: str | None = None) -> Iterator[Lock]:
        """Hold the workspace; only one process (or session) at a time does.

        The lock is the operating system's and ends with its holder, however that ends: a file that was left lying
        about locks nobody out.

        Args:
            address: where the holder's service answers, if it is known by now; else `Lock.announce` it later.

        Raises:
            WorkspaceBusy: another holds it; the message has its process id and address.
        """
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._busy() from None
            lock = Lock(descriptor)
            lock.announce(address)
            try:
                yield lock
            finally:
                os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def holder(self) -> Holder | None:
        """Return who holds the workspace, None if nobody does."""
        try:
            descriptor = os.open(self._lock_path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_holder(self._lock_path)
        else:
            return None
        finally:
            os.close(descriptor)

    def service_address(self) -> str | None:
        """Return where the service that holds the workspace answers, None if there is none."""
        holder = self.holder()
        return holder.address if holder else None

    def workspace_key(self) -> str:
        """Return the workspace's own API key, made on first use (file mode 0600).

        Whoever can read the file may do everything here; `control` registers it.
        """
        path = self.home / "workspace.key"
        if path.exists():
            return path.read_text(encoding="ascii").strip()
        secret, _, _ = new_key()
        return create_once(path, secret.encode() + b"\n").decode().strip()

    def signing_keys(self, make: Callable[[], tuple[str, str]]) -> tuple[Path, Path]:
        """Return the files of the private and the public key that sign bundles, made on first use.

        Args:
            make: returns a new pair, private and public, as PEM.
        """
        private, public = self.home / "signing.key", self.home / "signing.pub"
        if not (private.exists() and public.exists()):
            with open(self.home / "signing.lock", "wb") as guard:
                fcntl.flock(guard, fcntl.LOCK_EX)
                if not private.exists():
                    private_pem, public_pem = make()
                    # The private key is written last: while it is missing, there is no pair.
                    write_atomic(public, public_pem.encode())
                    write_atomic(private, private_pem.encode(), mode=0o600)
        return private, public

    @property
    def _lock_path(self) -> Path:
        return self.home / "lock"

    def _busy(self) -> WorkspaceBusy:
        holder = _read_holder(self._lock_path)
        who = f"process {holder.pid}" if holder else "another process"
        place = f", which answers at {holder.address}" if holder and holder.address else ""
        return WorkspaceBusy(
            f"the workspace is held by {who}{place}",
            where=str(self.home),
            remedy="Use that service, stop it, or set YUNMO_HOME to another folder",
        )


def _read_holder(path: Path) -> Holder | None:
    for _ in range(3):
        with contextlib.suppress(msgspec.DecodeError, OSError):
            return msgspec.json.decode(path.read_bytes(), type=Holder)
    return None


def _single_name(name: str) -> str:
    if not name or name in {".", ".."} or "/" in name or "\0" in name:
        raise InvalidInput(f"{name!r} is not an id")
    return name
