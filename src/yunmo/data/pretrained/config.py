"""``config.json`` of a pretrained encoder: only known keys are read, each within limits."""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from yunmo.core.errors import DataError
from yunmo.core.pretrained import Architecture, ModelType

_LARGEST = 2**30
"""Parameters: 4 GiB of them."""
_TYPES = get_args(ModelType)
_DISTILBERT = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}
"""DistilBERT's names of keys, and BERT's."""
_NEEDED = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)
_FORBIDDEN = {
    "auto_map": "code of its own, which is never run",
    "quantization_config": "weights that are quantised already",
    "is_decoder": "a decoder, not an encoder",
    "add_cross_attention": "a decoder, not an encoder",
}


def read_architecture(config: Any, where: str) -> Architecture:
    """Return the architecture that a ``config.json`` describes.

    Args:
        config: its JSON.
        where: the file, for messages.

    Raises:
        DataError: an architecture that is not known, custom code, a missing key, or a size beyond the limits.
    """
    if not isinstance(config, dict):
        raise DataError("not a configuration", where=where, remedy="Give a folder in Hugging Face's format")
    for key, meaning in _FORBIDDEN.items():
        if config.get(key):
            raise DataError(f"{key} asks for {meaning}", where=where, remedy=f"Take one of: {', '.join(_TYPES)}")
    kind = config.get("model_type")
    if kind not in _TYPES:
        raise DataError(
            f"the architecture {str(kind)[:80]!r} is not supported",
            where=where,
            remedy=f"Take one of: {', '.join(_TYPES)} (MiniLM is a bert or roberta)",
        )
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise DataError("positions are not absolute", where=where, remedy="Take an encoder whose positions are")
    if kind == "distilbert":
        config = {_DISTILBERT.get(key, key): value for key, value in config.items()} | {"type_vocab_size": 0}
    for key in _NEEDED:
        if key not in config:
            raise DataError(f"{key} is missing", where=where, remedy="Get the file again")
    known = {field.name for field in msgspec.structs.fields(Architecture)}
    if config.get("pad_token_id") is None:
        known.discard("pad_token_id")
    try:
        # Not strict: some files have whole numbers as 0.0.
        found = msgspec.convert({key: value for key, value in config.items() if key in known}, Architecture)
    except msgspec.ValidationError as error:
        raise DataError(f"a key has no value that is supported: {str(error)[:200]}", where=where) from None
    _check_sizes(found, where)
    return found


def _check_sizes(architecture: Architecture, where: str) -> None:
    if architecture.hidden_size % architecture.num_attention_heads:
        raise DataError(
            f"hidden_size {architecture.hidden_size} is no multiple of the {architecture.num_attention_heads} "
            "num_attention_heads",
            where=where,
        )
    if architecture.tokens < 1 or architecture.pad_token_id >= architecture.vocab_size:
        raise DataError(f"pad_token_id is {architecture.pad_token_id}, beyond what there is", where=where)
    count = parameters(architecture)
    if count > _LARGEST:
        raise DataError(
            f"about {count:,} parameters, more than {_LARGEST:,}", where=where, remedy="Take a smaller encoder"
        )


def parameters(architecture: Architecture) -> int:
    """Return about how many parameters an architecture has, and no more than it has: its large matrices' alone."""
    size, inner = architecture.hidden_size, architecture.intermediate_size
    embedded = architecture.embedding_size or size
    vectors = (architecture.vocab_size + architecture.max_position_embeddings) * embedded
    return vectors + architecture.num_hidden_layers * (4 * size * size + 2 * size * inner)
