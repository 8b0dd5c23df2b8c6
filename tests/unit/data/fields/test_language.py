"""Stems, Chinese words and parts of speech, by libraries that ship all they know."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any, get_args, get_type_hints

import msgspec
import numpy as np
import pytest
import Stemmer  # type: ignore[import-not-found]  # it ships no types

from yunmo.core import fields as specs
from yunmo.core.errors import BundleError, MissingExtra, RecipeError
from yunmo.core.recipe import recipe_from
from yunmo.core.tokenizers import LanguageRules, NgramTokenizer, WordTokenizer
from yunmo.data.fields.language import Language, open_language
from yunmo.data.fields.text import TextField


def language(**rules: Any) -> Language:
    return Language(WordTokenizer(**rules), None, None)


def fitted(tokenizer: WordTokenizer | NgramTokenizer, texts: list[str]) -> TextField:
    spec = specs.TextField(name="text", tokenizer=tokenizer)
    return TextField(spec, TextField(spec).fit(texts))


def test_every_stemmer_of_the_recipe_is_there() -> None:
    names, _ = get_args(get_type_hints(LanguageRules)["stem"])
    assert set(get_args(names)) == set(Stemmer.algorithms()) - {"porter", "dutch_porter"}


def test_words_are_cut_to_their_stems() -> None:
    assert language(stem="english").words("he moved, moving stories!") == ["he", "move", ",", "move", "stori", "!"]
    assert language(stem="german").words("die häuser") == ["die", "haus"]


def test_chinese_characters_are_joined_to_words_and_nothing_else_changes() -> None:
    found = language(segment="chinese").words("股市大涨, iPhone 15 don't 한국 ไทย 猫")
    assert found == ["股市", "大涨", ",", "iPhone", "15", "don", "'", "t", "한", "국", "ไ", "ท", "ย", "猫"]


def test_words_have_their_part_of_speech() -> None:
    english = language(tags="english")
    assert english.tagged("the lovely film moved us") == ["the/DT", "lovely/JJ", "film/NN", "moved/VBD", "us/PRP"]
    assert language(tags="english", stem="english").tagged("lovely films") == ["love/JJ", "film/NNS"]
    assert language(tags="chinese").tagged("股市大涨 ok!") == ["股市/n", "大涨/v", "ok/eng", "!/x"]
    assert english.tagged("a/b &slash; 猫") == [
        f"{word}/{tag}"
        for word, tag in zip(["a", "/", "b", "&", "slash", ";", "猫"], english_tags("a / b & slash ; 猫"), strict=True)
    ]


def english_tags(text: str) -> list[str]:
    from textblob.en import parser  # type: ignore[import-untyped]  # it ships no types

    return [tag for _, tag in parser.find_tags(text.split())]


def test_without_a_rule_there_is_no_library() -> None:
    assert open_language(WordTokenizer(), None, None) is None
    code = (
        "import sys; from yunmo.data.fields.text import TextField; from yunmo.core import fields, tokenizers; "
        "spec = fields.TextField(name='t', tokenizer=tokenizers.WordTokenizer(seen=1)); "
        "TextField(spec, TextField(spec).fit(['a cat'])).encode(['a']); "
        "print(sorted({'Stemmer', 'rjieba', 'textblob', 'nltk'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


RULES: list[dict[str, Any]] = [
    {"stem": "english"},
    {"tags": "english"},
    {"segment": "chinese"},
    {"tags": "chinese"},
    {"stem": "english", "tags": "english", "segment": "chinese"},
]
TEXTS = ["the moving films moved us", "股市大涨, and the markets moved", "a film", "猫"] * 3


@pytest.mark.parametrize("rules", RULES, ids="-".join)
@pytest.mark.parametrize("kind", [WordTokenizer, NgramTokenizer])
def test_training_and_serving_make_the_same_tokens(kind: Any, rules: dict[str, Any]) -> None:
    field = fitted(kind(seen=1, **rules), TEXTS)
    plain = fitted(kind(seen=1), TEXTS)
    known = field.known()
    assert [rule.split()[0] for rule in known.rules] == list(field.spec.tokenizer.libraries)  # type: ignore[union-attr]
    assert not plain.known().rules
    assert (known.pieces, known.buckets) != (plain.known().pieces, plain.known().buckets)
    again = TextField(field.spec, msgspec.json.decode(msgspec.json.encode(known), type=specs.FieldStatistics))
    values = [*TEXTS, None, "", "never seen 从未", "👩‍👩‍👧 e\u0301\x00", b"the film"]
    first, second = field.encode(values), again.encode(values)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert first["text_length"][: len(TEXTS)].min() > 0


def test_words_of_one_stem_are_one_token() -> None:
    field = fitted(WordTokenizer(seen=1, stem="english"), ["moved films", "moving film"])
    one, other = field.encode(["moved films", "moving film"])["text"]
    assert one.tolist() == other.tolist()
    assert set(field.known().pieces) == {"move", "film"}


def test_tags_stand_beside_ngrams() -> None:
    plain = fitted(NgramTokenizer(characters=0, words=1), ["the film"]).known()
    tagged = fitted(NgramTokenizer(characters=0, words=1, tags="english"), ["the film"]).known()
    assert set(plain.buckets) < set(tagged.buckets)
    assert len(tagged.buckets) == 4


@pytest.mark.parametrize("recorded", [("PyStemmer 2.2.0",), (), ("PyStemmer 3.1.0", "rjieba 0.1.0")])
def test_a_bundle_made_with_other_rules_is_refused(recorded: tuple[str, ...]) -> None:
    field = fitted(WordTokenizer(seen=1, stem="english", segment="chinese"), ["a film"])
    with pytest.raises(BundleError, match="its words were made with") as caught:
        TextField(field.spec, msgspec.structs.replace(field.known(), rules=recorded))
    assert "field text" in str(caught.value.where)
    assert "train it again" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("rules", "module"),
    [({"stem": "french"}, "Stemmer"), ({"segment": "chinese"}, "rjieba"), ({"tags": "english"}, "textblob.en")],
)
def test_a_library_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, rules: dict[str, Any], module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra) as caught:
        fitted(WordTokenizer(**rules), ["a film"])
    assert "yunmo[language]" in str(caught.value.remedy)


def test_a_long_text_takes_no_longer_than_its_length() -> None:
    opened = language(stem="english", tags="english", segment="chinese")
    for text in ("猫" * 32_768, "中国人民银行" * 5461, "a" * 32_768, "moving " * 4681, "x1" * 16_384, "猫a" * 16_384):
        began = time.perf_counter()
        opened.tagged(text)
        assert time.perf_counter() - began < 5, "some 0.1 s are usual"


@pytest.mark.parametrize(
    ("tokenizer", "more", "message"),
    [
        ({"type": "words", "stem": "klingon"}, {}, "klingon"),
        ({"type": "words", "tags": "french"}, {}, "french"),
        ({"type": "characters", "stem": "english"}, {}, "unknown key 'stem'"),
        ({"type": "words", "stem": "english"}, {"embeddings": {"file": "x"}}, "no file of embeddings has stems"),
        ({"type": "words", "tags": "english"}, {"embeddings": {"file": "x"}}, "no file of embeddings has stems"),
    ],
)
def test_a_recipe_with_rules_that_are_none_is_refused(
    tokenizer: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    field = {"name": "text", "type": "text", "encoder": {"type": "textcnn"}, "tokenizer": tokenizer, **more}
    with pytest.raises(RecipeError, match=message):
        recipe_from({"data": {"train": "x"}, "inputs": [field]})
    words = {**field, "tokenizer": {"type": "words", "segment": "chinese"}, "embeddings": {"file": "x"}}
    assert recipe_from({"data": {"train": "x"}, "inputs": [words]})
