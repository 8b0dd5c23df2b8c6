"""Reading vectors of words that were learned elsewhere, in the text format of word2vec, GloVe and fastText.

Each line is a word and its numbers, with spaces between; a first line may say how many words and numbers there are.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from yunmo.core.errors import DataError
from yunmo.core.events import Decision
from yunmo.core.fields import TextField
from yunmo.core.files import file_digest
from yunmo.data.array_file import ArrayWriter
from yunmo.data.fields.tokenizers import FIRST

LARGEST = 4096
"""Numbers of a vector, at most."""
MOST_BYTES = 64 * 2**30
"""Of a file, unpacked."""
_LONGEST_WORD = 4096
_LONGEST_NUMBER = 32
_GZIP = b"\x1f\x8b"
_LEAST = 2
_FORMAT = "Give the text format of word2vec, GloVe or fastText: a word and its numbers on each line, in UTF-8"


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of the words that a file has.

    Attributes:
        numbers: of their tokens, int64 ``[K]``, in order.
        values: float32 ``[K, size]``.
    """

    numbers: NDArray[np.int64]
    values: NDArray[np.float32]

    @property
    def size(self) -> int:
        """Length of a vector."""
        return int(self.values.shape[1])


def read_embeddings(path: Path, pieces: Sequence[str]) -> Vectors:
    """Read the vectors of a vocabulary from a file; of other words nothing is kept.

    A word is found as it is written in the vocabulary (in lower case, say), and in no other way.

    Args:
        path: the file, packed with gzip or not.
        pieces: the tokens in the order of their numbers, the first of which is `FIRST`.

    Raises:
        DataError: the file is of another format, damaged or cut off, has rows of several lengths, a vector of what are
            no finite numbers, or a word of the vocabulary twice, or has none of them; names the line.
    """
    wanted = {piece: number for number, piece in enumerate(pieces, FIRST)}
    found: dict[int, tuple[int, NDArray[np.float32]]] = {}
    with _opened(path) as file:
        table = _Table(path, file)
        for line, word, numbers in table.rows():
            number = wanted.get(word)
            if number is None:
                continue
            if number in found:
                raise table.refuse(f"the word {word!r} is there twice, first in row {found[number][0]}", line)
            found[number] = line, table.vector(numbers, line)
    if not found:
        shown = ", ".join(repr(piece) for piece in list(pieces)[:5])
        raise DataError(
            f"has none of the {len(pieces):,} words of the training texts, such as {shown}",
            where=path.name,
            remedy="Give vectors of the texts' language; if their words have capital letters, write lowercase: false",
        )
    order = sorted(found)
    return Vectors(np.array(order, np.int64), np.stack([found[number][1] for number in order]))


def write_embeddings(
    spec: TextField, path: Path | None, pieces: Sequence[str], files: tuple[Path, Path]
) -> tuple[TextField, Decision]:
    """Read the vectors that a text begins with, and write them for training.

    Args:
        spec: of the text; it names a file of embeddings.
        path: that file; None if it was not sent.
        pieces: what its tokenizer learned.
        files: where the tokens' numbers and their vectors go, as arrays.

    Returns:
        The specification with the file's digest and the vectors' length, and how many words were found.

    Raises:
        DataError: as `read_embeddings`, or it is not there, or another one than the recipe was resolved with.
        StorageFull: no space left.
    """
    asked = spec.embeddings
    if asked is None or path is None:
        raise DataError(
            f"the file of embeddings {asked.file if asked else ''!r} is not here",
            where=f"field {spec.name}",
            remedy="Train from the recipe that names it, so that it is sent",
        )
    digest = f"sha256:{file_digest(path)}"
    if asked.digest not in (None, digest):
        raise DataError("not the file that the recipe was resolved with", where=path.name, remedy="Give that one")
    found = read_embeddings(path, pieces)
    arrays: tuple[NDArray[Any], NDArray[Any]] = found.numbers, found.values
    for file, array in zip(files, arrays, strict=True):
        with ArrayWriter(file, array.dtype, array.shape[1:], len(array)) as writer:
            writer.append(array)
    share = len(found.numbers) / len(pieces)
    decision = Decision(
        key=f"inputs.{spec.name}.embeddings",
        value=f"{len(found.numbers):,} of {len(pieces):,} words found ({share:.1%})",
        reason=f"vectors of {found.size} numbers from {path.name}; other words begin at random",
    )
    pinned = msgspec.structs.replace(asked, digest=digest, size=found.size)
    return msgspec.structs.replace(spec, embeddings=pinned), decision


