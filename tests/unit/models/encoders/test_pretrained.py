from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.fixtures.encoders import CONFIG, POSITIONS, SIZE, VOCABULARY, save_model

from yunmo.core.encoders import LoraSpec, PretrainedEncoder
from yunmo.core.errors import DataError, MissingExtra
from yunmo.core.fields import FieldStatistics
from yunmo.core.pretrained import Pretrained, TokenRules
from yunmo.data.pretrained.config import read_architecture
from yunmo.models.encoders import pretrained as behaviour

pytest.importorskip("transformers")
KINDS = ("bert", "distilbert", "electra", "mpnet", "roberta")
RULES = TokenRules(algorithm="wordpiece", start=2, end=3, unknown=1)
IDS = torch.tensor([[2, 5, 6, 7, 3, 0, 0], [2, 9, 3, 0, 0, 0, 0], [2, 5, 6, 7, 8, 9, 3]], dtype=torch.int32)
LENGTH = torch.tensor([5, 3, 7])


def statistics(folder: Path) -> FieldStatistics:
    architecture = read_architecture(json.loads((folder / "config.json").read_text()), "config.json")
    return FieldStatistics(
        name="text",
        type="text",
        role="input",
        encode_version=1,
        count=1,
        shape=(7,),
        pieces=VOCABULARY,
        pretrained=Pretrained(architecture=architecture, rules=RULES),
    )


def begun(folder: Path, **keys: Any) -> behaviour.PretrainedEncoder:
    torch.manual_seed(1)
    encoder = behaviour.PretrainedEncoder(PretrainedEncoder(folder="tiny", **keys), statistics(folder))
    encoder.begin(folder / "model.safetensors")
    return encoder


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_as_transformers_does_with_the_same_folder(kind: str, tmp_path: Path) -> None:
    model = save_model(tmp_path, kind)
    encoder = begun(tmp_path).eval()
    padding = model.config.pad_token_id
    ids = torch.where(torch.arange(7) < LENGTH[:, None], IDS.long(), padding)
    mask = torch.arange(7) < LENGTH[:, None]
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        expected = (states * mask[..., None]).sum(1) / LENGTH[:, None]
        assert torch.allclose(encoder(IDS, LENGTH), expected, atol=1e-5)
        encoder.spec = PretrainedEncoder(folder="tiny", pool="cls")
        assert torch.allclose(encoder(IDS, LENGTH), states[:, 0], atol=1e-5)
    assert encoder.features == SIZE


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_padding_changes_nothing_and_the_last_position_is_in_reach(kind: str, tmp_path: Path) -> None:
    save_model(tmp_path, kind)
    encoder = begun(tmp_path).eval()
    longer = torch.nn.functional.pad(IDS, (0, 5), value=9)
    with torch.no_grad():
        alone = torch.cat([encoder(row[None, :length], length[None]) for row, length in zip(IDS, LENGTH, strict=True)])
        assert torch.allclose(encoder(longer, LENGTH), alone, atol=1e-5)
        full = torch.full((1, POSITIONS + 3), 5, dtype=torch.int32)
        assert encoder(full, torch.tensor([POSITIONS + 3])).isfinite().all()


def test_heads_and_old_names_of_a_file_are_understood(tmp_path: Path) -> None:
    save_model(tmp_path)
    expected = begun(tmp_path).eval()(IDS, LENGTH)
    path = tmp_path / "model.safetensors"
    tensors = {}
    for name, tensor in load_file(path).items():
        if not name.startswith("pooler."):
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[f"bert.{old}"] = tensor.half()
    tensors["cls.predictions.bias"] = torch.zeros(3)
    tensors["bert.embeddings.position_ids"] = torch.arange(4)
    save_file(tensors, path)
    assert torch.allclose(begun(tmp_path).eval()(IDS, LENGTH), expected, atol=0.05)


KEY = "encoder.layer.1.attention.self.query.weight"


