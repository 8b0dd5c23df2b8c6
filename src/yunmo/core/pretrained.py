"""What is known of a pretrained text encoder: its architecture and its tokenizer's rules, as plain data.

Both are read from a local folder in Hugging Face's format once, when data is prepared (``data/pretrained``), and travel
in the field's statistics from then on: neither the folder nor its files are needed to serve.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from yunmo.core.schema import Spec

ModelType = Literal["bert", "distilbert", "electra", "mpnet", "roberta"]
"""Architectures that are known, by their ``model_type`` in ``config.json``."""

_Count = Annotated[int, Meta(ge=1, le=64)]
_Share = Annotated[float, Meta(ge=0, lt=1)]
_TokenNumber = Annotated[int, Meta(ge=0, lt=262_144)]


class Architecture(Spec, frozen=True):
    """A pretrained encoder's network: the keys of ``config.json`` that shape it, as BERT names them."""

    model_type: ModelType
    vocab_size: Annotated[int, Meta(ge=2, le=262_144)]
    hidden_size: Annotated[int, Meta(ge=1, le=4096)]
    num_hidden_layers: _Count
    num_attention_heads: _Count
    intermediate_size: Annotated[int, Meta(ge=1, le=16_384)]
    max_position_embeddings: Annotated[int, Meta(ge=8, le=8192)]
    type_vocab_size: Annotated[int, Meta(ge=0, le=16)] = 2
    embedding_size: Annotated[int, Meta(ge=1, le=4096)] | None = None
    """Length of a token's vector, if it is not ``hidden_size`` (ELECTRA)."""
    relative_attention_num_buckets: Annotated[int, Meta(ge=2, le=1024)] = 32
    """Distances that are told apart (MPNet)."""
    hidden_act: Literal["gelu", "gelu_new", "relu", "silu"] = "gelu"
    layer_norm_eps: Annotated[float, Meta(gt=0, le=0.1)] = 1e-12
    pad_token_id: _TokenNumber = 0
    hidden_dropout_prob: _Share = 0.1
    attention_probs_dropout_prob: _Share = 0.1

    @property
    def first_position(self) -> int:
        """Number of the first token's position: RoBERTa and MPNet count from beyond the padding's number."""
        return self.pad_token_id + 1 if self.model_type in ("roberta", "mpnet") else 0

    @property
    def tokens(self) -> int:
        """Tokens of a text that it can read at most."""
        return self.max_position_embeddings - self.first_position


class TokenRules(Spec, frozen=True):
    """How a pretrained tokenizer splits a text. Its tokens, and for ``byte_bpe`` its merges, are in the statistics."""

    algorithm: Literal["wordpiece", "byte_bpe"]
    """WordPiece as BERT has it (Devlin et al. 2019), or BPE on bytes as GPT-2 and RoBERTa (Radford et al. 2019)."""
    start: _TokenNumber
    """Number of the token before each text, such as ``[CLS]``."""
    end: _TokenNumber
    """Number of the token after it, such as ``[SEP]``."""
    unknown: _TokenNumber
    """WordPiece: number of the token for a word that has no pieces."""
    continued: Annotated[str, Meta(max_length=8)] = "##"
    """WordPiece: what marks a piece within a word."""
    longest_word: Annotated[int, Meta(ge=1, le=1000)] = 100
    """WordPiece: characters beyond which a word is unknown."""
    lowercase: bool = False
    strip_accents: bool | None = None
    """WordPiece: None: as ``lowercase``."""
    clean_text: bool = True
    """WordPiece: control characters are removed."""
    chinese_characters: bool = True
    """WordPiece: each is a word."""
    prefix_space: bool = False
    """Byte BPE: the first word is as one after a space."""


class Pretrained(Spec, frozen=True):
    """All that a field's statistics keep of the folder its encoder began with, but the vocabulary."""

    architecture: Architecture
    rules: TokenRules


LEAST_LENGTH = 3
"""Tokens that a text has at least: start, one, end."""
