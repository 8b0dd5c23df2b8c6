import asyncio
import hashlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from yunmo.core.errors import BodyTooLarge, InvalidInput, NotFound, StorageFull
from yunmo.core.events import RunNotice
from yunmo.core.files import write_atomic
from yunmo.store.artefacts import ArtefactStore
from yunmo.store.database import Database
from yunmo.store.events import EventSink


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(tmp_path.as_uri())


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or unmount is None:
        pytest.skip("only root can mount a tiny disk")
    folder = tmp_path / "tiny"
    folder.mkdir()
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run([unmount, "-l", str(folder)], check=True)


def test_the_same_bytes_are_kept_once_under_their_digest(store: ArtefactStore, tmp_path: Path) -> None:
    data = os.urandom(7 * 2**20)
    (tmp_path / "source").write_bytes(data)
    stored = store.put_file(tmp_path / "source")
    assert (stored.digest, stored.size) == (digest_of(data), len(data))
    assert store.put_bytes(data) == stored
    assert store.get(stored.digest) == data
    assert store.local_path(stored.digest).read_bytes() == data
    assert store.size(stored.digest) == len(data)
    assert list(store.list()) == [stored.digest]
    assert len(files_of(tmp_path)) == 2
    store.delete(stored.digest)
    assert not store.exists(stored.digest)
    store.delete(stored.digest)


def test_nothing_at_all_is_an_artefact_too(store: ArtefactStore) -> None:
    stored = store.put_bytes(b"")
    assert stored.digest == digest_of(b"")
    assert store.get(stored.digest) == b""


def test_a_stream_over_the_limit_leaves_nothing(store: ArtefactStore, tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(2**20)

    with pytest.raises(BodyTooLarge):
        asyncio.run(store.put_stream(chunks(), limit=10 * 2**20))
    assert files_of(tmp_path) == []
    stored = asyncio.run(store.put_stream(chunks(), limit=20 * 2**20))
    assert stored.size == 20 * 2**20


def test_a_source_that_breaks_off_leaves_nothing_and_its_own_error(store: ArtefactStore, tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield bytes(6 * 2**20)
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        store.put(chunks())
    assert files_of(tmp_path) == []


def test_unknown_and_malformed_digests(store: ArtefactStore) -> None:
    for call in (store.get, store.local_path, store.size):
        with pytest.raises(NotFound):
            call(digest_of(b"nobody"))
    for digest in ("sha256:..", "../../etc/passwd", "sha256:" + "A" * 64):
        with pytest.raises(InvalidInput):
            store.get(digest)


def test_a_full_disk_is_said_and_nothing_half_written_stays(tiny_disk: Path) -> None:
    store = ArtefactStore((tiny_disk / "artefacts").as_uri())
    kept = store.put_bytes(b"kept")
    for size in (3 * 2**20, 30 * 2**20):
        with pytest.raises(StorageFull):
            store.put([bytes(2**20)] * (size // 2**20))
    assert list(store.list()) == [kept.digest]
    assert files_of(tiny_disk) == [store.local_path(kept.digest)]
    target = tiny_disk / "file"
    write_atomic(target, b"old")
    with pytest.raises(StorageFull):
        write_atomic(target, bytes(3 * 2**20))
    assert target.read_bytes() == b"old"
    assert len(files_of(tiny_disk)) == 2


def test_a_full_disk_stops_events_and_metadata_cleanly(tiny_disk: Path) -> None:
    sink = EventSink(tiny_disk / "events.sqlite")
    sink.emit("default", "run", RunNotice(message="first"))
    filler = tiny_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    with pytest.raises(StorageFull):
        emit_many(sink)
    with pytest.raises(StorageFull):
        Database(f"sqlite:///{tiny_disk / 'metadata.sqlite'}")
    filler.unlink()
    sink.emit("default", "run", RunNotice(message="again"))
    Database(f"sqlite:///{tiny_disk / 'metadata.sqlite'}").close()
    sink.close()


def emit_many(sink: EventSink) -> None:
    for _ in range(1000):
        sink.emit("default", "run", RunNotice(message="x" * 4096))