def missing(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[KEY]


def other_shape(tensors: dict[str, torch.Tensor]) -> None:
    tensors[KEY] = torch.zeros(SIZE, SIZE + 1)


def more_layers(tensors: dict[str, torch.Tensor]) -> None:
    tensors[KEY.replace("layer.1", "layer.2")] = torch.zeros(SIZE, SIZE)


def whole_numbers(tensors: dict[str, torch.Tensor]) -> None:
    tensors[KEY] = torch.zeros(SIZE, SIZE, dtype=torch.int8)


def not_finite(tensors: dict[str, torch.Tensor]) -> None:
    tensors[KEY][0, 0] = float("nan")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (missing, f"1 tensors are missing: {KEY}"),
        (other_shape, r"has the shape \(16, 17\), and config.json describes \(16, 16\)"),
        (more_layers, "beyond what config.json describes"),
        (whole_numbers, "type torch.int8"),
        (not_finite, "has NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_refused(spoil: Any, words: str, tmp_path: Path) -> None:
    save_model(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    spoil(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=words) as caught:
        begun(tmp_path)
    assert caught.value.where == "field text, model.safetensors"


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"PK\x03\x04" * 100, b"\xff" * 8 + b"{}"])
def test_a_file_that_is_no_safetensors_is_refused(content: bytes, tmp_path: Path) -> None:
    save_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        begun(tmp_path)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="damaged"):
        begun(tmp_path)


def changed(encoder: behaviour.PretrainedEncoder) -> set[str]:
    """Do a step and return what it changed."""
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder.train()
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    if trained:
        optimizer = torch.optim.SGD(trained, 1.0)
        encoder(IDS, LENGTH).square().sum().backward()
        optimizer.step()
    return {name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_tuned_is_what_was_asked_for(kind: str, tmp_path: Path) -> None:
    save_model(tmp_path, kind)
    everything = changed(begun(tmp_path))
    assert any("embeddings" in name for name in everything)
    assert changed(begun(tmp_path, tune="none")) == set()
    last = changed(begun(tmp_path, tune="last", last=1))
    assert last
    assert all("layer.1." in name for name in last)
    assert changed(begun(tmp_path, tune="last", last=9)) >= {name for name in everything if "layer." in name}
    lora = changed(begun(tmp_path, tune="lora"))
    assert lora
    assert all("lora_" in name for name in lora)


def test_what_is_not_tuned_has_no_dropout(tmp_path: Path) -> None:
    save_model(tmp_path)
    for tune, same in (("none", True), ("last", False), ("all", False)):
        encoder = begun(tmp_path, tune=tune, last=1).train()
        assert torch.equal(encoder(IDS, LENGTH), encoder(IDS, LENGTH)) == same
    still = begun(tmp_path, dropout=0.0).train()
    assert torch.equal(still(IDS, LENGTH), still(IDS, LENGTH))


@pytest.mark.parametrize("matrices", ["attention", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_lora_is_part_of_the_weights_in_the_end(kind: str, matrices: Any, tmp_path: Path) -> None:
    save_model(tmp_path, kind)
    lora = LoraSpec(rank=2, alpha=4, matrices=matrices)
    encoder = begun(tmp_path, tune="lora", lora=lora)
    first = begun(tmp_path).eval()(IDS, LENGTH)
    assert torch.allclose(encoder.eval()(IDS, LENGTH), first, atol=1e-5)
    for _ in range(3):
        changed(encoder)
    expected = encoder.eval()(IDS, LENGTH)
    assert not torch.allclose(expected, first, atol=1e-3)
    encoder.finish()
    plain = behaviour.PretrainedEncoder(PretrainedEncoder(folder="tiny", tune="lora"), statistics(tmp_path)).eval()
    plain.load_state_dict(encoder.state_dict())
    assert torch.allclose(plain(IDS, LENGTH), expected, atol=1e-5)


@pytest.mark.parametrize(("library", "tune"), [("transformers", "all"), ("peft", "lora")])
def test_without_the_extra_it_says_what_to_install(
    library: str, tune: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=rf"needs the library '{library}'.*yunmo\[train,pretrained\]"):
        begun(tmp_path, tune=tune)


def test_nothing_but_known_keys_reaches_the_library(tmp_path: Path) -> None:
    save_model(tmp_path)
    config = begun(tmp_path).model.config
    assert config.vocab_size == CONFIG["vocab_size"]
    assert getattr(config, "auto_map", None) is None
