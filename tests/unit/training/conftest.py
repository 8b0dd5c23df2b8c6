from pathlib import Path

import numpy as np
import pytest

from yunmo.core.recipe import recipe_from
from yunmo.data.prepare import prepare
from yunmo.data.prepared import Prepared


@pytest.fixture(scope="session")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A prepared table of 240 rows: two numbers and a color tell three kinds and a price."""
    folder = tmp_path_factory.mktemp("flowers")
    generator = np.random.default_rng(0)
    lines = ["length,width,color,kind,price"]
    for row in range(240):
        kind = row % 3
        length, width = generator.normal((kind, -kind), 0.4)
        color = ("red", "blue", "white")[kind if generator.random() < 0.8 else 0]
        lines.append(f"{length:.4f},{width:.4f},{color},k{kind},{10 * kind + generator.normal():.3f}")
    (folder / "flowers.csv").write_text("\n".join(lines), encoding="utf-8")
    outputs = [{"name": "kind", "type": "category"}, {"name": "price", "type": "number"}]
    recipe = recipe_from({"data": {"train": "flowers.csv", "test_share": 0.25}, "outputs": outputs})
    return prepare(recipe, {"train": folder / "flowers.csv"}, folder / "prepared")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Prepared pictures: 300 of scikit-learn's handwritten digits, three classes."""
    from sklearn.datasets import load_digits

    folder: Path = tmp_path_factory.mktemp("digits")
    data = load_digits(n_class=3)
    pictures = np.round(data.images[:300] / 16 * 255).astype(np.uint8)[..., None]
    np.savez(folder / "digits.npz", image=pictures, label=data.target[:300].astype(str))
    recipe = recipe_from(
        {
            "data": {"train": "digits.npz"},
            "inputs": [{"name": "image", "type": "image"}],
            "outputs": [{"name": "label", "type": "category"}],
        }
    )
    return prepare(recipe, {"train": folder / "digits.npz"}, folder / "prepared")
