"""Tokenizers: a normalised text becomes numbers of tokens. What they learned is plain data of the statistics."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from yunmo.core import tokenizers as specs
from yunmo.core.errors import BundleError
from yunmo.core.fields import FieldStatistics
from yunmo.core.pretrained import Pretrained
from yunmo.core.tokenizers import HASHES
from yunmo.data.fields.language import Language, open_language
from yunmo.data.fields.words import words

PADDING, UNKNOWN = 0, 1
FIRST = 2
"""Number of the first piece."""
_LONGEST_PIECE = 256
_MOST_COUNTED = 2_000_000
"""Different tokens that are counted at a time; beyond, those seen once so far are forgotten."""

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEPS = np.arange(8, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
"""What keeps n-grams of one order from those of another."""
_POWERS = np.uint64(0xD1342543DE82EF95) ** np.arange(8, dtype=np.uint64)
"""Of what each character of an n-gram is multiplied by (modulo 2 ** 64)."""

Hashes = NDArray[np.uint64]


class Learned(TypedDict, total=False):
    """What a tokenizer learned, under its names in ``FieldStatistics``."""

    pieces: tuple[str, ...]
    rules: tuple[str, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...]
    buckets: tuple[int, ...]
    bucket_counts: tuple[int, ...]
    pretrained: Pretrained


class TextTokenizer(ABC):
    """Turns normalised texts into token numbers.

    Args:
        spec: what the recipe says of it.
        statistics: what `learn` returned; without them it can only learn.

    Raises:
        BundleError: the statistics are none that `learn` gives: too many tokens, or one twice.
    """

    def __init__(self, spec: Any, statistics: FieldStatistics | None = None) -> None:
        self.spec = spec
        self.where = f"field {statistics.name}" if statistics else None
        if statistics is not None:
            self.open(statistics)

    @abstractmethod
    def learn(self, texts: Iterable[str]) -> Learned:
        """Learn the tokens of training texts."""

    @abstractmethod
    def open(self, statistics: FieldStatistics) -> None:
        """Get ready to `tokens` with what was learned."""

    @abstractmethod
    def tokens(self, text: str) -> Sequence[int] | NDArray[np.int64]:
        """Return the numbers of a text's tokens."""

    def refuse(self, why: str) -> BundleError:
        """Make the error for statistics that no tokenizer gives."""
        return BundleError(f"no tokens of a tokenizer: {why}", where=self.where, remedy="Train it again")


def check_pieces(tokenizer: TextTokenizer, pieces: Sequence[str]) -> None:
    """Refuse pieces that are too many or too long, or come twice.

    Raises:
        BundleError: as it says.
    """
    if len(pieces) > specs.MOST_TOKENS:
        raise tokenizer.refuse(f"{len(pieces)} are more than {specs.MOST_TOKENS}")
    if any(not 0 < len(piece) <= _LONGEST_PIECE for piece in pieces):
        raise tokenizer.refuse(f"one is empty or has more than {_LONGEST_PIECE} characters")
    if len(set(pieces)) != len(pieces):
        raise tokenizer.refuse("one comes twice")


