"""Tokenizer files of a pretrained encoder, read as data: the vocabulary, the merges, and a few known rules.

A ``tokenizer.json`` can hold regular expressions, templates and rules of every kind, for which the library would build
whatever it says. Here only two whole kinds of tokenizer are known, BERT's and RoBERTa's, and a file of another kind is
refused with what is not known of it. So no rule of a file is ever run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from yunmo.core.errors import DataError
from yunmo.core.pretrained import TokenRules
from yunmo.core.tokenizers import MOST_TOKENS

_MOST_ADDED = 1000
_LONGEST_PIECE = 256
_OTHER = "Take an encoder with a tokenizer as BERT's (WordPiece) or RoBERTa's (BPE on bytes)"
_BERT_NAMES = {"start": "[CLS]", "end": "[SEP]", "unknown": "[UNK]"}


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as plain data."""

    pieces: tuple[str, ...]
    """In the order of their numbers, from 0."""
    merges: tuple[str, ...]
    """Of ``byte_bpe``, in order, as ``left right``."""
    rules: TokenRules


def read_tokenizer_file(file: Any, where: str) -> Vocabulary:
    """Read a ``tokenizer.json``.

    Args:
        file: its JSON.
        where: the file, for messages.

    Raises:
        DataError: a kind of tokenizer that is not known, or one that contradicts itself.
    """
    reader = _Reader(where)
    file = reader.mapping(file, "the file")
    model = reader.mapping(file.get("model"), "model")
    kind = model.get("type")
    numbers = reader.numbers(model.get("vocab"), file.get("added_tokens"))
    pieces = reader.ordered(numbers)
    start, end = reader.marks(file.get("post_processor"), numbers)
    if kind == "WordPiece":
        rules = reader.wordpiece(file, model, numbers, start, end)
        return Vocabulary(pieces, (), rules)
    if kind == "BPE":
        rules = reader.byte_bpe(file, model, start, end)
        return Vocabulary(pieces, reader.merges(model.get("merges"), numbers), rules)
    raise reader.refuse(f"the model {str(kind)[:80]!r} is not supported")


def read_vocabulary_file(data: bytes, settings: Any, where: str) -> Vocabulary:
    """Read a ``vocab.txt`` of BERT: a token a line.

    Args:
        data: the file.
        settings: JSON of ``tokenizer_config.json``, or an empty mapping.
        where: the file, for messages.

    Raises:
        DataError: no UTF-8, a token twice or too long, or one of BERT's marks is not there.
    """
    reader = _Reader(where)
    settings = reader.mapping(settings, "tokenizer_config.json")
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise reader.refuse(f"byte {error.start} is not UTF-8", "Get the file again") from None
    if lines and not lines[-1]:
        lines.pop()
    lines = [line.removesuffix("\r") for line in lines]
    numbers = {piece: number for number, piece in enumerate(lines)}
    if len(numbers) != len(lines):
        raise reader.refuse("a token is there twice", "Get the file again")
    pieces = reader.ordered(numbers)
    marks = {name: reader.number(token, numbers) for name, token in _BERT_NAMES.items()}
    accents = settings.get("strip_accents")
    rules = TokenRules(
        algorithm="wordpiece",
        start=marks["start"],
        end=marks["end"],
        unknown=marks["unknown"],
        lowercase=reader.flag(settings.get("do_lower_case", True), "do_lower_case"),
        strip_accents=None if accents is None else reader.flag(accents, "strip_accents"),
        chinese_characters=reader.flag(settings.get("tokenize_chinese_chars", True), "tokenize_chinese_chars"),
    )
    return Vocabulary(pieces, (), rules)


