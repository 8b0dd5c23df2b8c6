"""The tokenizer of a pretrained encoder, made of plain data; its library is imported where a text has it.

Nothing of a tokenizer's own files reaches the library but tokens and merges: rules are those of BERT and RoBERTa, which
the library has. A mark such as ``[SEP]`` within a text is text, as nothing here makes it one of the network's marks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from yunmo.core import tokenizers as specs
from yunmo.core.errors import InvalidInput
from yunmo.core.fields import FieldStatistics
from yunmo.core.pretrained import LEAST_LENGTH, TokenRules
from yunmo.data.fields.tokenizers import Learned, TextTokenizer, check_merges, check_pieces

_MARKS = 2


class PretrainedTokenizer(TextTokenizer):
    """WordPiece (Devlin et al. 2019) or BPE on bytes (Radford et al. 2019), with a mark at each end of a text."""

    spec: specs.PretrainedTokenizer

    def learn(self, texts: Iterable[str]) -> Learned:  # noqa: ARG002  it has learned before
        """Refuse: it comes from the encoder's folder.

        Raises:
            InvalidInput: always.
        """
        raise InvalidInput("a pretrained tokenizer needs its encoder's folder", remedy="Set encoder.folder")

    def open(self, statistics: FieldStatistics) -> None:
        """Make the library's tokenizer of tokens, merges and rules."""
        pieces = statistics.pieces
        check_pieces(self, pieces)
        if statistics.pretrained is None:
            raise self.refuse("its rules are not there")
        rules = statistics.pretrained.rules
        size = min(len(pieces), statistics.pretrained.architecture.vocab_size)
        if len(pieces) > size or max(rules.start, rules.end, rules.unknown) >= size:
            raise self.refuse("numbers of tokens are beyond the vocabulary")
        if statistics.shape[0] < LEAST_LENGTH:
            raise self.refuse(f"a length of {statistics.shape[0]} has no room for a text")
        self._body = statistics.shape[0] - _MARKS
        self._start, self._end = rules.start, rules.end
        numbers = {piece: number for number, piece in enumerate(pieces)}
        if rules.algorithm == "wordpiece":
            self._tokenizer = _wordpiece(rules, numbers, pieces[rules.unknown])
        else:
            self._tokenizer = _byte_bpe(rules, numbers, check_merges(self, numbers, statistics.merges))

    def tokens(self, text: str) -> list[int]:
        """Return the numbers in order: the mark at the beginning, as much of the text as fits, the mark at the end."""
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [self._start, *found[: self._body], self._end]


def _wordpiece(rules: TokenRules, numbers: dict[str, int], unknown: str) -> Any:
    tokenizer = tokenizers.Tokenizer(
        models.WordPiece(
            numbers,
            unk_token=unknown,
            max_input_chars_per_word=rules.longest_word,
            continuing_subword_prefix=rules.continued,
        )
    )
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=rules.clean_text,
        handle_chinese_chars=rules.chinese_characters,
        strip_accents=rules.strip_accents,
        lowercase=rules.lowercase,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _byte_bpe(rules: TokenRules, numbers: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    tokenizer = tokenizers.Tokenizer(models.BPE(numbers, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=rules.prefix_space)
    return tokenizer