def check_merges(tokenizer: TextTokenizer, numbers: Mapping[str, int], merges: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs that BPE joins, in order.

    Args:
        tokenizer: whose they are.
        numbers: of the pieces.
        merges: as ``left right``.

    Raises:
        BundleError: they are too many, or one does not make one piece of two.
    """
    if len(merges) > specs.MOST_TOKENS:
        raise tokenizer.refuse(f"{len(merges)} merges are more than {specs.MOST_TOKENS}")
    pairs = []
    for merge in merges:
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= numbers.keys():
            raise tokenizer.refuse(f"{merge[:80]!r} does not merge two of them into one")
        pairs.append((left, right))
    return pairs


class _Pieces(TextTokenizer):
    """Tokens that are texts themselves and stand in the text one after the other."""

    split: Callable[[str], Sequence[str]]

    def learn(self, texts: Iterable[str]) -> Learned:
        """Keep the tokens that the most texts have."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(piece for piece in set(self.split(text)) if len(piece) <= _LONGEST_PIECE)
            if len(counts) > _MOST_COUNTED:
                counts = Counter({piece: count for piece, count in counts.items() if count > 1})
        seen = [piece for piece, count in counts.items() if count >= self.spec.seen]
        seen.sort(key=lambda piece: (-counts[piece], piece))
        return {"pieces": tuple(seen[: self.spec.vocabulary])}

    def open(self, statistics: FieldStatistics) -> None:
        """Number the pieces."""
        check_pieces(self, statistics.pieces)
        self._numbers = {piece: number for number, piece in enumerate(statistics.pieces, FIRST)}

    def tokens(self, text: str) -> list[int]:
        """Return the numbers in order; `UNKNOWN` for a token that training did not see."""
        numbers = self._numbers
        return [numbers.get(piece, UNKNOWN) for piece in self.split(text)]


class WordTokenizer(_Pieces):
    """Words and punctuation marks in their order, or what a language's rules make of them."""

    def __init__(self, spec: specs.WordTokenizer, statistics: FieldStatistics | None = None) -> None:
        self._language = _language(spec, statistics)
        if self._language is None:
            self.split = words
        else:
            self.split = self._language.tagged if spec.tags else self._language.words
        super().__init__(spec, statistics)

    def learn(self, texts: Iterable[str]) -> Learned:
        """Keep the tokens that the most texts have."""
        learned = super().learn(texts)
        return {**learned, "rules": self._language.rules} if self._language else learned


class CharacterTokenizer(_Pieces):
    """Characters in their order; whatever is space is one space."""

    @staticmethod
    def split(text: str) -> str:
        """Return the text with single spaces."""
        return " ".join(text.split())


class NgramTokenizer(TextTokenizer):
    """Hashed n-grams of words, and of characters between spaces with the spaces around them (Joulin et al. 2016).

    No space is crossed, so that Chinese has n-grams of whole sentences and English has prefixes, stems and suffixes.
    Only hashes that enough training texts have are tokens, so the network has no vectors that nothing was learned of.
    """

    spec: specs.NgramTokenizer

    def __init__(self, spec: specs.NgramTokenizer, statistics: FieldStatistics | None = None) -> None:
        self._language = _language(spec, statistics)
        super().__init__(spec, statistics)

    def learn(self, texts: Iterable[str]) -> Learned:
        """Count hashes, in memory that does not grow with the texts, and keep the most frequent."""
        counts = np.zeros(2 * HASHES, np.int32)
        for text in texts:
            counts[self.hashes(text)] += 1
        kept = np.flatnonzero(counts >= self.spec.seen)
        if len(kept) > self.spec.vocabulary:
            # Of equally frequent ones those of words come first, as their hashes do.
            frequent = np.argsort(-counts[kept], kind="stable")[: self.spec.vocabulary]
            kept = np.sort(kept[frequent])
        learned: Learned = {"buckets": tuple(kept.tolist()), "bucket_counts": tuple(counts[kept].tolist())}
        return {**learned, "rules": self._language.rules} if self._language else learned

    def open(self, statistics: FieldStatistics) -> None:
        """Read the hashes."""
        if len(statistics.buckets) > specs.MOST_TOKENS:
            raise self.refuse(f"{len(statistics.buckets)} are more than {specs.MOST_TOKENS}")
        if len(statistics.bucket_counts) != len(statistics.buckets) or min(statistics.bucket_counts, default=1) < 1:
            raise self.refuse("not each has a count")
        if any(not 0 <= bucket < 2 * HASHES for bucket in statistics.buckets):
            raise self.refuse(f"one is not between 0 and {2 * HASHES}")
        # A last one that no text has, so that a search never ends beyond.
        self._buckets = np.array([*statistics.buckets, 2 * HASHES], np.int64)
        if (np.diff(self._buckets) <= 0).any():
            raise self.refuse("they are not in order")

    def tokens(self, text: str) -> NDArray[np.int64]:
        """Return the numbers of the n-grams that training saw, each once, in order of number: words first."""
        found = self.hashes(text)
        places = np.searchsorted(self._buckets, found)
        known: NDArray[np.int64] = places[self._buckets[places] == found] + 1
        return known

    def hashes(self, text: str) -> NDArray[np.int64]:
        """Return the hash of each n-gram once, in order: of words below `HASHES`, of characters from there."""
        found = self._language.words(text) if self._language else words(text)
        rolled = _word_ngrams(found, self.spec.words) if self.spec.words else []
        if self._language and self.spec.tags:
            rolled += _word_ngrams(self._language.tagged(text), 1)
        place = sum(map(len, rolled))
        if self.spec.characters:
            rolled += _character_ngrams(text, self.spec.shortest, self.spec.characters)
        if not rolled:
            return np.zeros(0, np.int64)
        hashed = _spread(np.concatenate(rolled))
        hashed[place:] += HASHES
        hashed.sort()
        first = np.empty(len(hashed), np.bool_)
        first[:1] = True
        np.not_equal(hashed[1:], hashed[:-1], out=first[1:])
        once: NDArray[np.int64] = hashed[first]
        return once


def _language(spec: specs.LanguageRules, statistics: FieldStatistics | None) -> Language | None:
    where = f"field {statistics.name}" if statistics else None
    return open_language(spec, statistics.rules if statistics else None, where)


def _word_ngrams(found: Sequence[str], longest: int) -> list[Hashes]:
    single = np.array([zlib.crc32(word.encode()) for word in found], np.uint64)
    rolled, parts = single, [single]
    for order in range(1, longest):
        rolled = rolled[:-1] * _STEPS[1] + single[order:]
        parts.append(rolled + _STEPS[order])
    return parts


def _character_ngrams(text: str, shortest: int, longest: int) -> list[Hashes]:
    """Roll over the text, with one space between its parts, and before and after it; no n-gram has one within."""
    spaced = f" {' '.join(text.split())}{' ' * longest}"
    codes = np.frombuffer(spaced.encode("utf-32-le"), np.uint32).astype(np.uint64)
    starts = len(codes) - longest + 1
    space = codes == ord(" ")
    before = np.cumsum(space)
    rolled = codes[:starts] * _POWERS[0]
    parts = []
    for last in range(longest):
        if last:
            rolled = rolled + codes[last : last + starts] * _POWERS[last]
        if last < shortest - 1:
            continue
        if last == 0:
            good = ~space[:starts]
        elif last == 1:
            good = ~(space[:starts] & space[1 : 1 + starts])
        else:
            good = before[last - 1 : last - 1 + starts] == before[:starts]
        parts.append(rolled[good] + _STEPS[last])
    return parts


def _spread(rolled: Hashes) -> NDArray[np.int64]:
    """Spread hashes over `HASHES` places (the finaliser of splitmix64, Steele et al. 2014)."""
    mixed = (rolled ^ (rolled >> np.uint64(30))) * _MIX[0]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[1]
    return ((mixed ^ (mixed >> np.uint64(31))) % np.uint64(HASHES)).astype(np.int64)


TOKENIZERS: dict[type[Any], type[TextTokenizer]] = {
    specs.NgramTokenizer: NgramTokenizer,
    specs.WordTokenizer: WordTokenizer,
    specs.CharacterTokenizer: CharacterTokenizer,
}


def open_tokenizer(spec: specs.Tokenizer, statistics: FieldStatistics | None = None) -> TextTokenizer:
    """Return the tokenizer of a specification.

    Raises:
        BundleError: the statistics are none that it gives.
    """
    if isinstance(spec, specs.SubwordTokenizer):
        # Only here: the library is in no process that has no such text.
        from yunmo.data.fields.subwords import SubwordTokenizer

        return SubwordTokenizer(spec, statistics)
    if isinstance(spec, specs.PretrainedTokenizer):
        from yunmo.data.fields.pretrained import PretrainedTokenizer

        return PretrainedTokenizer(spec, statistics)
    return TOKENIZERS[type(spec)](spec, statistics)