class _Reader:
    """Reads parts of a file and says what is wrong with them."""

    def __init__(self, where: str) -> None:
        self.where = where

    def refuse(self, why: str, remedy: str = _OTHER) -> DataError:
        return DataError(why, where=self.where, remedy=remedy)

    def mapping(self, value: Any, what: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.refuse(f"{what} is no mapping", "Get the file again")
        return value

    def flag(self, value: Any, what: str) -> bool:
        if not isinstance(value, bool):
            raise self.refuse(f"{what} is neither true nor false", "Get the file again")
        return value

    def number(self, token: Any, numbers: Mapping[str, int]) -> int:
        if not isinstance(token, str) or token not in numbers:
            raise self.refuse(f"the token {str(token)[:80]!r} is not in the vocabulary", "Get the file again")
        return numbers[token]

    def numbers(self, vocabulary: Any, added: Any) -> dict[str, int]:
        """Return the number of each token, those that were added to the model's among them."""
        if not isinstance(vocabulary, dict):
            raise self.refuse("the model's vocab is no mapping of tokens to numbers")
        if len(vocabulary) > MOST_TOKENS:
            raise self.refuse(f"{len(vocabulary):,} tokens are more than {MOST_TOKENS:,}")
        numbers = dict(vocabulary)
        added = [] if added is None else added
        if not isinstance(added, list):
            raise self.refuse("added_tokens is no list", "Get the file again")
        if len(added) > _MOST_ADDED:
            raise self.refuse(f"{len(added):,} added tokens are more than {_MOST_ADDED:,}")
        for token in added:
            entry = self.mapping(token, "an added token")
            content = entry.get("content")
            if not isinstance(content, str) or numbers.setdefault(content, entry.get("id")) != entry.get("id"):
                raise self.refuse("an added token is none, or has another number than in the vocabulary")
            if not entry.get("special"):
                raise self.refuse(f"the added token {content[:80]!r} is not a special one, and has rules of its own")
        return numbers

    def ordered(self, numbers: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the tokens in the order of their numbers, which are all from 0 on."""
        pieces: list[str | None] = [None] * len(numbers)
        if len(numbers) > MOST_TOKENS:
            raise self.refuse(f"{len(numbers):,} tokens are more than {MOST_TOKENS:,}")
        for piece, number in numbers.items():
            if not 0 < len(piece) <= _LONGEST_PIECE:
                raise self.refuse(f"a token is empty or has more than {_LONGEST_PIECE} characters")
            if type(number) is not int or not 0 <= number < len(pieces) or pieces[number] is not None:
                raise self.refuse(f"the numbers of the tokens are not 0 to {len(pieces) - 1}, each once")
            pieces[number] = piece
        return tuple(piece for piece in pieces if piece is not None)

    def marks(self, processor: Any, numbers: Mapping[str, int]) -> tuple[int, int]:
        """Return the numbers of the tokens before and after each text."""
        processor = self.mapping(processor, "post_processor")
        kind = processor.get("type")
        if kind in ("BertProcessing", "RobertaProcessing"):
            pairs = [processor.get("cls"), processor.get("sep")]
            names = [pair[0] if isinstance(pair, list) and pair else None for pair in pairs]
        elif kind == "TemplateProcessing":
            names = self._template(processor.get("single"))
        else:
            raise self.refuse(f"the post_processor {str(kind)[:80]!r} is not supported")
        return self.number(names[0], numbers), self.number(names[1], numbers)

    def _template(self, single: Any) -> list[Any]:
        parts = single if isinstance(single, list) else []
        kinds = [next(iter(part), None) if isinstance(part, dict) else None for part in parts]
        if kinds != ["SpecialToken", "Sequence", "SpecialToken"]:
            raise self.refuse("the post_processor does not put one token before each text and one after it")
        return [self.mapping(parts[place]["SpecialToken"], "a special token").get("id") for place in (0, 2)]

    def wordpiece(
        self, file: Mapping[str, Any], model: Mapping[str, Any], numbers: Mapping[str, int], start: int, end: int
    ) -> TokenRules:
        normalizer = self.mapping(file.get("normalizer"), "normalizer")
        splitter = self.mapping(file.get("pre_tokenizer"), "pre_tokenizer")
        if normalizer.get("type") != "BertNormalizer" or splitter.get("type") != "BertPreTokenizer":
            found = f"{normalizer.get('type')!s:.80} and {splitter.get('type')!s:.80}"
            raise self.refuse(f"{found} where BertNormalizer and BertPreTokenizer are supported")
        return self._rules(
            {
                "algorithm": "wordpiece",
                "start": start,
                "end": end,
                "unknown": self.number(model.get("unk_token"), numbers),
                "continued": model.get("continuing_subword_prefix"),
                "longest_word": model.get("max_input_chars_per_word"),
                "lowercase": normalizer.get("lowercase"),
                "strip_accents": normalizer.get("strip_accents"),
                "clean_text": normalizer.get("clean_text"),
                "chinese_characters": normalizer.get("handle_chinese_chars"),
            }
        )

    def byte_bpe(self, file: Mapping[str, Any], model: Mapping[str, Any], start: int, end: int) -> TokenRules:
        splitter = self.mapping(file.get("pre_tokenizer"), "pre_tokenizer")
        plain = splitter.get("type") == "ByteLevel" and splitter.get("use_regex", True) is True
        if not plain or file.get("normalizer") is not None:
            raise self.refuse("BPE is supported on bytes (ByteLevel) without a normalizer")
        for key in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "dropout", "ignore_merges"):
            if model.get(key):
                raise self.refuse(f"the model's {key} is not supported")
        rules = {"algorithm": "byte_bpe", "start": start, "end": end, "unknown": start}
        return self._rules({**rules, "prefix_space": splitter.get("add_prefix_space")})

    def _rules(self, rules: Mapping[str, Any]) -> TokenRules:
        try:
            return msgspec.convert(rules, TokenRules)
        except msgspec.ValidationError as error:
            raise self.refuse(f"a rule has no value that is supported: {str(error)[:200]}") from None

    def merges(self, merges: Any, numbers: Mapping[str, int]) -> tuple[str, ...]:
        if not isinstance(merges, list) or len(merges) > MOST_TOKENS:
            raise self.refuse(f"the merges are no list of at most {MOST_TOKENS:,}")
        found = []
        for merge in merges:
            pair = merge.split(" ") if isinstance(merge, str) else merge
            if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
                raise self.refuse("a merge is no pair of tokens")
            left, right = pair
            if not {left, right, left + right} <= numbers.keys():
                raise self.refuse(f"the merge {left[:40]!r} {right[:40]!r} does not make one token of two")
            found.append(f"{left} {right}")
        return tuple(found)
