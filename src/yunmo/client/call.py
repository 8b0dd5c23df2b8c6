"""What a client wants done, said without doing it: the part that the synchronous and asynchronous clients share.

A method of the API is a function that returns a `Call`, or a generator that yields several of them (a *flow*) and
returns the result. Who sends them, and whether that blocks, is decided in ``client.py`` alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Generic, Protocol, TypeVar, cast

import msgspec

from yunmo.core.errors import InvalidInput, Unavailable
from yunmo.core.files import open_atomic

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Progress = Callable[[int, int], None]
"""Called with the bytes sent so far and all bytes."""

_CHUNK = 1 << 20


class Flow(Protocol[T_co]):
    """One call, or a generator of several; ``iter(flow)`` yields what is to be done and returns the result."""

    def __iter__(self) -> Generator[Any, Any, T_co]: ...


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its answer is read.

    Raises (when sent):
        YunmoError: what the service's problem document says, or `Unavailable`, `DeadlineExceeded`.
    """

    method: str
    path: str
    """Below the base URL, quoted."""
    decode: Callable[[bytes], T]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FileBody | None = None
    into: Path | None = None
    """File that the answer is written to as it arrives; ``decode`` then gets no bytes."""
    patient: bool = False
    """Whether the service may work on it for as long as it takes (evaluate, deploy)."""

    def __iter__(self) -> Generator[Any, Any, T]:
        return cast(T, (yield self))


@dataclass(frozen=True)
class Work(Generic[T]):
    """Something slow to do on this machine, such as packing a folder: an asynchronous client does it in a thread."""

    do: Callable[[], T]

    def __iter__(self) -> Generator[Any, Any, T]:
        return cast(T, (yield self))


class Steps(Generic[T]):
    """A flow on its way: `action` is to be carried out next, and answered; once it is None, `result` is there."""

    result: T

    def __init__(self, flow: Flow[T]) -> None:
        self._steps = iter(flow)
        self.action: Call[Any] | Work[Any] | None = None
        self._advance(lambda: next(self._steps))

    def answer(self, result: object) -> None:
        """Go on with the result of the action."""
        self._advance(lambda: self._steps.send(result))

    def fail(self, error: Exception) -> None:
        """Go on with the error of the action; a flow that does not catch it raises it here."""
        self._advance(lambda: self._steps.throw(error))

    def _advance(self, step: Callable[[], Call[Any] | Work[Any]]) -> None:
        try:
            self.action = step()
        except StopIteration as end:
            self.action, self.result = None, end.value


def json_body(value: object) -> bytes:
    """Return a value as JSON.

    Raises:
        InvalidInput: it holds something that JSON has not, or a number that is not finite.
    """
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"cannot be sent as JSON: {error}", where="request") from None


def decoder(kind: type[T]) -> Callable[[bytes], T]:
    """Return the function that reads an answer of a type.

    Keys that this client does not know are ignored, so that a newer service can be talked to.
    """
    decode = msgspec.json.Decoder(kind).decode

    def read(data: bytes) -> T:
        try:
            return decode(data)
        except msgspec.MsgspecError as error:
            raise Unavailable(
                f"the answer is not what this client understands: {error}",
                remedy="Is the URL a Yunmo service, of about this version?",
            ) from None

    return read


class FileBody:
    """A file that is sent in pieces, never wholly in memory.

    Raises:
        InvalidInput: there is no such file.
    """

    def __init__(self, path: Path, progress: Progress | None = None) -> None:
        if not path.is_file():
            raise InvalidInput("no such file", where=str(path))
        self.path = path
        self.size = path.stat().st_size
        self._progress = progress

    def chunks(self) -> Iterator[bytes]:
        """Yield the file's bytes, and tell the progress callback."""
        sent = 0
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
                sent += len(chunk)
                if self._progress:
                    self._progress(sent, self.size)

    async def achunks(self) -> AsyncIterator[bytes]:
        """Yield the file's bytes, each read in a thread."""
        chunks = self.chunks()
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk


@contextmanager
def download(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for bytes as they arrive: it appears whole, under its name, or not at all.

    Raises:
        StorageFull: no space left.
        InvalidInput: it cannot be written there.
    """
    try:
        with open_atomic(path) as file:
            yield file
    except OSError as error:
        raise InvalidInput(f"cannot be written: {error.strerror}", where=str(path)) from None
