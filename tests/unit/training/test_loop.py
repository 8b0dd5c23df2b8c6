import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from yunmo.core.encoders import ResnetEncoder
from yunmo.core.errors import Cancelled, Conflict, RecipeError, TrainingFailed
from yunmo.core.events import AnyEvent, EpochFinished, RecipeResolved
from yunmo.core.fields import Augment
from yunmo.core.recipe import EarlyStoppingSpec, Recipe, ScheduleSpec, recipe_from
from yunmo.data.prepared import Prepared
from yunmo.models.network import Network
from yunmo.training.loop import TrainResult, train


def _with(recipe: Recipe, **changes: Any) -> Recipe:
    return msgspec.structs.replace(recipe, train=msgspec.structs.replace(recipe.train, **changes))


def _same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _accuracy(data: Prepared, result: TrainResult, output: str) -> float:
    network = Network(result.recipe, data.statistics).eval()
    network.load_state_dict(load_file(result.weights))
    inputs = {name: torch.from_numpy(np.array(array)) for name, array in data.inputs("test").items()}
    answer = network.predict(inputs)[output].argmax(1).numpy()
    return float((answer == data.outputs("test")[output]).mean())


def test_a_table_is_learned_with_everything_left_open(flowers: Prepared, tmp_path: Path) -> None:
    events: list[AnyEvent] = []
    result = train(flowers, flowers.recipe, tmp_path, emit=events.append)
    assert _accuracy(flowers, result, "kind") > 0.8
    assert isinstance(events[0], RecipeResolved)
    decided = {decision.key for decision in events[0].decisions}
    assert {"train.epochs", "train.lr", "train.optimizer", "train.precision", "combine"} <= decided
    assert recipe_from(events[0].recipe) == result.recipe
    epochs = [event for event in events if isinstance(event, EpochFinished)]
    assert epochs == result.history
    assert len(epochs) == result.recipe.train.epochs
    assert epochs[-1].train_loss < epochs[0].train_loss


def test_pictures_are_learned_with_everything_left_open(digits: Prepared, tmp_path: Path) -> None:
    recipe = _with(digits.recipe, epochs=6)
    result = train(digits, recipe, tmp_path)
    assert _accuracy(digits, result, "label") > 0.95


