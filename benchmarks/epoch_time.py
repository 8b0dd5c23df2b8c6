"""Epoch time of Yunmo's loop against a hand-written one (``--help`` for options).

Both train the same network on the same cached pictures with the same precision, memory format, batch, augmentation and
threads. Short epochs alternate within one run, so that other load on the machine meets both; the cost is CPU seconds
(``time.process_time``), compared by their medians. The hand-written loop does the minimum: index, augment, forward,
loss, backward, step.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  the field's usual name

from yunmo.core.events import Decision
from yunmo.core.fields import FieldStatistics
from yunmo.core.recipe import Recipe, recipe_from
from yunmo.models.augment import augment
from yunmo.models.network import Network
from yunmo.training.loop import Trainer
from yunmo.training.plan import complete

SIDE, CLASSES = 32, 2


@dataclass
class Pictures:
    """Random pictures: what they show does not change what a step costs."""

    recipe: Recipe
    statistics: dict[str, FieldStatistics]
    count: int
    decisions: tuple[Decision, ...] = ()

    @property
    def rows(self) -> dict[str, int]:
        """Rows by split."""
        return {"train": self.count, "validation": 64}

    def inputs(self, split: str) -> dict[str, npt.NDArray[np.generic]]:
        """Pictures uint8 ``[N, 32, 32, 3]``."""
        shape = (self.rows[split], SIDE, SIDE, 3)
        return {"image": np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)}

    def outputs(self, split: str) -> dict[str, npt.NDArray[np.generic]]:
        """Class of each."""
        return {"label": np.arange(self.rows[split], dtype=np.int64) % CLASSES}


def pictures(rows: int, optimizer: str, threads: int) -> Pictures:
    """Return planned data."""
    common = {"encode_version": 1, "count": rows}
    statistics = {
        "image": FieldStatistics(
            name="image",
            type="image",
            role="input",
            mean=(0.5,) * 3,
            deviation=(0.29,) * 3,
            shape=(SIDE, SIDE, 3),
            **common,
        ),
        "label": FieldStatistics(name="label", type="category", role="output", categories=("a", "b"), **common),
    }
    given = {
        "data": {"train": "random"},
        "inputs": [{"name": "image", "type": "image", "size": SIDE}],
        "outputs": [{"name": "label", "type": "category"}],
        "train": {"precision": "bf16", "epochs": 1000, "optimizer": optimizer, "threads": threads, "batch_size": 128},
    }
    recipe, _ = complete(recipe_from(given), statistics, rows, 64, cores=threads)
    return Pictures(recipe, statistics, rows)


class HandWritten:
    """The same training in the fewest lines."""

    def __init__(self, data: Pictures) -> None:
        self.train = data.recipe.train
        self.network = Network(data.recipe, data.statistics).to(memory_format=torch.channels_last)
        self.pictures = torch.from_numpy(data.inputs("train")["image"])
        self.labels = torch.from_numpy(data.outputs("train")["label"])
        self.change = data.recipe.inputs[0].augment
        self.fill = torch.tensor(data.statistics["image"].mean) * 255
        decayed = [weight for weight in self.network.parameters() if weight.ndim > 1]
        free = [weight for weight in self.network.parameters() if weight.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": free, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, 0.01, momentum=0.9, nesterov=True, fused=True)
        self.step = 0

    def epoch(self) -> None:
        """Train one epoch."""
        batch = self.train.batch_size
        order = torch.randperm(len(self.pictures))
        for start in range(0, len(order) - batch + 1, batch):
            rows = order[start : start + batch]
            changed = augment(self.pictures[rows], self.change, self.fill)
            for group in self.optimizer.param_groups:
                group["lr"] = 0.01 * (1 - self.step / 100_000)
            with torch.autocast("cpu", torch.bfloat16):
                logits = self.network({"image": changed})["label"]
            loss = F.cross_entropy(logits.float(), self.labels[rows])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.step += 1
            loss.item()


def main() -> None:
    """Print CPU seconds of both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20, help="measured epochs of each loop")
    parser.add_argument("--rows", type=int, default=512, help="pictures in an epoch")
    parser.add_argument("--threads", type=int, default=1, help="1 is the least disturbed by other load")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = pictures(arguments.rows, "nesterov", arguments.threads)
    spec = msgspec.structs.replace(data.recipe.train, weight_decay=5e-4, seed=0)
    data.recipe = msgspec.structs.replace(data.recipe, train=spec)
    ours, theirs = Trainer(data, data.recipe, None), HandWritten(data)
    ours.network.train()
    seconds: dict[str, list[float]] = {"yunmo": [], "hand-written": []}

    def run(name: str) -> None:
        start = time.process_time()
        # As `train` has it: deterministic algorithms are part of our loop's price, not of the other's.
        torch.use_deterministic_algorithms(name == "yunmo")
        torch.utils.deterministic.fill_uninitialized_memory = False
        if name == "yunmo":
            ours.train_epoch(0, lambda _: None, lambda: False)
        else:
            theirs.epoch()
        seconds[name].append(time.process_time() - start)

    for number in range(arguments.epochs + 1):
        for name in ("yunmo", "hand-written") if number % 2 == 0 else ("hand-written", "yunmo"):
            run(name)
    del seconds["yunmo"][0], seconds["hand-written"][0]  # they warmed up
    for name, values in seconds.items():
        print(f"{name:13} CPU s an epoch: median {np.median(values):.3f}, least {min(values):.3f}")
    middle, least = (measure(seconds["yunmo"]) / measure(seconds["hand-written"]) for measure in (np.median, np.min))
    print(f"ratio of medians {middle:.3f}, of least {least:.3f} (target: at most 1.05)")


if __name__ == "__main__":
    main()
