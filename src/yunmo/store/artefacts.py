"""Artefacts: bytes named by their SHA-256, in a folder or an object store, through one library."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from yunmo.core.errors import BodyTooLarge, InvalidInput, NotFound
from yunmo.core.files import is_full, open_atomic, storage_errors, storage_full, sync_folder

CHUNK = 2**20
"""Bytes read at a time."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Stored:
    """What was put: its name and its size in bytes."""

    digest: str
    size: int


class ArtefactStore:
    """A content-addressed store: the same bytes are kept once, and a name never changes its meaning.

    Args:
        url: ``file:///folder`` or ``s3://bucket/prefix`` (then with the usual AWS variables).
        cache: folder for local copies of what is in an object store.
    """

    def __init__(self, url: str, *, cache: Path | None = None) -> None:
        self._root: Path | None = None
        self._cache = cache
        if urlsplit(url).scheme == "file":
            self._root = Path(unquote(urlsplit(url).path))
            with storage_errors(self._root):
                (self._root / "incoming").mkdir(parents=True, exist_ok=True)
            self._store: ObjectStore = LocalStore(self._root)
        else:
            self._store = from_url(url)

    def put(self, chunks: Iterable[bytes], *, limit: int | None = None) -> Stored:
        """Keep bytes; their digest is computed on the way, and they appear whole or not at all.

        Args:
            chunks: the bytes, in any portions.
            limit: most bytes allowed.

        Raises:
            BodyTooLarge: more than ``limit``.
            StorageFull: no space left.
        """
        hashing = _Hashing(limit)
        incoming = _incoming()
        try:
            obstore.put(self._store, incoming, hashing.sync(chunks), use_multipart=True)
            return self._settle(incoming, hashing)
        except BaseException as error:
            self._discard(incoming)
            raise _translated(error, hashing.error) from error

    async def put_stream(self, chunks: AsyncIterable[bytes], *, limit: int | None = None) -> Stored:
        """Keep bytes that arrive asynchronously; otherwise as `put`."""
        hashing = _Hashing(limit)
        incoming = _incoming()
        try:
            await obstore.put_async(self._store, incoming, hashing.asynchronous(chunks), use_multipart=True)
            return self._settle(incoming, hashing)
        except BaseException as error:
            self._discard(incoming)
            raise _translated(error, hashing.error) from error

    def put_file(self, path: Path, *, limit: int | None = None) -> Stored:
        """Keep a file's bytes; otherwise as `put`."""
        with path.open("rb") as file:
            return self.put(iter(lambda: file.read(CHUNK), b""), limit=limit)

    def put_bytes(self, data: bytes) -> Stored:
        """Keep bytes at hand; otherwise as `put`."""
        return self.put([data])

    def get(self, digest: str) -> bytes:
        """Return the bytes of a digest.

        Raises:
            NotFound: there are none.
        """
        return b"".join(self.open(digest))

    def open(self, digest: str) -> Iterator[bytes]:
        """Return an iterator over the bytes of a digest, in portions.

        Raises:
            NotFound: there are none.
        """
        try:
            result = obstore.get(self._store, _path(digest))
        except FileNotFoundError:
            raise _missing(digest) from None
        return (bytes(chunk) for chunk in result.stream(min_chunk_size=CHUNK))

    def size(self, digest: str) -> int:
        """Return how many bytes a digest has.

        Raises:
            NotFound: there are none.
        """
        try:
            return int(obstore.head(self._store, _path(digest))["size"])
        except FileNotFoundError:
            raise _missing(digest) from None

    def exists(self, digest: str) -> bool:
        """Say whether the bytes of a digest are kept."""
        try:
            obstore.head(self._store, _path(digest))
        except FileNotFoundError:
            return False
        return True

    def list(self) -> Iterator[str]:
        """Return an iterator over all digests."""
        for page in obstore.list(self._store, "sha256"):
            for entry in page:
                yield f"sha256:{entry['path'].rsplit('/', 1)[-1]}"

    def delete(self, digest: str) -> None:
        """Forget the bytes of a digest (if there are any)."""
        if self.exists(digest):
            obstore.delete(self._store, _path(digest))

    def local_path(self, digest: str) -> Path:
        """Return a file with the bytes of a digest: the store's own in a folder, else a copy. It is to be read only.

        Raises:
            NotFound: there are none.
            StorageFull: no space left for the copy.
        """
        if self._root is not None:
            path = self._root / _path(digest)
            if not path.exists():
                raise _missing(digest)
            return path
        if self._cache is None:
            raise InvalidInput("an artefact store that is not a folder needs one for local copies")
        copy = self._cache / digest.removeprefix("sha256:")
        if not copy.exists():
            with storage_errors(copy):
                copy.parent.mkdir(parents=True, exist_ok=True)
            with open_atomic(copy) as file:
                file.writelines(self.open(digest))
        return copy

    def _settle(self, incoming: str, hashing: _Hashing) -> Stored:
        digest = f"sha256:{hashing.hash.hexdigest()}"
        if self.exists(digest):
            self._discard(incoming)
        else:
            if self._root is not None:
                with (self._root / incoming).open("rb+") as file:
                    os.fsync(file.fileno())
            obstore.rename(self._store, incoming, _path(digest))
            if self._root is not None:
                sync_folder((self._root / _path(digest)).parent)
        return Stored(digest=digest, size=hashing.size)

    def _discard(self, incoming: str) -> None:
        if self._root is not None:
            # An interrupted upload may have left the part under a name of the library's, such as `name#1`.
            for left in (self._root / "incoming").glob(f"{incoming.rsplit('/', 1)[-1]}*"):
                left.unlink(missing_ok=True)
            return
        try:
            obstore.delete(self._store, incoming)
        except FileNotFoundError:
            return


class _Hashing:
    """Passes chunks on and learns their digest and size on the way."""

    def __init__(self, limit: int | None) -> None:
        self.hash = hashlib.sha256()
        self.size = 0
        self.error: BaseException | None = None
        self._limit = limit

    def sync(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        try:
            for chunk in chunks:
                if chunk:
                    self._add(chunk)
                    yield chunk
        except BaseException as error:
            # The library turns errors of its source into its own: keep the real one.
            self.error = error
            raise

    async def asynchronous(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        try:
            async for chunk in chunks:
                if chunk:
                    self._add(chunk)
                    yield chunk
        except BaseException as error:
            self.error = error
            raise

    def _add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self._limit is not None and self.size > self._limit:
            raise BodyTooLarge(
                f"more than {self._limit} bytes", where="upload", remedy="Raise the setting max_upload, or send less"
            )
        self.hash.update(chunk)


def _incoming() -> str:
    return f"incoming/{secrets.token_hex(16)}"


def _path(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise InvalidInput(f"{digest!r} is not a digest", remedy="Write sha256: and 64 hexadecimal digits")
    name = digest.removeprefix("sha256:")
    return f"sha256/{name[:2]}/{name}"


def _missing(digest: str) -> NotFound:
    return NotFound(f"no file {digest} was uploaded")


def _translated(error: BaseException, source: BaseException | None) -> BaseException:
    if source is not None and not isinstance(source, GeneratorExit):
        return source
    if is_full(error) or (isinstance(error, BaseError | OSError) and "No space left on device" in str(error)):
        return storage_full("artefact store")
    return error