def test_the_resolved_recipe_gives_the_same_numbers_again(digits: Prepared, tmp_path: Path) -> None:
    first = train(digits, _with(digits.recipe, epochs=2, ema=0.9), tmp_path / "1")
    second = train(digits, first.recipe, tmp_path / "2")
    other = train(digits, _with(first.recipe, seed=1), tmp_path / "3")
    assert second.recipe == first.recipe
    assert _same_weights(first.weights, second.weights)
    assert not _same_weights(first.weights, other.weights)
    losses = [[(epoch.train_loss, epoch.validation_loss) for epoch in run.history] for run in (first, second)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("optimizer", ["momentum", "adamw", "rmsprop", "muon"])
def test_a_stopped_training_ends_as_an_unbroken_one(digits: Prepared, tmp_path: Path, optimizer: str) -> None:
    recipe = _with(
        digits.recipe,
        epochs=4,
        optimizer=optimizer,
        lr=0.01,
        ema=0.9,
        gradient_clip=1.0,
        schedule=ScheduleSpec(type="plateau", patience=0),
        keep="best",
    )
    unbroken = train(digits, recipe, tmp_path / "unbroken")
    seen: list[EpochFinished] = []

    def collect(event: AnyEvent) -> None:
        if isinstance(event, EpochFinished):
            seen.append(event)

    with pytest.raises(Cancelled):
        train(digits, recipe, tmp_path / "broken", emit=collect, cancelled=lambda: len(seen) == 2)
    torch.rand(7)  # whatever another part of the process drew must not matter
    resumed = train(digits, recipe, tmp_path / "broken", emit=collect)
    assert [epoch.epoch for epoch in seen] == [1, 2, 1, 2, 3, 4]  # who listened may have missed the last
    assert _same_weights(unbroken.weights, resumed.weights)
    assert [epoch.validation_loss for epoch in unbroken.history] == [epoch.validation_loss for epoch in resumed.history]


def test_a_whitened_network_goes_on_as_if_never_stopped(digits: Prepared, tmp_path: Path) -> None:
    """The stem, the flips of an epoch and the lookahead's mean are as they would have been."""
    encoder = ResnetEncoder(filters=(8, 8, 16), blocks=(0, 1, 1), block="one", stem="whitened", start="identity")
    field = msgspec.structs.replace(
        (digits.recipe.inputs or ())[0], encoder=encoder, augment=Augment(flip=True, alternate=True, crop=1)
    )
    recipe = _with(
        msgspec.structs.replace(digits.recipe, inputs=(field,)),
        epochs=3,
        optimizer="muon",
        rest="nesterov",
        norm_lr=1.0,
        lr=0.1,
        lookahead=0.95,
        batch_size=32,
    )
    unbroken = train(digits, recipe, tmp_path / "unbroken")
    assert load_file(unbroken.weights)["parts.0.encoder.layers.0.weight"].any()
    seen: list[AnyEvent] = []
    with pytest.raises(Cancelled):
        train(
            digits,
            recipe,
            tmp_path / "broken",
            emit=lambda event: seen.append(event) if isinstance(event, EpochFinished) else None,
            cancelled=lambda: len(seen) == 1,
        )
    torch.rand(7)
    resumed = train(digits, recipe, tmp_path / "broken")
    assert _same_weights(unbroken.weights, resumed.weights)
    assert [epoch.validation_loss for epoch in unbroken.history] == [epoch.validation_loss for epoch in resumed.history]


_KILLED = """
import sys
from pathlib import Path
from yunmo.core.recipe import parse_recipe
from yunmo.data.prepared import load_prepared
from yunmo.training.loop import train
recipe = parse_recipe(Path(sys.argv[2]).read_text())
prepared = load_prepared(Path(sys.argv[1]))
tell = lambda event: print(type(event).__name__, getattr(event, "seconds", ""), flush=True)
train(prepared, recipe, Path(sys.argv[3]), emit=tell)
"""


def test_a_killed_training_ends_as_an_unbroken_one(digits: Prepared, tmp_path: Path) -> None:
    from yunmo.core.recipe import dump_recipe

    recipe = _with(digits.recipe, epochs=6)
    unbroken = train(digits, recipe, tmp_path / "unbroken")
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    arguments = [str(digits.folder), str(tmp_path / "recipe.yaml"), str(tmp_path / "broken")]
    process = subprocess.Popen([sys.executable, "-c", _KILLED, *arguments], stdout=subprocess.PIPE, text=True)
    timer = threading.Timer(120, process.kill)
    timer.start()
    assert process.stdout is not None
    finished: list[float] = []
    for line in process.stdout:
        name, _, seconds = line.strip().partition(" ")
        if name == "EpochFinished":
            finished.append(float(seconds))
        if len(finished) == 2:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    timer.cancel()
    epochs: list[EpochFinished] = []
    resumed = train(
        digits,
        recipe,
        tmp_path / "broken",
        emit=lambda event: epochs.append(event) if isinstance(event, EpochFinished) else None,
    )
    assert [each.epoch for each in epochs] == [1, 2, 3, 4, 5, 6]
    assert [each.seconds for each in epochs[:2]] == finished  # told again, not done again
    assert _same_weights(unbroken.weights, resumed.weights)


def test_a_finished_training_is_not_repeated(flowers: Prepared, tmp_path: Path) -> None:
    recipe = _with(flowers.recipe, epochs=2)
    first = train(flowers, recipe, tmp_path)
    first.weights.unlink()
    epochs: list[AnyEvent] = []
    again = train(
        flowers,
        recipe,
        tmp_path,
        emit=lambda event: epochs.append(event) if isinstance(event, EpochFinished) else None,
    )
    assert epochs == again.history == first.history  # told again, not done again
    assert again.weights.exists()


def test_a_folder_of_another_recipe_is_refused(flowers: Prepared, tmp_path: Path) -> None:
    train(flowers, _with(flowers.recipe, epochs=1), tmp_path)
    with pytest.raises(Conflict):
        train(flowers, _with(flowers.recipe, epochs=2), tmp_path)


def test_the_best_epoch_is_kept(flowers: Prepared, tmp_path: Path) -> None:
    recipe = _with(flowers.recipe, epochs=3, keep="best", optimizer="sgd", lr=30.0, gradient_clip=1.0)
    result = train(flowers, recipe, tmp_path)
    best = [epoch for epoch in result.history if epoch.best][-1]
    assert best.value == max(epoch.value for epoch in result.history)
    again = train(flowers, _with(recipe, epochs=best.epoch, keep="last"), tmp_path / "short")
    assert _same_weights(result.weights, again.weights)


def test_early_stopping_ends_before_the_last_epoch(flowers: Prepared, tmp_path: Path) -> None:
    stopping = EarlyStoppingSpec(patience=2, min_delta=0.5)
    result = train(flowers, _with(flowers.recipe, epochs=20, early_stopping=stopping), tmp_path)
    assert len(result.history) == 3


def test_full_batch_is_one_step_of_all_rows(flowers: Prepared, tmp_path: Path) -> None:
    recipe = _with(flowers.recipe, epochs=5, batch_size="full", optimizer="sgd", lr=0.02)
    result = train(flowers, recipe, tmp_path)
    assert result.recipe.train.batch_size == "full"
    assert result.history[-1].train_loss < result.history[0].train_loss


def test_a_batch_larger_than_the_data_is_refused(flowers: Prepared, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="larger than the") as caught:
        train(flowers, _with(flowers.recipe, batch_size=100_000), tmp_path)
    assert caught.value.remedy is not None
    assert not (tmp_path / "weights.safetensors").exists()


def test_a_loss_without_bounds_says_what_to_do(flowers: Prepared, tmp_path: Path) -> None:
    recipe = _with(flowers.recipe, epochs=50, optimizer="sgd", lr=1e9, batch_size=16)
    with pytest.raises(TrainingFailed, match="loss became") as caught:
        train(flowers, recipe, tmp_path)
    assert "lower learning rate" in str(caught.value.remedy)


def test_torch_is_left_as_it_was(flowers: Prepared, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    train(flowers, _with(flowers.recipe, epochs=1), tmp_path)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
