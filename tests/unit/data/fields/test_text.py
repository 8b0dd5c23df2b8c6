from __future__ import annotations

import json
import subprocess
import sys
import time

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yunmo.core import fields as specs
from yunmo.core import tokenizers
from yunmo.core.encoders import BagEncoder, RnnEncoder
from yunmo.core.errors import BundleError, DataError, InvalidInput
from yunmo.core.fields import FieldStatistics
from yunmo.data.fields.text import READ, TextField

ENGLISH = ["A dull, dull film.", "A fine film!", "Not a fine film", "dull and bad", "bad but fine"] * 2
CHINESE = ["股市大涨", "球队大胜", "股市下跌", "球队下课", "大涨后下跌"] * 2
ALL = (
    tokenizers.NgramTokenizer(),
    tokenizers.WordTokenizer(),
    tokenizers.CharacterTokenizer(),
    tokenizers.SubwordTokenizer(vocabulary=60),
    tokenizers.SubwordTokenizer(algorithm="wordpiece", vocabulary=60),
    tokenizers.SubwordTokenizer(algorithm="unigram", vocabulary=60),
)
NAMES = ("ngrams", "words", "characters", "bpe", "wordpiece", "unigram")


def fitted(values: list[str | None], tokenizer: tokenizers.Tokenizer | None = None, **keys: object) -> TextField:
    field, _ = TextField(specs.TextField(name="x", tokenizer=tokenizer, **keys)).resolve(values, str)
    return TextField(field.spec, field.fit(values))


def tokens(field: TextField, value: object) -> list[int]:
    found = field.encode([value])
    return found["x"][0, : found["x_length"][0]].tolist()


@pytest.mark.parametrize("tokenizer", ALL, ids=NAMES)
@pytest.mark.parametrize("texts", [ENGLISH, CHINESE], ids=["english", "chinese"])
def test_every_tokenizer_tells_texts_apart_and_comes_back_from_json(
    tokenizer: tokenizers.Tokenizer, texts: list[str]
) -> None:
    field = fitted(texts, tokenizer)
    found = field.encode(texts)
    assert found["x"].dtype == np.int32
    assert len(np.unique(found["x"], axis=0)) == 5
    assert found["x"].max() < len(field.known().pieces) + 2 + len(field.known().buckets)
    assert (found["x_length"] > 0).all()
    plain = json.loads(msgspec.json.encode(field.known()))
    again = TextField(field.spec, msgspec.convert(plain, FieldStatistics))
    assert np.array_equal(again.encode(texts)["x"], found["x"])
    alone = [again.encode([text])["x"][0] for text in texts]
    assert np.array_equal(np.array(alone), found["x"])


@pytest.mark.parametrize("tokenizer", ALL[:5], ids=NAMES[:5])
def test_fitting_again_learns_the_same(tokenizer: tokenizers.Tokenizer) -> None:
    texts = ENGLISH + CHINESE
    assert fitted(texts, tokenizer).known() == fitted(texts, tokenizer).known()


def test_words_are_numbered_by_how_many_texts_have_them() -> None:
    field = fitted(["b a a a", "b a", "b c"], tokenizers.WordTokenizer(seen=1), length=9)
    assert field.known().pieces == ("b", "a", "c")
    assert tokens(field, "c b never-seen b") == [4, 2, 1, 1, 1, 2]
    assert fitted(["b a", "b a", "b c"], tokenizers.WordTokenizer()).known().pieces == ("b", "a")
    assert fitted(["b a", "b a", "b c"], tokenizers.WordTokenizer(vocabulary=2, seen=1)).known().pieces == ("b", "a")


def test_ngrams_are_of_words_and_of_characters_between_spaces() -> None:
    def count(text: str, **keys: int) -> int:
        return len(tokens(fitted([text], tokenizers.NgramTokenizer(seen=1, **keys)), text))

    assert count("a b c a", words=1, characters=0) == 3
    assert count("a b c a", words=2, characters=0) == 6  # and a b, b c, c a
    assert count("ab", words=0, characters=2) == 5  # a, b, " a", ab, "b "
    assert count("ab", words=0, characters=3) == 7  # and " ab", "ab "
    assert count("ab", words=0, shortest=3, characters=3) == 2
    assert count("a b", words=0, characters=3) == 8  # a, b, " a", "a ", " b", "b ", " a ", " b ": none across
    assert count("大涨", words=2, characters=0) == 3


def test_unseen_ngrams_are_left_out() -> None:
    field = fitted(ENGLISH)
    assert tokens(field, "qqq zzz") == []
    assert tokens(field, "fine 大") == tokens(field, "fine")


