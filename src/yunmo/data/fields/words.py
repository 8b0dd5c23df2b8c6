"""Where a text has words, in any script: no dictionary, and no spaces where a script has none."""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Literal

UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
    "\uac00-\ud7af"  # Hangul
)
"""Scripts that write words without spaces, or words so inflected that their syllables say more."""

_JOINER = "\u200d"
_LONGEST = 64
"""Characters of a run that stay together, so that no work on a word grows with the length of a text."""
_FIRST_MARK, _LAST_MARK = 0x300, 0x1E94A
"""Between these are all combining marks (Unicode 16) but supplementary variation selectors, which say nothing."""


def normalized(text: str, form: Literal["nfkc", "nfc", "none"], lowercase: bool) -> str:
    """Return a text in a Unicode form (https://unicode.org/reports/tr15/), in lower case if wanted.

    Case first: the lower case of a composed letter may be a decomposed one.
    """
    if lowercase:
        text = text.lower()
    match form:
        case "nfkc":
            return unicodedata.normalize("NFKC", text)
        case "nfc":
            return unicodedata.normalize("NFC", text)
        case _:
            return text


def words(text: str) -> list[str]:
    """Return words and punctuation marks in order: letters with what combines with them; `UNSPACED` ones singly."""
    return _patterns()[0].findall(text)


def runs(text: str) -> list[str]:
    """As `words`, but `UNSPACED` characters that follow each other stay together (up to 64)."""
    return _patterns()[1].findall(text)


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    marks = _marks()
    letter = rf"[^\W{UNSPACED}]"
    word = rf"{letter}(?:{letter}|[{marks}\u200c{_JOINER}]){{0,{_LONGEST - 1}}}"
    sign = rf"[^\w\s](?:[{marks}]|{_JOINER}[^\w\s])*"
    unspaced = rf"[{UNSPACED}]"
    return (
        re.compile(rf"{unspaced}[{marks}]*|{word}|{sign}"),
        re.compile(rf"(?:{unspaced}[{marks}]*){{1,{_LONGEST}}}|{word}|{sign}"),
    )


def _marks() -> str:
    """Return the combining marks as ranges for a regular expression, for which they are no letters."""
    found = [code for code in range(_FIRST_MARK, _LAST_MARK + 1) if unicodedata.category(chr(code))[0] == "M"]
    ranges: list[list[int]] = []
    for code in found:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
