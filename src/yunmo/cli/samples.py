"""Real data to begin with, out of scikit-learn: ``python -m yunmo.cli.samples FOLDER``.

The files of the demo and of those recipes that need no download: ``digits.npz`` with 1,797 handwritten digits of 8 x 8
pixels (``digits-heldout.npz`` with some more, held out of it), ``breast-cancer.csv`` with 569 rows of 30 measures, and
``stock.zip``, a table whose rows each have a picture, a text, a number and a category.
"""

from __future__ import annotations

import csv
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yunmo.core.errors import MissingExtra
from yunmo.data.fields.pixels import to_png

HELD_OUT = 200
"""Digits that training never sees."""

_SHELVED = 1500
_MISSING = 0.08
"""Share of the cells of each input that are empty."""
_COUNTS = ("none", "one", "two", "three", "four", "five")
_CAME = ("{} more came in this morning", "a van brought {}", "plus {} that were sent back to us")
_WENT = ("{} were sold since then", "we gave {} away", "{} fell off the shelf and broke")
_BOXES = {"single": 0, "pair": 2, "crate": 6}
_ENOUGH = 10


def write_samples(folder: Path) -> None:
    """Write all sample files into a folder.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_digits(folder)
    write_table(folder)
    write_stock(folder)


def write_digits(folder: Path) -> tuple[Path, NDArray[np.uint8], NDArray[np.str_]]:
    """Write the digits as ``digits.npz`` and return the file and those held out.

    Returns:
        The file with arrays ``image`` (uint8, rows x 8 x 8, 0 to 255) and ``label``; images and labels held out.
    """
    bunch = _load("load_digits")
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(str)
    order = np.random.default_rng(0).permutation(len(labels))
    held, kept = order[:HELD_OUT], order[HELD_OUT:]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "digits.npz"
    _write_npz(path, image=images[kept], label=labels[kept])
    _write_npz(folder / "digits-heldout.npz", image=images[held], label=labels[held])
    return path, images[held], labels[held]


def write_table(folder: Path) -> Path:
    """Write the breast-cancer table (Wisconsin, diagnostic) as ``breast-cancer.csv`` with the column ``diagnosis``."""
    bunch = _load("load_breast_cancer")
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*(name.replace(" ", "_") for name in bunch.feature_names), "diagnosis"])
    for row, target in zip(bunch.data.tolist(), bunch.target, strict=True):
        writer.writerow([*row, bunch.target_names[target]])
    path = folder / "breast-cancer.csv"
    _write(path, text.getvalue().encode())
    return path


def write_stock(folder: Path) -> Path:
    """Write ``stock.zip``: ``stock.csv`` and the pictures that it names.

    A made-up story around real handwritten digits, told by every input together: how many pieces are ``left`` (a
    number) is the handwritten ``count`` (a picture), and what the ``note`` says (a text), and the ``reserve`` (a
    number), and what the ``box`` holds (a category). ``order`` says whether that is too few. Some cells are empty.
    """
    bunch = _load("load_digits")
    dice = np.random.default_rng(0)
    rows = [["count", "note", "reserve", "box", "left", "order"]]
    pictures: dict[str, bytes] = {}
    for index in range(_SHELVED):
        pixels = np.rint(bunch.images[index] * (255 / 16)).astype(np.uint8)
        name = f"counts/{index:04}.png"
        pictures[name] = to_png(pixels[:, :, None])
        change, came, reserve = int(dice.integers(1, 6)), bool(dice.integers(2)), int(dice.integers(0, 8))
        note = str(dice.choice(_CAME if came else _WENT)).format(_COUNTS[change])
        box = str(dice.choice(list(_BOXES)))
        left = int(bunch.target[index]) + (change if came else -change) + reserve + _BOXES[box]
        cells = [name, note, str(reserve), box]
        shown = ["" if gone else cell for cell, gone in zip(cells, dice.random(4) < _MISSING, strict=True)]
        rows.append([*shown, str(left), "yes" if left < _ENOUGH else "no"])
    table = io.StringIO(newline="")
    csv.writer(table).writerows(rows)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in {"stock.csv": table.getvalue().encode(), **pictures}.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    path = folder / "stock.zip"
    _write(path, buffer.getvalue())
    return path


def _load(name: str) -> Any:
    try:
        from sklearn import datasets  # type: ignore[import-untyped]  # it ships no types
    except ImportError:
        raise MissingExtra("scikit-learn is not installed", remedy="Install it: pip install 'yunmo[train]'") from None
    return getattr(datasets, name)()


def _write_npz(path: Path, image: NDArray[np.uint8], label: NDArray[np.str_]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, image=image, label=label)
    _write(path, buffer.getvalue())


def _write(path: Path, data: bytes) -> None:
    """Write a file unless it is there with these bytes."""
    if not path.is_file() or path.read_bytes() != data:
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(data)
        temporary.replace(path)


if __name__ == "__main__":
    write_samples(Path(sys.argv[1] if len(sys.argv) > 1 else ".yunmo/samples"))
