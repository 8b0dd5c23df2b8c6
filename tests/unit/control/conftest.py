from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.unit.control.service import Api

from yunmo.control.context import Context, open_context
from yunmo.control.services.keys import Keys
from yunmo.store.workspace import Workspace


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    workspace = Workspace(tmp_path / "home")
    with open_context(workspace, workspace.settings()) as opened:
        Keys(opened).start()
        yield opened


@pytest.fixture
def api(context: Context) -> Api:
    """The API for an administrator."""
    return Api(context, "admin", "predict")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A small table whose label follows from a column."""
    path = tmp_path / "flowers.csv"
    rows = (f"{i % 7},{(i * 13) % 11},{'late' if i % 7 > 3 else 'early'}" for i in range(140))
    path.write_text("petals,height,season\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Real handwritten digits, 360 of them."""
    from sklearn.datasets import load_digits

    found = load_digits()
    path = tmp_path / "digits.npz"
    np.savez(path, image=(found.images[:360] * 15).astype(np.uint8), label=found.target[:360])
    return path