class _Table:
    """A file of vectors that is read line by line."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._name, self._file = path.name, file
        self.size = 0
        self._read = 0

    def rows(self) -> Iterator[tuple[int, str, bytes]]:
        """Yield line, word and numbers (still as they are written) of each row."""
        lines = self._lines()
        line, first = next(lines, (1, b""))
        if not first:
            raise DataError("the file is empty", where=self._name, remedy=_FORMAT)
        parts = first.split()
        said = int(parts[0]) if len(parts) == _LEAST and all(part.isdigit() for part in parts) else None
        self.size = int(parts[1][:9]) if said is not None else len(parts) - 1
        if not _LEAST <= self.size <= LARGEST:
            raise self.refuse(f"vectors of {self.size:,} numbers; {_LEAST} to {LARGEST:,} are read", line)
        count = 0
        if said is None:
            count = 1
            yield line, *self._row(first, line)
        for line, content in lines:
            count += 1
            yield line, *self._row(content, line)
        if said is not None and count != said:
            raise self.refuse(
                f"{count:,} words where the first line says {said:,}: the file was cut off or changed", line
            )

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield lines that are not blank, without their ends."""
        longest = _LONGEST_WORD + _LONGEST_NUMBER * (LARGEST + 1)
        number = 0
        while content := self._file.readline(longest):
            number += 1
            self._read += len(content)
            if len(content) == longest or self._read > MOST_BYTES:
                raise self.refuse("a line without end" if len(content) == longest else "a file without end", number)
            content = (
                content.removeprefix(b"\xef\xbb\xbf").rstrip(b" \t\r\n") if number == 1 else content.rstrip(b" \t\r\n")
            )
            if content:
                yield number, content

    def _row(self, content: bytes, line: int) -> tuple[str, bytes]:
        content = content.replace(b"\t", b" ")
        if content.count(b" ") == self.size:
            word, _, numbers = content.partition(b" ")
        else:
            # From the end, since some published files have words with spaces in them.
            word, *parts = content.rsplit(b" ", self.size)
            if len(parts) != self.size:
                raise self.refuse(f"{len(parts)} numbers where the first row has {self.size}", line)
            if _number(word.rpartition(b" ")[2]) is not None:
                raise self.refuse(f"more numbers than the {self.size} of the first row", line)
            numbers = b" ".join(parts)
        if not word:
            raise self.refuse("no word", line)
        try:
            return word.decode(), numbers
        except UnicodeDecodeError:
            raise self.refuse("not UTF-8", line) from None

    def vector(self, numbers: bytes, line: int) -> NDArray[np.float32]:
        """Return the vector of a row.

        Raises:
            DataError: one of them is no finite number of float32.
        """
        parts = numbers.split(b" ")
        values = [_number(part) for part in parts]
        if None in values:
            shown = parts[values.index(None)].decode("utf-8", "replace")[:_LONGEST_NUMBER]
            raise self.refuse(f"{shown!r} is not a finite number" if shown else "two spaces beside each other", line)
        return np.array(values, np.float32)

    def refuse(self, message: str, line: int) -> DataError:
        """Make the error for a line."""
        return DataError(message, where=f"{self._name}, row {line}", remedy=_FORMAT)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file of bytes that is packed or not.

    Raises:
        DataError: it is damaged.
    """
    with path.open("rb") as plain:
        packed = plain.read(2) == _GZIP
        plain.seek(0)
        try:
            if packed:
                with gzip.open(plain) as file:
                    yield file  # type: ignore[misc]  # a GzipFile reads as any file of bytes
            else:
                yield plain
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise DataError(f"damaged ({error})", where=path.name, remedy="Make or download the file again") from None


def _number(text: bytes) -> float | None:
    """Read a number; None for what is none, or not finite in float32."""
    try:
        value = float(text) if b"_" not in text else math.nan
    except ValueError:
        return None
    return value if abs(value) <= float(np.finfo(np.float32).max) else None
