"""The tokenizers of pretrained encoders, held against those that Hugging Face's libraries make of the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tokenizers
from tests.fixtures.encoders import CONFIG, VOCABULARY, change, tokenizer_file, write_plain

from yunmo.core import fields as specs
from yunmo.core.encoders import PretrainedEncoder, TransformerEncoder
from yunmo.core.errors import BundleError, DataError, InvalidInput, RecipeError
from yunmo.core.fields import FieldStatistics
from yunmo.core.pretrained import TokenRules
from yunmo.core.recipe import DataSpec, Recipe, check_recipe
from yunmo.core.tokenizers import PretrainedTokenizer, WordTokenizer
from yunmo.data.fields.text import TextField
from yunmo.data.pretrained.folder import Content, PretrainedFolder, pack_pretrained

ENCODER = PretrainedEncoder(folder="tiny")
TEXTS = [
    *(
        "The film, is SO lovely!",
        "unlikely",
        "funny stories",
        "a  moving\tfilm",
        "这是中文 film",
        "Été é",
        "don't 🐟",
        "x" * 150,
    ),
    *("", " ", "\u200b\ufffd\x00a", "It's 1,000 %", "the\u00a0film", "\u1100\u1161", "naïve İstanbul ß ﬁ"),
]


def content(folder: Path) -> Content:
    with PretrainedFolder(pack_pretrained(folder, folder.parent / "tiny.zip"), name="tiny") as opened:
        return opened.content


def fitted(folder: Path, **keys: Any) -> TextField:
    known = content(folder)
    field, _ = TextField(specs.TextField(name="x", encoder=ENCODER, **keys), pretrained=known).resolve(TEXTS, str)
    return TextField(field.spec, field.fit(TEXTS))


def tokens(field: TextField, text: str) -> list[int]:
    found = field.encode([text])
    return found["x"][0, : found["x_length"][0]].tolist()


def save_bytes(folder: Path) -> Path:
    """Write a folder with RoBERTa's kind of tokenizer, learned from a few texts."""
    library = tokenizers.ByteLevelBPETokenizer()
    library.train_from_iterator(TEXTS, vocab_size=320, special_tokens=["<s>", "<pad>", "</s>", "<unk>"])
    library.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    write_plain(folder)
    change(folder, "config.json", model_type="roberta", vocab_size=400, pad_token_id=1)
    (folder / "model.safetensors").write_bytes(b"\0" * 50_000)
    (folder / "tokenizer.json").write_text(library.to_str())
    return folder


def uncased(folder: Path) -> Path:
    return write_plain(folder)


def cased(folder: Path) -> Path:
    file = tokenizer_file()
    file["normalizer"] |= {"lowercase": False, "strip_accents": False}
    write_plain(folder)
    (folder / "tokenizer.json").write_text(json.dumps(file))
    return folder


KINDS = {"uncased": uncased, "cased": cased, "bytes": save_bytes}


@pytest.mark.parametrize("kind", KINDS)
def test_texts_have_the_tokens_that_the_library_makes_of_the_folders_file(kind: str, tmp_path: Path) -> None:
    folder = KINDS[kind](tmp_path / "tiny")
    field = fitted(folder, length=40)
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.enable_truncation(40)
    library.no_padding()
    for text in TEXTS:
        assert tokens(field, text) == library.encode(text.strip()).ids, text
    again = TextField(field.spec, msgspec.convert(json.loads(msgspec.json.encode(field.known())), FieldStatistics))
    assert [tokens(again, text) for text in TEXTS] == [tokens(field, text) for text in TEXTS]


def test_transformers_makes_the_same_tokens(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in VOCABULARY))
    saved = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    folder = write_plain(tmp_path / "tiny")
    (folder / "tokenizer.json").unlink()
    saved.save_pretrained(folder)
    field = fitted(folder, length=40)
    library = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for text in TEXTS:
        assert tokens(field, text) == library(text.strip(), truncation=True, max_length=40)["input_ids"], text


def test_a_text_is_left_to_its_tokenizer_and_said_so(tmp_path: Path) -> None:
    known = content(cased(tmp_path / "tiny"))
    field, decisions = TextField(specs.TextField(name="x", encoder=ENCODER), pretrained=known).resolve(TEXTS, str)
    assert field.spec.tokenizer == PretrainedTokenizer()
    assert (field.spec.normalize, field.spec.lowercase) == ("none", False)
    assert [decision.value for decision in decisions] == ["pretrained"]
    assert tokens(TextField(field.spec, field.fit(TEXTS)), "FILM film") == [2, 1, VOCABULARY.index("film"), 3]


