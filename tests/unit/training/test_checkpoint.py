import errno
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from yunmo.core.errors import StorageFull, TrainingFailed
from yunmo.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    random_states,
    restore_random_states,
    save_checkpoint,
)


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    save_checkpoint(path, Checkpoint({"model": {"a/b.weight": weight}, "best": {"x": torch.ones(1)}}, {"epoch": 3}))
    loaded = load_checkpoint(path)
    assert loaded is not None
    assert torch.equal(loaded.tensors["model"]["a/b.weight"], weight)
    assert loaded.facts == {"epoch": 3}
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_none_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "nothing") is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"\x08\x00\x00\x00")
    with pytest.raises(TrainingFailed, match="checkpoint"):
        load_checkpoint(path)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, Checkpoint({}, {"epoch": 1}))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull) as caught:
        save_checkpoint(path, Checkpoint({}, {"epoch": 2}))
    assert str(path) in str(caught.value)
    kept = load_checkpoint(path)
    assert kept is not None
    assert kept.facts == {"epoch": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_random_states_come_back() -> None:
    state, others = random_states()
    first = torch.rand(3), np.random.rand(3), random.random()  # noqa: S311  the global generators are meant
    restore_random_states(state, others)
    second = torch.rand(3), np.random.rand(3), random.random()  # noqa: S311  as above
    assert torch.equal(first[0], second[0])
    assert (first[1] == second[1]).all()
    assert first[2] == second[2]
