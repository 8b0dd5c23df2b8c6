"""Subwords: BPE, WordPiece and Unigram of the library ``tokenizers``, which is imported where a text has them.

Of what it learns only pieces, merges and scores are kept, as plain data. Its own files can hold regular expressions
and rules of every kind; none is read or written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from yunmo.core import tokenizers as specs
from yunmo.core.fields import FieldStatistics
from yunmo.data.fields.tokenizers import FIRST, PADDING, UNKNOWN, Learned, TextTokenizer, check_merges, check_pieces
from yunmo.data.fields.words import runs, words

_PADDING, _UNKNOWN = " padding", " unknown"
"""Names of the numbers before the pieces. They have a space, which no piece has: so no text can hold them."""
_START = "\u2581"
"""Stands before each word, so that its first piece is another than one within a word; WordPiece marks the others."""
_CONTINUED = "##"
_LONGEST_PIECE = 32
_DIGITS = 9
"""Digits of a score that are kept: beyond them, sums over threads are not the same every time."""


class SubwordTokenizer(TextTokenizer):
    """Pieces of words, in their order; words are told apart by `yunmo.data.fields.words.runs`."""

    spec: specs.SubwordTokenizer

    def learn(self, texts: Iterable[str]) -> Learned:
        """Learn the pieces of the training texts."""
        unigram = self.spec.algorithm == "unigram"
        learner = tokenizers.Tokenizer(models.Unigram() if unigram else models.BPE(unk_token=_UNKNOWN))
        learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        learner.train_from_iterator((_started(self.spec, text) for text in texts), _trainer(self.spec))
        model = json.loads(learner.to_str())["model"]
        if unigram:
            found = [(piece, round(score, _DIGITS)) for piece, score in model["vocab"][FIRST:]]
            found.sort(key=lambda pair: (-pair[1], pair[0]))
            return {"pieces": tuple(piece for piece, _ in found), "scores": tuple(score for _, score in found)}
        pieces = sorted(model["vocab"], key=lambda piece: int(model["vocab"][piece]))[FIRST:]
        if self.spec.algorithm == "bpe":
            return {"pieces": tuple(pieces), "merges": tuple(" ".join(pair) for pair in model["merges"])}
        # WordPiece learns as BPE does, and differs in how it reads: the longest piece first.
        return {"pieces": tuple(_as_wordpiece(piece) for piece in pieces if piece != _START)}

    def open(self, statistics: FieldStatistics) -> None:
        """Make the library's tokenizer of pieces, merges and scores."""
        check_pieces(self, statistics.pieces)
        self._words = statistics.shape[0]  # each makes one token at least
        if any(" " in piece for piece in statistics.pieces):
            raise self.refuse("one has a space")
        numbers = {_PADDING: PADDING, _UNKNOWN: UNKNOWN}
        numbers |= {piece: number for number, piece in enumerate(statistics.pieces, FIRST)}
        model: Any
        match self.spec.algorithm:
            case "unigram":
                model = self._unigram(statistics)
            case "bpe":
                model = self._bpe(numbers, statistics.merges)
            case _:
                model = models.WordPiece(numbers, unk_token=_UNKNOWN, continuing_subword_prefix=_CONTINUED)
        self._tokenizer = tokenizers.Tokenizer(model)
        self._tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()

    def tokens(self, text: str) -> list[int]:
        """Return the numbers in order; `UNKNOWN` for characters that training did not see."""
        if self.spec.algorithm == "wordpiece":
            plain = " ".join(words(text)[: self._words])
        else:
            plain = _started(self.spec, text, self._words)
        found: list[int] = self._tokenizer.encode(plain, add_special_tokens=False).ids
        return found

    def _unigram(self, statistics: FieldStatistics) -> Any:
        scores = statistics.scores
        if len(scores) != len(statistics.pieces) or not all(map(math.isfinite, scores)):
            raise self.refuse("not each has a score")
        pieces = [(_PADDING, 0.0), (_UNKNOWN, 0.0), *zip(statistics.pieces, scores, strict=True)]
        return models.Unigram(pieces, unk_id=UNKNOWN)

    def _bpe(self, numbers: dict[str, int], merges: tuple[str, ...]) -> Any:
        return models.BPE(numbers, check_merges(self, numbers, merges), unk_token=_UNKNOWN)


def _started(spec: specs.SubwordTokenizer, text: str, most: int | None = None) -> str:
    """Join a text's words, each after `_START`; for WordPiece, as in BERT, every Chinese character is a word."""
    found = words(text) if spec.algorithm == "wordpiece" else runs(text)
    return " ".join(f"{_START}{word}" for word in found[:most])


def _as_wordpiece(piece: str) -> str:
    return piece.removeprefix(_START) if piece.startswith(_START) else _CONTINUED + piece


def _trainer(spec: specs.SubwordTokenizer) -> Any:
    common: dict[str, Any] = {
        "vocab_size": spec.vocabulary + FIRST,
        "special_tokens": [_PADDING, _UNKNOWN],
        "show_progress": False,
    }
    if spec.algorithm == "unigram":
        return trainers.UnigramTrainer(**common, unk_token=_UNKNOWN, max_piece_length=_LONGEST_PIECE)
    return trainers.BpeTrainer(**common, min_frequency=2, max_token_length=_LONGEST_PIECE)