def test_the_end_of_a_text_is_cut_and_its_mark_stays(tmp_path: Path) -> None:
    field = fitted(uncased(tmp_path / "tiny"), length=5)
    assert tokens(field, "the film is so lovely") == [2, 5, 6, 7, 3]
    assert tokens(field, "") == [2, 3]
    whole = fitted(tmp_path / "tiny", length=48)
    assert fitted(tmp_path / "tiny").known().shape == (max(len(tokens(whole, text)) for text in TEXTS),)


def test_a_mark_within_a_text_is_text(tmp_path: Path) -> None:
    field = fitted(uncased(tmp_path / "tiny"), length=20)
    found = tokens(field, "the [SEP] film [CLS] [PAD] [MASK]")
    assert found[-1] == 3
    assert not {0, 2, 3, 4} & set(found[1:-1])


def test_a_length_beyond_the_positions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the pretrained encoder reads 48"):
        fitted(uncased(tmp_path / "tiny"), length=49)
    assert fitted(tmp_path / "tiny", length=48).known().shape == (48,)


def test_without_its_folder_there_is_nothing_to_learn() -> None:
    with pytest.raises(InvalidInput, match="needs its encoder's folder"):
        TextField(specs.TextField(name="x", encoder=ENCODER, tokenizer=PretrainedTokenizer())).fit(["a"])


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (specs.TextField(name="x", encoder=ENCODER, tokenizer=WordTokenizer()), "has its own tokenizer"),
        (specs.TextField(name="x", encoder=TransformerEncoder(), tokenizer=PretrainedTokenizer()), "only the encoder"),
        (specs.TextField(name="x", tokenizer=PretrainedTokenizer()), "only the encoder"),
        (specs.TextField(name="x", encoder=ENCODER, length=2), "at least 3 tokens"),
    ],
)
def test_a_recipe_that_takes_network_and_tokenizer_apart_is_refused(field: specs.TextField, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        check_recipe(Recipe(data=DataSpec(train="a.csv"), inputs=(field,)))


def replaced(statistics: FieldStatistics, **keys: Any) -> FieldStatistics:
    return msgspec.structs.replace(statistics, **keys)


def with_rules(statistics: FieldStatistics, **keys: Any) -> FieldStatistics:
    assert statistics.pretrained is not None
    rules = msgspec.structs.replace(statistics.pretrained.rules, **keys)
    return replaced(statistics, pretrained=msgspec.structs.replace(statistics.pretrained, rules=rules))


@pytest.mark.parametrize("kind", ["uncased", "bytes"])
def test_statistics_that_no_folder_gives_are_refused(kind: str, tmp_path: Path) -> None:
    field = fitted(KINDS[kind](tmp_path / "tiny"), length=20)
    good = field.known()
    bad = [
        replaced(good, pretrained=None),
        replaced(good, pieces=()),
        replaced(good, pieces=tuple(map(str, range(500)))),
        replaced(good, pieces=("a", "a")),
        replaced(good, shape=(2,)),
        with_rules(good, start=len(good.pieces)),
        with_rules(good, unknown=len(good.pieces)),
    ]
    if kind == "bytes":
        bad.append(replaced(good, merges=("no merge",)))
    for statistics in bad:
        with pytest.raises(BundleError):
            TextField(field.spec, statistics)


def test_rules_are_checked_when_a_bundle_is_read() -> None:
    rules = msgspec.to_builtins(TokenRules(algorithm="wordpiece", start=2, end=3, unknown=1))
    for wrong in ({"algorithm": "regex"}, {"start": -1}, {"longest_word": 10**6}, {"pattern": "(a+)+"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(rules | wrong, TokenRules)


def test_a_long_text_takes_no_time(tmp_path: Path) -> None:
    for kind in ("uncased", "bytes"):
        field = fitted(KINDS[kind](tmp_path / kind / "tiny"), length=20)
        assert len(tokens(field, "a" * 40_000)) <= 20
        assert len(tokens(field, "the film " * 10_000)) == 20


def test_the_config_is_what_the_network_is_made_of(tmp_path: Path) -> None:
    known = fitted(uncased(tmp_path / "tiny")).known().pretrained
    assert known is not None
    assert known.architecture.hidden_size == CONFIG["hidden_size"]
