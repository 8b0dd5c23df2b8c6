"""Tokenizer specifications: how a text becomes tokens. Behaviour is in ``data/fields/tokenizers``.

None of them needs a dictionary or spaces between words: a Chinese, Japanese or Korean character counts as a word.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from yunmo.core.encoders import Positive
from yunmo.core.schema import Spec

MOST_TOKENS = 262_144
"""Largest vocabulary that is learned, or read from a bundle."""

HASHES = 2**22
"""Hashes of word n-grams: 0 to this; those of character n-grams are as many, and follow them."""

VocabularySize = Annotated[int, Meta(ge=2, le=MOST_TOKENS, description="tokens that are learned, the most frequent")]
_SEEN = "training texts that a token must occur in; rarer ones count as unknown"
_ORDER = Annotated[int, Meta(ge=0, le=8)]


Stemmer = Literal[
    "arabic",
    "armenian",
    "basque",
    "catalan",
    "czech",
    "danish",
    "dutch",
    "english",
    "esperanto",
    "estonian",
    "finnish",
    "french",
    "german",
    "greek",
    "hindi",
    "hungarian",
    "indonesian",
    "irish",
    "italian",
    "lithuanian",
    "nepali",
    "norwegian",
    "persian",
    "polish",
    "portuguese",
    "romanian",
    "russian",
    "serbian",
    "sesotho",
    "spanish",
    "swedish",
    "tamil",
    "turkish",
    "yiddish",
]


class LanguageRules(Spec, frozen=True):
    """What a tokenizer of words may know of a language, by the rules of libraries (extra ``language``)."""

    stem: Annotated[
        Stemmer | None,
        Meta(description="words are cut to their stems by Snowball's rules for this language (moving, moved: move)"),
    ] = None
    segment: Annotated[
        Literal["chinese"] | None,
        Meta(description="Chinese characters are joined to words by jieba's dictionary; null: each is a word"),
    ] = None
    tags: Annotated[
        Literal["english", "chinese"] | None,
        Meta(
            description="words with their part of speech (film/NN): in the place of words in order, beside n-grams; "
            "chinese: of jieba's words"
        ),
    ] = None

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions whose rules it takes."""
        chinese = "chinese" in (self.segment, self.tags)
        taken = {"PyStemmer": self.stem is not None, "rjieba": chinese, "textblob": self.tags == "english"}
        return tuple(name for name, needed in taken.items() if needed)


class NgramTokenizer(LanguageRules, frozen=True, tag_field="type", tag="ngrams"):
    """A set of n-grams, each once and without order: of words, and of characters between spaces.

    They are hashed; no text is kept. For the encoder `bag`.
    """

    words: Annotated[_ORDER, Meta(description="longest sequence of words; 0: none")] = 2
    shortest: Annotated[int, Meta(ge=1, le=8, description="shortest sequence of characters")] = 1
    characters: Annotated[_ORDER, Meta(description="longest sequence of characters; 0: none")] = 4
    seen: Annotated[Positive, Meta(description=_SEEN)] = 1
    vocabulary: VocabularySize = 120_000


class WordTokenizer(LanguageRules, frozen=True, tag_field="type", tag="words"):
    """Words and punctuation marks in their order."""

    seen: Annotated[Positive, Meta(description=_SEEN)] = 2
    vocabulary: VocabularySize = 32_768


class CharacterTokenizer(Spec, frozen=True, tag_field="type", tag="characters"):
    """Characters in their order, spaces among them."""

    seen: Annotated[Positive, Meta(description=_SEEN)] = 2
    vocabulary: VocabularySize = 16_384


class SubwordTokenizer(Spec, frozen=True, tag_field="type", tag="subwords"):
    """Frequent words whole and rarer ones in pieces, learned from the training texts.

    BPE: Sennrich et al. 2016; WordPiece: Schuster and Nakajima 2012; Unigram: Kudo 2018.
    """

    algorithm: Annotated[Literal["bpe", "wordpiece", "unigram"], Meta(description="how pieces are chosen")] = "bpe"
    vocabulary: VocabularySize = 8192


class PretrainedTokenizer(Spec, frozen=True, tag_field="type", tag="pretrained"):
    """The tokenizer that comes with the encoder `pretrained`, which has it without being asked for.

    A pretrained network's vectors are those of its own tokens, so it has no other, and no other encoder has this one.
    """


Tokenizer = NgramTokenizer | WordTokenizer | CharacterTokenizer | SubwordTokenizer | PretrainedTokenizer
"""What a text field may have."""
