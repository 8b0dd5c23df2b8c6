"""A pretrained encoder's folder: packed by its owner's client, and opened from that one file where it is trained.

Only a few plain files are ever looked at. What Hugging Face's libraries would run or unpickle (``pytorch_model.bin``,
``modeling_*.py``, ``auto_map``) is neither sent nor read.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from yunmo.core.errors import DataError, InvalidInput, NotFound
from yunmo.core.files import file_digest, open_atomic
from yunmo.core.pretrained import Architecture, Pretrained
from yunmo.data.limits import Limits
from yunmo.data.pretrained.config import parameters, read_architecture
from yunmo.data.pretrained.tokens import Vocabulary, read_tokenizer_file, read_vocabulary_file
from yunmo.data.sources.pack import refuse_link, write_zip
from yunmo.data.sources.zip_archive import ZipArchive

CONFIG, WEIGHTS = "config.json", "model.safetensors"
TOKENIZER, VOCABULARY, TOKENIZER_CONFIG = "tokenizer.json", "vocab.txt", "tokenizer_config.json"
_LIMITS = {
    CONFIG: 2**20,
    TOKENIZER_CONFIG: 4 * 2**20,
    TOKENIZER: 16 * 2**20,
    VOCABULARY: 8 * 2**20,
    WEIGHTS: 4 * 2**30,
}
"""The files that are read, and how many bytes each may have."""
_ARCHIVE = Limits(entries=len(_LIMITS), total=sum(_LIMITS.values()))
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_SAVE = "Load it once with transformers, where it comes from a source that you trust, and save_pretrained() it"


def pack_pretrained(folder: Path, out: Path) -> Path:
    """Make one file of what is read of a folder, the same bytes for the same content.

    Args:
        folder: in Hugging Face's format.
        out: the zip to write.

    Raises:
        NotFound: there is no such folder.
        DataError: a file is missing, pickled, too large, a symbolic link, or says what is not supported.
        StorageFull: no space for the zip; no part of it is left.
    """
    if not folder.is_dir():
        raise NotFound(
            "no such folder of a pretrained encoder",
            where=str(folder),
            remedy="Give a local folder with config.json and model.safetensors; nothing is downloaded",
        )
    refuse_link(folder)
    files = {}
    for name in _LIMITS:
        path = folder / name
        refuse_link(path)
        if path.is_file():
            files[name] = path
    present = sorted(path.name for path in folder.iterdir())
    _check_files({name: path.stat().st_size for name, path in files.items()}, present, str(folder))
    write_zip(files, out)
    with PretrainedFolder(out, name=folder.name) as packed:
        _ = packed.content  # what is wrong with it is said before anything is sent
    return out


class PretrainedFolder:
    """A packed folder, opened.

    Args:
        path: what `pack_pretrained` wrote.
        name: of the folder, for messages.
        digest: SHA-256 that the file must have, as ``sha256:…``; None: any.

    Raises:
        UnsafeArchive: an archive that could do harm.
        DataError: another file than the digest's, or not the files of a pretrained encoder.
    """

    def __init__(self, path: Path, *, name: str, digest: str | None = None) -> None:
        self.name = name
        if digest is not None and f"sha256:{file_digest(path)}" != digest:
            raise DataError("the pretrained encoder is not the one of the recipe", where=name, remedy="Send it again")
        self._archive = ZipArchive(path, _ARCHIVE)
        try:
            sizes = {member: info.file_size for member, info in self._archive.members.items()}
            for member in sizes:
                if member not in _LIMITS:
                    raise DataError("no part of a pretrained encoder", where=f"{name}, {member}", remedy="Leave it out")
            _check_files(sizes, sorted(sizes), name)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> PretrainedFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    @cached_property
    def content(self) -> Content:
        """What config and tokenizer say.

        Raises:
            DataError: what they say is not supported, or not consistent.
        """
        architecture = read_architecture(self._json(CONFIG), f"{self.name}, {CONFIG}")
        self._check_size(architecture)
        settings = self._json(TOKENIZER_CONFIG) if TOKENIZER_CONFIG in self._archive.members else {}
        if TOKENIZER in self._archive.members:
            where = f"{self.name}, {TOKENIZER}"
            vocabulary = read_tokenizer_file(self._json(TOKENIZER), where)
        else:
            where = f"{self.name}, {VOCABULARY}"
            vocabulary = read_vocabulary_file(self._read(VOCABULARY), settings, where)
        if len(vocabulary.pieces) > architecture.vocab_size:
            raise DataError(
                f"{len(vocabulary.pieces):,} tokens, and the network has vectors for {architecture.vocab_size:,} "
                f"(vocab_size in {CONFIG})",
                where=where,
                remedy="Give the tokenizer that the network was trained with",
            )
        return Content(architecture, vocabulary)

    def write_weights(self, path: Path) -> None:
        """Write the weights' file.

        Raises:
            DataError: it is damaged in the archive.
            StorageFull: no space left; nothing is kept.
        """
        with self._archive.open(WEIGHTS) as member, open_atomic(path) as file:
            shutil.copyfileobj(member, file, 2**20)

    def _check_size(self, architecture: Architecture) -> None:
        """Refuse weights that are too few for their architecture, before a network of its size is made."""
        least, size = 2 * parameters(architecture), self._archive.members[WEIGHTS].file_size
        if size < least:
            raise DataError(
                f"{size:,} bytes, where {CONFIG} describes a network of at least {least:,}",
                where=f"{self.name}, {WEIGHTS}",
                remedy="Get both files again: one is cut off, or not of this encoder",
            )

    def _json(self, name: str) -> Any:
        try:
            return msgspec.json.decode(self._read(name))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            reason = str(error) if not isinstance(error, RecursionError) else "nested too deep"
            raise DataError(f"not JSON: {reason[:200]}", where=f"{self.name}, {name}", remedy="Get it again") from None

    def _read(self, name: str) -> bytes:
        try:
            return self._archive.read(name)
        except InvalidInput as error:
            raise DataError(error.message, where=f"{self.name}, {name}", remedy="Send it again") from None


@dataclass(frozen=True)
class Content:
    """What is kept of a folder beside its weights."""

    architecture: Architecture
    vocabulary: Vocabulary

    @property
    def pretrained(self) -> Pretrained:
        """As the field's statistics have it."""
        return Pretrained(architecture=self.architecture, rules=self.vocabulary.rules)


