from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from yunmo.core.errors import StorageFull
from yunmo.data.array_file import ArrayWriter


def test_arrays_are_written_bit_by_bit(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(10, 3, 2)).astype(np.float32)
    with ArrayWriter(tmp_path / "a.npy", rows.dtype, (3, 2), 100) as writer:
        writer.append(rows[:4])
        writer.append(rows[4:].transpose(0, 2, 1).transpose(0, 2, 1))
    assert np.array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), rows)
    assert (tmp_path / "a.npy").stat().st_size == 256 + rows.nbytes


def test_an_error_leaves_no_array(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), ArrayWriter(tmp_path / "a.npy", np.dtype("u1"), (), 10):
        raise ValueError("stop")
    assert not list(tmp_path.iterdir())


def test_space_is_taken_before_anything_is_written() -> None:
    place = Path("/dev/shm")  # noqa: S108 - a tmpfs: it refuses at once what it cannot hold
    path = place / f"yunmo-test-{os.getpid()}.npy"
    room = os.statvfs(place)
    rows = room.f_blocks * room.f_frsize // 1024 + 1
    with pytest.raises(StorageFull, match="no space left"):
        ArrayWriter(path, np.dtype(np.uint8), (2048,), rows)
    assert not path.exists()
