from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.encoders import CONFIG, VOCABULARY, change, tokenizer_file, write_plain

from yunmo.core.errors import DataError, NotFound, UnsafeArchive
from yunmo.core.files import file_digest
from yunmo.data.pretrained.folder import PretrainedFolder, pack_pretrained

CONFIG_FILE, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_plain(tmp_path / "tiny")


def packed(folder: Path) -> PretrainedFolder:
    return PretrainedFolder(pack_pretrained(folder, folder.parent / "tiny.zip"), name="tiny")


def test_what_is_kept_of_a_folder(folder: Path, tmp_path: Path) -> None:
    with packed(folder) as opened:
        architecture, vocabulary = opened.content.architecture, opened.content.vocabulary
        opened.write_weights(tmp_path / "out.safetensors")
    assert (architecture.model_type, architecture.num_hidden_layers, architecture.tokens) == ("bert", 2, 48)
    assert vocabulary.pieces == VOCABULARY
    assert (vocabulary.rules.start, vocabulary.rules.end, vocabulary.rules.unknown) == (2, 3, 1)
    assert vocabulary.rules.lowercase
    assert (tmp_path / "out.safetensors").read_bytes() == (folder / WEIGHTS).read_bytes()


def test_a_vocabulary_alone_says_as_much_as_the_tokenizers_file(folder: Path) -> None:
    with packed(folder) as opened:
        expected = opened.content.vocabulary
    (folder / TOKENIZER).unlink()
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in VOCABULARY))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "tokenizer_class": "X"}))
    with packed(folder) as opened:
        assert opened.content.vocabulary == expected
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    with packed(folder) as opened:
        assert not opened.content.vocabulary.rules.lowercase


def test_the_same_content_is_the_same_file_whatever_lies_beside_it(folder: Path, tmp_path: Path) -> None:
    first = pack_pretrained(folder, tmp_path / "a.zip")
    (folder / "README.md").write_text("a text")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (folder / "onnx").mkdir()
    other = folder.rename(tmp_path / "other")
    again = pack_pretrained(other, tmp_path / "b.zip")
    assert file_digest(first) == file_digest(again)
    assert zipfile.ZipFile(again).namelist() == [CONFIG_FILE, WEIGHTS, TOKENIZER]


def test_another_content_than_the_recipes_is_refused(folder: Path, tmp_path: Path) -> None:
    path = pack_pretrained(folder, tmp_path / "a.zip")
    digest = f"sha256:{file_digest(path)}"
    PretrainedFolder(path, name="tiny", digest=digest).close()
    change(folder, CONFIG_FILE, hidden_act="relu")
    with pytest.raises(DataError, match="not the one of the recipe"):
        PretrainedFolder(pack_pretrained(folder, path), name="tiny", digest=digest)