def _check_files(sizes: Mapping[str, int], present: list[str], where: str) -> None:
    """Say which file is missing or too large.

    Args:
        sizes: of the files that are read.
        present: names of all that is there.
        where: the folder, for messages.
    """
    if CONFIG not in sizes:
        raise DataError(f"{CONFIG} is missing", where=where, remedy="Give a folder in Hugging Face's format")
    if WEIGHTS not in sizes:
        pickles = [name for name in present if name.endswith(_PICKLES)]
        if pickles:
            raise DataError(
                f"{pickles[0]} is a pickle, which can run any code when it is read; only {WEIGHTS} is",
                where=where,
                remedy=_SAVE,
            )
        if any(name.endswith(".safetensors.index.json") for name in present):
            raise DataError(
                f"the weights are in several files; only one {WEIGHTS} is read",
                where=where,
                remedy="Save it with save_pretrained(folder, max_shard_size='4GB'), or take a smaller one",
            )
        raise DataError(f"{WEIGHTS} is missing", where=where, remedy=_SAVE)
    if TOKENIZER not in sizes and VOCABULARY not in sizes:
        raise DataError(
            f"neither {TOKENIZER} nor {VOCABULARY} is there",
            where=where,
            remedy="Save the tokenizer there, too: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
        )
    for name, size in sizes.items():
        if size > _LIMITS[name]:
            raise DataError(f"{size:,} bytes, more than {_LIMITS[name]:,}", where=f"{where}, {name}")
        if not size:
            raise DataError("the file is empty", where=f"{where}, {name}", remedy="Get it again")