@pytest.mark.parametrize("tokenizer", ALL, ids=NAMES)
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\u200f\u202eمرحبا بالعالم",
        "e\u0301" * 50,
        "\u0301\u0301",
        "👩‍👩‍👧🏳️‍🌈👍🏽",
        "नमस्ते",
        "สวัสดี",
        "\x00\x01",
        "\ufdfa" * 300,
    ],
    ids=["empty", "space", "arabic", "marks", "bare marks", "emoji", "hindi", "thai", "control", "expands"],
)
def test_any_text_is_encoded(tokenizer: tokenizers.Tokenizer, text: str) -> None:
    field = fitted(ENGLISH, tokenizer)
    found = field.encode([text, "fine"])
    assert found["x"].shape == (2, *field.known().shape)
    assert 0 <= found["x_length"][0] <= field.known().shape[0]
    assert not found["x"][0, found["x_length"][0] :].any()


@pytest.mark.parametrize("tokenizer", ALL, ids=NAMES)
@pytest.mark.parametrize("text", ["a" * 1_000_000, "dull " * 200_000, "股" * 1_000_000], ids=["a", "words", "chinese"])
def test_of_a_million_characters_the_first_are_read(tokenizer: tokenizers.Tokenizer, text: str) -> None:
    field = fitted(ENGLISH + CHINESE, tokenizer)
    began = time.process_time()
    found = field.encode([text])
    assert time.process_time() - began < 2
    assert np.array_equal(found["x"], field.encode([text[:READ]])["x"])


def test_a_letter_is_the_same_however_it_is_written() -> None:
    field = fitted(["café ABC １２", "other"], tokenizers.WordTokenizer(seen=1))
    assert tokens(field, "CAFE\u0301 ａｂｃ 12") == tokens(field, "café abc 12")
    strict = fitted(["Café a"], tokenizers.WordTokenizer(seen=1), normalize="none", lowercase=False)
    assert tokens(strict, "café a")[0] == 1
    assert tokens(strict, "Cafe\u0301 a")[0] == 1
    composed = fitted(["Café ａ"], tokenizers.WordTokenizer(seen=1), normalize="nfc")
    assert tokens(composed, "cafe\u0301 a") == [3, 1] or tokens(composed, "cafe\u0301 a") == [2, 1]


def test_bytes_are_utf_8() -> None:
    field = fitted(ENGLISH + CHINESE)
    assert tokens(field, "股市 fine".encode()) == tokens(field, "股市 fine")
    with pytest.raises(InvalidInput, match="byte 1 is not UTF-8") as caught:
        field.encode([b"ok", b"a\xff"])
    assert caught.value.where == "row 1, field x"


@pytest.mark.parametrize("value", ["a\ud800", 5, 1.5, True, ["a"], {"a": 1}], ids=str)
def test_what_is_no_text_is_refused_by_row(value: object) -> None:
    field = fitted(ENGLISH)
    with pytest.raises(InvalidInput) as caught:
        field.encode(["fine", value])
    assert caught.value.where == "row 1, field x"
    assert caught.value.remedy
    with pytest.raises(DataError, match=r"no text|surrogate") as found:
        TextField(specs.TextField(name="x")).clean(["fine", value], lambda row: f"a.csv, row {row}")
    assert found.value.where == "a.csv, row 1, field x"


def test_a_missing_text_is_an_empty_one_or_its_row_is_dropped() -> None:
    values = [*ENGLISH, None, "", "NA"]
    field = fitted(values)
    assert field.known().missing == 3
    cleaned = field.clean(values, str)
    assert cleaned.keep.all()
    assert (cleaned.issues[0].count, cleaned.issues[0].action) == (3, "counts as an empty text")
    assert [tokens(field, value) for value in (None, "", "NA", b"")] == [[]] * 4
    assert field.json_schema()["type"] == ["string", "null"]
    strict = fitted(ENGLISH, missing="drop")
    assert strict.clean(values, str).keep.sum() == len(ENGLISH)
    assert strict.json_schema()["type"] == "string"
    for value in (None, "", "?"):
        with pytest.raises(InvalidInput, match="missing"):
            strict.encode([value])


def test_texts_of_which_nothing_can_be_learned() -> None:
    with pytest.raises(DataError, match="no text has a token"):
        fitted(["", None, " "])
    with pytest.raises(DataError, match="seen: 1"):
        fitted(["one", "two", "six"], tokenizers.WordTokenizer())


