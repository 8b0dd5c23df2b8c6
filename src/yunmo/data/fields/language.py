"""Words by the rules of a language: stems, Chinese words, parts of speech. The libraries ship all they know.

They are imported only where a model has such a text, and never fetch anything. Their rules change with their versions,
so the statistics name the version that training had, and no other one is taken for it.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from typing import Any

from yunmo.core.errors import BundleError, MissingExtra
from yunmo.core.tokenizers import LanguageRules
from yunmo.data.fields.words import runs, words

_MODULES = {"PyStemmer": "Stemmer", "rjieba": "rjieba", "textblob": "textblob.en"}
_FIRST_HAN, _LAST_HAN = "\u3400", "\U0003ffff"
_HANGUL = ("\uac00", "\ud7af")

Tagged = tuple[list[str], list[str]]
"""Words, and the part of speech of each."""


class Language:
    """How a text becomes words.

    Args:
        spec: of the tokenizer.
        recorded: the libraries and versions that training had; None while training.
        where: the field, for messages.

    Raises:
        MissingExtra: a library is not installed.
        BundleError: training had another version of one.
    """

    def __init__(self, spec: LanguageRules, recorded: Sequence[str] | None, where: str | None) -> None:
        found = {name: _library(name, where) for name in spec.libraries}
        self.rules = tuple(f"{name} {metadata.version(name)}" for name in found)
        """Libraries and their versions."""
        if recorded is not None and tuple(recorded) != self.rules:
            raise BundleError(
                f"its words were made with {', '.join(recorded) or 'no library'}; here is {', '.join(self.rules)}",
                where=where,
                remedy=f"Install {' '.join(rule.replace(' ', '==') for rule in recorded)}, or train it again",
            )
        self._jieba: Any = found.get("rjieba")
        # A stemmer keeps the last words that it has seen, so threads must not share it at the same time.
        self._stem: Callable[[list[str]], list[str]] | None = None
        self._lock = threading.Lock()
        if spec.stem is not None:
            self._stem = found["PyStemmer"].Stemmer(spec.stem).stemWords
        self._tags = spec.tags
        self._parts_of_speech: Callable[[list[str]], list[list[str]]] | None = None
        if spec.tags == "english":
            self._parts_of_speech = found["textblob"].parser.find_tags
            with warnings.catch_warnings():
                # Its lexicon and rules are read with the first words; it leaves closing the files to Python.
                warnings.simplefilter("ignore", ResourceWarning)
                self._parts_of_speech(["a", "wordlessly", "unknownword"])

    def words(self, text: str) -> list[str]:
        """Return words in order, cut to their stems if asked for."""
        return self._stems(self._segments(text)[0])

    def tagged(self, text: str) -> list[str]:
        """Return words in order, each with its part of speech: ``film/NN`` (Penn Treebank), ``股市/n`` (ICTCLAS)."""
        found, tags = self._segments(text)
        if self._parts_of_speech is not None:
            # Before stemming: a stem is no word of the lexicon.
            tags = [tag for _, tag in self._parts_of_speech(found)]
        return [f"{word}/{tag}" for word, tag in zip(self._stems(found), tags, strict=True)]

    def _stems(self, found: list[str]) -> list[str]:
        if self._stem is None:
            return found
        with self._lock:
            return self._stem(found)

    def _segments(self, text: str) -> Tagged:
        if self._jieba is None:
            return words(text), []
        found: list[str] = []
        tags: list[str] = []
        for run in runs(text):
            if not _is_han(run[0]):
                parts = words(run)
                found += parts
                tags += ["eng" if part[0].isalnum() else "x" for part in parts]
            elif self._tags == "chinese":
                for word, tag in self._jieba.tag(run):
                    found.append(word)
                    tags.append(tag)
            else:
                found += self._jieba.cut(run)
        return found, tags


def open_language(spec: LanguageRules, recorded: Sequence[str] | None, where: str | None) -> Language | None:
    """Return how a tokenizer's words are made; None if by `words` alone, without a library.

    Raises:
        MissingExtra, BundleError: as `Language`.
    """
    return Language(spec, recorded, where) if spec.libraries else None


def _library(name: str, where: str | None) -> Any:
    try:
        return import_module(_MODULES[name])
    except ImportError:
        raise MissingExtra(
            f"the text's tokenizer needs {name}", where=where, remedy="Install it: pip install 'yunmo[language]'"
        ) from None


def _is_han(character: str) -> bool:
    return _FIRST_HAN <= character <= _LAST_HAN and not _HANGUL[0] <= character <= _HANGUL[1]
