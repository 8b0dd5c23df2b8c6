"""What all fuzzers share: seeds, a mutator, limits, and the property that they look for.

Atheris (https://github.com/google/atheris: libFuzzer, guided by the branches that our code takes) drives where it is
installed; where it has no build (dev extra: Linux on x86-64), random edits of the seeds do.

``python -m tests.fuzz.NAME`` fuzzes one parser, ``python -m tests.fuzz.NAME FILE`` tries one input again.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from yunmo.core.errors import YunmoError

INPUT_SECONDS = 3
"""Seconds of processor time that one input may take."""
HANG_SECONDS = 60
"""Seconds after which an input is taken for one that never ends, on a machine that may be busy."""
MEMORY_MIB = 2048
"""Memory of the whole process: the libraries take some 200 MiB."""
MAX_BYTES = 8192
LONGEST_MESSAGE = 2000
"""Characters of an error's text: an answer must not echo a whole request."""
INSIDE = (
    "Traceback",
    "site-packages",
    "/tmp",  # noqa: S108 (a word that must not occur)
    str(Path(__file__).parents[2]),
    "yunmo.",
    "numpy",
    "simdjson",
    "msgspec",
    "np.",
    " object at 0x",
)
"""Words of ours that no error may tell a client."""

Check = Callable[[bytes], None]


@contextlib.contextmanager
def watched(*packages: str) -> Iterator[None]:
    """Import what is to be fuzzed within this block: then Atheris sees its branches, and those of other packages."""
    try:
        import atheris
    except ModuleNotFoundError:
        yield
        return
    with atheris.instrument_imports(include=["yunmo", *packages]):
        yield


def fuzz(check: Check, seeds: Iterable[bytes], words: Sequence[bytes] = (), max_bytes: int = MAX_BYTES) -> None:
    """Try inputs until the time is over; a finding ends the process with an error and leaves the input in a file.

    Args:
        check: raises `YunmoError` for an input that is refused, and anything else for a finding.
        seeds: inputs to begin with.
        words: that inputs of this kind are made of.
        max_bytes: of one input.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 2**31))
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("files", nargs="*", type=Path)
    given = parser.parse_args()
    if given.files:
        for file in given.files:
            _one(check, file.read_bytes())
        return
    logging.disable()  # libraries report what they refuse
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for index, seed in enumerate(seeds):
            _one(check, seed)
            (corpus / f"seed{index}").write_bytes(seed)
        dictionary = Path(folder, "words")
        dictionary.write_text("".join(map(_quoted, words)))
        try:
            import atheris
        except ModuleNotFoundError:
            _mutate(check, corpus, given.seconds, random.Random(given.seed), given.findings, words)  # noqa: S311 (no secrets)
            return
        options = [
            f"-max_total_time={given.seconds}",
            f"-seed={given.seed}",
            f"-timeout={HANG_SECONDS}",
            f"-rss_limit_mb={MEMORY_MIB}",
            f"-max_len={max_bytes}",
            f"-dict={dictionary}",
            f"-artifact_prefix={given.findings}/",
            "-len_control=0",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: _one(check, data))
        atheris.Fuzz()


def _quoted(word: bytes) -> str:
    """Return a line of libFuzzer's dictionary."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n'


def _one(check: Check, data: bytes) -> None:
    """Try one input: only a `YunmoError` may come of it, and its text tells nothing of our insides."""
    began = time.process_time()
    try:
        check(data)
    except YunmoError as error:
        text = str(error)
        if len(text) > LONGEST_MESSAGE:
            raise AssertionError(f"an error of {len(text)} characters: {text[:300]}") from error
        # What the input itself says may come back in quotes.
        inside = [word for word in INSIDE if word in text and word.encode() not in data]
        if inside:
            raise AssertionError(f"an error that tells of {inside}: {text[:300]}") from error
    took = time.process_time() - began
    assert took < INPUT_SECONDS, f"one input took {took:.1f} seconds"


def _mutate(
    check: Check, corpus: Path, seconds: int, rng: random.Random, findings: Path, words: Sequence[bytes]
) -> None:
    """Do without Atheris: random edits of random seeds."""

    def too_slow(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise AssertionError(f"one input took more than {HANG_SECONDS} seconds")

    signal.signal(signal.SIGALRM, too_slow)
    limit = MEMORY_MIB * 2**20
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    seeds = [file.read_bytes() for file in sorted(corpus.iterdir())]
    end, runs = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = _edited(rng, rng.choice(seeds), rng.choice(seeds), words)
        signal.alarm(HANG_SECONDS)
        try:
            _one(check, data)
        except BaseException:
            (findings / f"crash-{os.getpid()}").write_bytes(data)
            raise
        finally:
            signal.alarm(0)
        runs += 1
    print(f"Done {runs} runs in {seconds} second(s)", file=sys.stderr)  # noqa: T201 (as libFuzzer says it)


def _edited(rng: random.Random, seed: bytes, other: bytes, words: Sequence[bytes]) -> bytes:
    data = bytearray(seed)
    for _ in range(rng.randrange(1, 6)):
        place = rng.randrange(len(data) + 1)
        size = rng.randrange(1, 17)
        match rng.randrange(5):
            case 0:
                data[place : place + size] = rng.randbytes(size)
            case 1:
                del data[place : place + size]
            case 2:
                data[place:place] = rng.choice(words) if words else rng.randbytes(size)
            case 3:
                begin = rng.randrange(len(other) + 1)
                data[place:place] = other[begin : begin + 4 * size]
            case _:
                data[place:place] = data[place : place + size] * rng.choice((1, 2, 60))
    return bytes(data[:MAX_BYTES])