def without(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).unlink()


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def sharded(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")


def linked(folder: Path) -> None:
    (folder / CONFIG_FILE).rename(folder.parent / CONFIG_FILE)
    (folder / CONFIG_FILE).symlink_to(folder.parent / CONFIG_FILE)


def written(name: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(text)


def configured(**keys: Any) -> Callable[[Path], Any]:
    return lambda folder: change(folder, CONFIG_FILE, **keys)


def cut(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:5000])


FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (without(CONFIG_FILE), "config.json is missing"),
    "no weights": (without(WEIGHTS), "model.safetensors is missing"),
    "no tokenizer": (without(TOKENIZER), r"neither tokenizer.json nor vocab.txt.*save_pretrained"),
    "pickled": (pickled, r"pytorch_model.bin is a pickle, which can run any code.*save_pretrained"),
    "sharded": (sharded, "several files"),
    "link": (linked, "a symbolic link"),
    "cut off": (cut, r"5,000 bytes, where config.json describes a network of at least"),
    "empty": (written(WEIGHTS, ""), "empty"),
    "no JSON": (written(CONFIG_FILE, "{"), "config.json: not JSON"),
    "no mapping": (written(CONFIG_FILE, "[]"), "not a configuration"),
    "deep config": (written(CONFIG_FILE, "[" * 200_000), "not JSON"),
    "large config": (written(CONFIG_FILE, " " * (2**20 + 1)), "1,048,577 bytes, more than 1,048,576"),
    "custom code": (configured(auto_map={"AutoModel": "modeling_x.X"}), "code of its own, which is never run"),
    "quantised": (configured(quantization_config={"bits": 4}), "quantised"),
    "decoder": (configured(is_decoder=True), "a decoder"),
    "unknown": (configured(model_type="deberta-v2"), r"'deberta-v2' is not supported.*distilbert"),
    "no type": (configured(model_type=None), "is not supported"),
    "relative": (configured(position_embedding_type="relative_key"), "not absolute"),
    "missing key": (configured(hidden_size=None), "hidden_size is missing"),
    "text as size": (configured(hidden_size="16"), "hidden_size"),
    "absurd size": (configured(hidden_size=10**9), "4096"),
    "absurd layers": (configured(num_hidden_layers=10**6), "64"),
    "absurd vocabulary": (configured(vocab_size=10**9), "262144"),
    "absurd in all": (
        configured(hidden_size=4096, intermediate_size=16_384, num_hidden_layers=64, vocab_size=262_144),
        "parameters, more than",
    ),
    "beyond its weights": (configured(num_hidden_layers=60), "where config.json describes a network"),
    "heads": (configured(num_attention_heads=3), "no multiple"),
    "negative": (configured(num_hidden_layers=-1), "num_hidden_layers"),
    "padding": (configured(pad_token_id=1000), "pad_token_id is 1000"),
    "activation": (configured(hidden_act="__import__"), "hidden_act"),
    "too few vectors": (configured(vocab_size=20), r"33 tokens.*vectors for 20"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_none_is_refused_before_it_is_sent(name: str, folder: Path, tmp_path: Path) -> None:
    spoil, words = FOLDERS[name]
    spoil(folder)
    with pytest.raises(DataError, match=words) as caught:
        pack_pretrained(folder, tmp_path / "a.zip")
    assert len(str(caught.value)) < 700
    assert caught.value.where is not None


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing is downloaded"):
        pack_pretrained(tmp_path / "bert-base-uncased", tmp_path / "a.zip")
    write_plain(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(DataError, match="a symbolic link"):
        pack_pretrained(tmp_path / "link", tmp_path / "a.zip")


def tokenized(**keys: Any) -> Callable[[dict[str, Any]], None]:
    return lambda file: file.update(keys)


def modelled(**keys: Any) -> Callable[[dict[str, Any]], None]:
    return lambda file: file["model"].update(keys)


def added(**keys: Any) -> Callable[[dict[str, Any]], None]:
    return lambda file: file["added_tokens"].append({"id": 33, "content": "x", "special": True} | keys)


SPLIT = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}
REPLACE = {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"Regex": "(.*)*x"}, "content": ""}]}
TOKENIZERS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "regex that explodes": (tokenized(pre_tokenizer=SPLIT), "Split where BertNormalizer and BertPreTokenizer"),
    "normalizer that explodes": (tokenized(normalizer=REPLACE), "Sequence and BertPreTokenizer where"),
    "no normalizer": (tokenized(normalizer=None), "normalizer is no mapping"),
    "unigram": (modelled(type="Unigram"), "'Unigram' is not supported"),
    "no model": (tokenized(model=7), "model is no mapping"),
    "no vocabulary": (modelled(vocab=[["a", 0]]), "no mapping of tokens"),
    "absurd vocabulary": (modelled(vocab={str(n): n for n in range(300_000)}), "300,000 tokens are more than 262,144"),
    "gap": (modelled(vocab={piece: n + n // 20 for n, piece in enumerate(VOCABULARY)}), "are not 0 to"),
    "twice": (modelled(vocab=dict.fromkeys(VOCABULARY, 0)), "another number than in the vocabulary"),
    "text as number": (modelled(vocab={piece: str(n) for n, piece in enumerate(VOCABULARY)}), "another number"),
    "long token": (added(content="x" * 257), "more than 256 characters"),
    "many added": (
        tokenized(added_tokens=[{"id": n, "content": str(n), "special": True} for n in range(5000)]),
        "5,000 added tokens are more than 1,000",
    ),
    "own rules": (added(special=False, content="funny"), "'funny' is not a special one"),
    "added without a number": (added(id=None), "are not 0 to"),
    "marks": (tokenized(post_processor=None), "post_processor is no mapping"),
    "other marks": (tokenized(post_processor={"type": "Sequence", "processors": []}), "'Sequence' is not supported"),
    "template": (
        tokenized(post_processor={"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}] * 100_000}),
        "one token before each text",
    ),
    "mark that is none": (
        tokenized(post_processor={"type": "BertProcessing", "cls": ["[NO]", 2], "sep": ["[SEP]", 3]}),
        r"'\[NO\]' is not in the vocabulary",
    ),
    "unknown token": (modelled(unk_token="?"), r"'\?' is not in the vocabulary"),  # noqa: S106  a token of texts
    "long words": (modelled(max_input_chars_per_word=10**9), "no value that is supported"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_of_another_kind_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    spoil, words = TOKENIZERS[name]
    file = tokenizer_file()
    spoil(file)
    (folder / TOKENIZER).write_text(json.dumps(file))
    with pytest.raises(DataError, match=words) as caught:
        pack_pretrained(folder, tmp_path / "a.zip")
    assert "tokenizer.json" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("text", ["[" * 5_000_000, '{"a":' * 100_000, '"' + "x" * 17_000_000 + '"'])
def test_a_tokenizer_that_is_huge_or_deep_is_refused(text: str, folder: Path, tmp_path: Path) -> None:
    (folder / TOKENIZER).write_text(text)
    with pytest.raises(DataError, match=r"not JSON|more than 16,777,216"):
        pack_pretrained(folder, tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na\na\n", "twice"), (b"\xff\n", "not UTF-8"), (b"a\nb\n", r"'\[CLS\]' is not in")],
)
def test_a_vocabulary_that_is_none_is_refused(content: bytes, words: str, folder: Path, tmp_path: Path) -> None:
    (folder / TOKENIZER).unlink()
    (folder / "vocab.txt").write_bytes(content)
    with pytest.raises(DataError, match=words):
        pack_pretrained(folder, tmp_path / "a.zip")


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


ARCHIVES: dict[str, tuple[dict[str, bytes], str]] = {
    "code": ({"modeling_x.py": b"import os"}, "modeling_x.py: no part of a pretrained encoder"),
    "way out": ({"../config.json": b"{}"}, "leads out of the archive"),
    "pickle": ({"pytorch_model.bin": b"\x80"}, "no part of"),
    "many": ({f"{n}.json": b"{}" for n in range(20)}, "more than 5 files"),
    "bomb": ({WEIGHTS: bytes(300_000_000)}, "unpacks to 300,000,000 bytes"),
    "empty": ({}, "config.json is missing"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_no_client_of_ours_made_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    extra, words = ARCHIVES[name]
    own = {file: (folder / file).read_bytes() for file in (CONFIG_FILE, TOKENIZER, WEIGHTS)} if extra else {}
    path = zipped(tmp_path / "a.zip", own | extra)
    with pytest.raises((DataError, UnsafeArchive), match=words):
        PretrainedFolder(path, name="tiny")


def test_a_sentence_transformers_folder_is_read_as_it_comes(folder: Path) -> None:
    change(folder, CONFIG_FILE, architectures=["BertModel"], transformers_version="4.8.2", use_cache=True)
    change(folder, TOKENIZER, truncation={"max_length": 128}, padding={"strategy": {"Fixed": 128}})
    (folder / "modules.json").write_text("[]")
    with packed(folder) as opened:
        assert opened.content.architecture.hidden_size == CONFIG["hidden_size"]
