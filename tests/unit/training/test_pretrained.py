"""Fine-tuning a tiny pretrained encoder: what it learns, what stays, and that a broken-off run goes on as it was."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.fixtures.encoders import save_encoder

from yunmo.core.encoders import LoraSpec, PretrainedEncoder
from yunmo.core.errors import Cancelled, Conflict, DataError
from yunmo.core.events import EpochFinished
from yunmo.core.fields import CategoryOutput, TextField
from yunmo.core.files import file_digest
from yunmo.core.recipe import CrossValidationSpec, DataSpec, EvaluateSpec, Recipe, TrainSpec
from yunmo.data.limits import DEFAULT_LIMITS
from yunmo.data.prepare import prepare
from yunmo.data.prepared import Prepared
from yunmo.data.pretrained.folder import pack_pretrained
from yunmo.models.answers import answer, load_network
from yunmo.models.network import Network
from yunmo.training.batches import by_length
from yunmo.training.cross_validate import cross_validate
from yunmo.training.loop import train
from yunmo.training.optimizers import Optimizers
from yunmo.training.plan import plan

pytest.importorskip("transformers")
TUNES = ("all", "last", "lora", "none")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a packed encoder and reviews."""
    place = tmp_path_factory.mktemp("pretrained")
    pack_pretrained(save_encoder(place / "tiny"), place / "tiny.zip")
    dice = np.random.default_rng(0)
    with (place / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for index in range(240):
            word = dice.choice(["lovely", "brilliant", "moving"] if index % 2 else ["dull", "awful", "tedious"])
            others = dice.choice(["the", "film", "is", "so", "this", "story", "of"], dice.integers(1, 12))
            writer.writerow([f"{' '.join(others)} {word} {index}", "good" if index % 2 else "bad"])
    return place


def prepared(place: Path, folder: Path, train: TrainSpec | None = None, **keys: Any) -> Prepared:
    digest = f"sha256:{file_digest(place / 'tiny.zip')}"
    field = TextField(name="text", encoder=PretrainedEncoder(**{"folder": "tiny", "digest": digest} | keys))
    recipe = Recipe(
        data=DataSpec(train="reviews.csv"),
        inputs=(field,),
        outputs=(CategoryOutput(name="label"),),
        train=train or TrainSpec(epochs=4, threads=1, precision="fp32", batch_size=16, lr=3e-3, seed=0),
    )
    return prepare(recipe, {"train": place / "reviews.csv"}, folder, pretrained={digest: place / "tiny.zip"})


@pytest.mark.parametrize("tune", TUNES)
def test_it_learns_whatever_is_tuned(tune: Any, place: Path, tmp_path: Path) -> None:
    quick = TrainSpec(epochs=8, threads=1, precision="fp32", batch_size=8, lr=1e-2)
    data = prepared(place, tmp_path / "data", quick, tune=tune, lr=1e-2, lora=LoraSpec(rank=4, alpha=16), dropout=0.0)
    result = train(data, data.recipe, tmp_path / "training")
    network = load_network(result.recipe, data.statistics, result.weights)
    found = answer(network, data.inputs("test"))["label"].argmax(1)
    assert np.mean(found == data.outputs("test")["label"]) > {"none": 0.6, "lora": 0.65}.get(tune, 0.9)
    begun, ended = load_file(data.pretrained["text"]), load_file(result.weights)
    prefix = "parts.0.encoder.model."
    changed = {name for name in begun if f"{prefix}{name}" in ended and not begun[name].equal(ended[f"{prefix}{name}"])}
    assert not any("lora" in name for name in ended)
    assert bool(changed) == (tune != "none")
    if tune == "lora":
        assert all(name.endswith(".weight") and "Norm" not in name and "emb" not in name for name in changed)


@pytest.mark.parametrize("tune", ["all", "lora"])
def test_a_run_that_was_stopped_ends_in_the_same_weights(tune: Any, place: Path, tmp_path: Path) -> None:
    data = prepared(place, tmp_path / "data", tune=tune)
    whole = train(data, data.recipe, tmp_path / "whole")
    ended = 0

    def count(event: object) -> None:
        nonlocal ended
        ended += isinstance(event, EpochFinished)

    with pytest.raises(Cancelled):
        train(data, data.recipe, tmp_path / "parts", emit=count, cancelled=lambda: ended >= 2)
    again = train(data, data.recipe, tmp_path / "parts")
    assert again.weights.read_bytes() == whole.weights.read_bytes()
    assert [epoch.train_loss for epoch in again.history] == [epoch.train_loss for epoch in whole.history]


def test_a_run_goes_on_with_the_same_encoder_only(place: Path, tmp_path: Path) -> None:
    data = prepared(place, tmp_path / "data")
    train(data, msgspec.structs.replace(data.recipe, train=TrainSpec(epochs=1, threads=1)), tmp_path / "run")
    other = msgspec.structs.replace(data.recipe.inputs[0].encoder, digest=f"sha256:{'0' * 64}")  # type: ignore[index]
    field = msgspec.structs.replace(data.recipe.inputs[0], encoder=other)  # type: ignore[index]
    changed = msgspec.structs.replace(data.recipe, inputs=(field,), train=TrainSpec(epochs=1, threads=1))
    with pytest.raises(Conflict, match="another recipe"):
        train(data, changed, tmp_path / "run")
    with pytest.raises(DataError, match="was not sent"):
        prepared(place, tmp_path / "other", digest=f"sha256:{'0' * 64}")
    assert not (tmp_path / "other").exists()


def test_every_fold_begins_with_the_folders_weights(place: Path, tmp_path: Path) -> None:
    data = prepared(place, tmp_path / "data")
    folds = EvaluateSpec(cross_validation=CrossValidationSpec(folds=2))
    recipe = plan(data, cores=1)[0]
    events: list[object] = []
    found = cross_validate(
        msgspec.structs.replace(recipe, evaluate=folds, train=msgspec.structs.replace(recipe.train, epochs=1)),
        {"train": place / "reviews.csv"},
        tmp_path / "folds",
        emit=events.append,
        cancelled=lambda: False,
        cores=1,
        limits=DEFAULT_LIMITS,
        pretrained={f"sha256:{file_digest(place / 'tiny.zip')}": place / "tiny.zip"},
    )
    assert found is not None
    assert len(found["rows"]) == len(events) == 2
    assert len(found["outputs"]["label"]["accuracy"]["values"]) == 2


def test_rates_decay_and_what_is_decided(place: Path, tmp_path: Path) -> None:
    data = prepared(place, tmp_path / "data", TrainSpec())
    planned, decisions = plan(data, cores=2)
    field = (planned.inputs or ())[0]
    assert isinstance(field, TextField)
    assert isinstance(field.encoder, PretrainedEncoder)
    assert field.encoder.lr is not None
    assert planned.train.lr is not None
    assert field.encoder.lr < planned.train.lr
    assert planned.train.gradient_clip == 1.0
    assert planned.train.threads is None
    assert "text.encoder.lr" in {decision.key for decision in decisions}
    assert plan(data, cores=2)[0] == planned
    network = Network(planned, data.statistics)
    optimizer = Optimizers(network, planned.train)
    optimizer.set_rate(planned.train.lr)
    rates = {}
    for part in optimizer._parts:
        for group in part.param_groups:
            rates |= {id(parameter): (group["lr"], group["weight_decay"]) for parameter in group["params"]}
    (encoder,) = network.pretrained().values()
    inside = {id(parameter) for parameter in encoder.parameters()}
    for name, parameter in network.named_parameters():
        rate, decay = rates[id(parameter)]
        assert rate == pytest.approx(field.encoder.lr if id(parameter) in inside else planned.train.lr)
        assert (decay == 0) == ("bias" in name or "LayerNorm" in name)
    assert len(rates) == len(list(network.parameters()))


def test_batches_hold_texts_of_about_one_length_and_every_row_once() -> None:
    torch.manual_seed(0)
    lengths = torch.randint(3, 60, (1000,))
    order = torch.randperm(1000)
    found = by_length(order, lengths, 16)
    assert found.sort().values.equal(torch.arange(1000))
    assert found[-8:].equal(order[-8:])
    spread = [int(lengths[rows].max() - lengths[rows].min()) for rows in found[:992].split(16)]
    assert np.mean(spread) < 4
    assert np.mean([int(lengths[rows].max()) for rows in found[:496].split(16)]) < 50
    assert not found.equal(by_length(order, lengths, 16))
    assert by_length(order[:10], lengths, 16).equal(order[:10])
