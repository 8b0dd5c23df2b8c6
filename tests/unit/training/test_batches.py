from pathlib import Path

import numpy as np
import torch

from yunmo.training.batches import Rows


def test_rows_from_disk_are_those_from_memory(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", generator.integers(0, 255, (50, 4, 4, 3), dtype=np.uint8))
    arrays = {"x": np.load(tmp_path / "x.npy", mmap_mode="r"), "y": np.arange(50)}
    memory, disk = Rows(arrays, in_memory=True), Rows(arrays, in_memory=False)
    rows = torch.tensor([7, 3, 49, 3, 0])
    for name, values in memory.take(rows).items():
        assert torch.equal(values, disk.take(rows)[name])
    assert memory.take(rows)["y"].tolist() == rows.tolist()
    for name, values in memory.slice(10, 20).items():
        assert torch.equal(values, disk.slice(10, 20)[name])
    assert memory.count == disk.count == 50