def test_the_tokenizer_follows_the_encoder() -> None:
    def chosen(**keys: object) -> tuple[object, list[str]]:
        field, decisions = TextField(specs.TextField(name="x", **keys)).resolve(ENGLISH, str)
        return field.spec.tokenizer, [decision.key for decision in decisions]

    assert chosen() == (tokenizers.NgramTokenizer(), ["inputs.x.tokenizer"])
    assert chosen(encoder=BagEncoder())[0] == tokenizers.NgramTokenizer()
    assert chosen(encoder=RnnEncoder())[0] == tokenizers.WordTokenizer()
    assert chosen(tokenizer=tokenizers.CharacterTokenizer()) == (tokenizers.CharacterTokenizer(), [])


def test_the_length_fits_nearly_every_text() -> None:
    texts = ["a b c"] * 199 + ["a b " * 500]
    assert fitted(texts, tokenizers.WordTokenizer()).known().shape == (3,)
    assert fitted(["a b " * 500] * 3, tokenizers.WordTokenizer()).known().shape == (256,)
    assert fitted(texts, tokenizers.WordTokenizer(), length=7).known().shape == (7,)
    assert len(tokens(fitted(texts, tokenizers.WordTokenizer(), length=7), "a b " * 500)) == 7


CRAFTED = {
    "a piece twice": (ALL[1], {"pieces": ("a", "a")}),
    "an empty piece": (ALL[1], {"pieces": ("",)}),
    "a long piece": (ALL[1], {"pieces": ("a" * 1000,)}),
    "too many pieces": (ALL[2], {"pieces": tuple(map(str, range(tokenizers.MOST_TOKENS + 1)))}),
    "a piece with a space": (ALL[3], {"pieces": (" padding",)}),
    "a merge of what is not there": (ALL[3], {"pieces": ("a", "b"), "merges": ("a b",)}),
    "too many merges": (ALL[3], {"pieces": ("a", "aa"), "merges": ("a a",) * (tokenizers.MOST_TOKENS + 1)}),
    "no score": (ALL[5], {"pieces": ("a", "b"), "scores": (1.0,)}),
    "an infinite score": (ALL[5], {"pieces": ("a",), "scores": (float("inf"),)}),
    "buckets out of order": (ALL[0], {"buckets": (5, 3), "bucket_counts": (1, 1)}),
    "a bucket beyond": (ALL[0], {"buckets": (2**40,), "bucket_counts": (1,)}),
    "a bucket below": (ALL[0], {"buckets": (-1,), "bucket_counts": (1,)}),
    "no counts": (ALL[0], {"buckets": (1, 2), "bucket_counts": (1,)}),
    "too many buckets": (
        ALL[0],
        {"buckets": tuple(range(tokenizers.MOST_TOKENS + 1)), "bucket_counts": (1,) * (tokenizers.MOST_TOKENS + 1)},
    ),
    "no length": (ALL[1], {"pieces": ("a",), "shape": ()}),
    "an exploding length": (ALL[1], {"pieces": ("a",), "shape": (10**9,)}),
    "no tokenizer": (None, {"pieces": ("a",)}),
}


@pytest.mark.parametrize("kind", CRAFTED)
def test_crafted_statistics_are_refused(kind: str) -> None:
    tokenizer, changes = CRAFTED[kind]
    base = FieldStatistics(name="x", type="text", role="input", encode_version=1, count=3, shape=(4,))
    with pytest.raises(BundleError, match="field x"):
        TextField(specs.TextField(name="x", tokenizer=tokenizer), msgspec.structs.replace(base, **changes))


def test_the_library_is_imported_for_subwords_only() -> None:
    code = (
        "import sys\n"
        "from yunmo.core.fields import TextField\n"
        "from yunmo.core.tokenizers import SubwordTokenizer\n"
        "from yunmo.data.fields.registry import open_field\n"
        "for tokenizer in (None, SubwordTokenizer()):\n"
        "    open_field(TextField(name='x', tokenizer=tokenizer)).fit(['a b', 'a b'])\n"
        "    print('tokenizers' in sys.modules, 'huggingface_hub' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False False", "True False"]


FITTED = [fitted(ENGLISH + CHINESE, tokenizer) for tokenizer in ALL]


@given(st.lists(st.text(max_size=60), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_text_is_encoded_alike_alone_in_a_batch_and_as_bytes(texts: list[str]) -> None:
    for field in FITTED:
        together = field.encode(texts)
        for row, text in enumerate(texts):
            for form in (text, text.encode()):
                alone = field.encode([form])
                assert np.array_equal(alone["x"][0], together["x"][row])
                assert alone["x_length"][0] == together["x_length"][row]
