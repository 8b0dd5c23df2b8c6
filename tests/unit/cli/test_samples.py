from pathlib import Path

import numpy as np

from yunmo.cli.samples import HELD_OUT, write_samples
from yunmo.data.sources.open import open_source


def test_the_samples_are_real_whole_and_the_same_each_time(tmp_path: Path) -> None:
    write_samples(tmp_path)
    first = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    write_samples(tmp_path)
    assert first == {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    with np.load(tmp_path / "digits.npz", allow_pickle=False) as kept, np.load(tmp_path / "digits-heldout.npz") as held:
        assert kept["image"].shape == (1797 - HELD_OUT, 8, 8)
        assert held["image"].shape == (HELD_OUT, 8, 8)
        assert kept["image"].dtype == np.uint8
        assert kept["image"].max() == 255
        assert set(kept["label"]) == set("0123456789")
    table = open_source(tmp_path / "breast-cancer.csv")
    assert len(table) == 569
    assert set(table.column("diagnosis")) == {"malignant", "benign"}
    stock = open_source(tmp_path / "stock.zip")
    assert len(stock) == 1500
    assert [name for name in stock.names if stock.is_picture(name)] == ["count"]
    for name in ("count", "note", "reserve", "box"):
        assert 80 < sum(cell is None for cell in stock.column(name)) < 160
    stock.close()
