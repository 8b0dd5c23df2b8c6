"""Small real data files, made anew for each test."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Encode = Callable[..., bytes]
Zip = Callable[[str, dict[str, bytes]], Path]


def picture_bytes(
    seed: int = 0, *, size: tuple[int, int] = (12, 12), mode: str = "RGB", form: str = "PNG", **options: object
) -> bytes:
    """Return the file of a random picture; size is (height, width)."""
    channels = {"RGB": 3, "L": 1, "RGBA": 4, "CMYK": 4}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, channels), np.uint8)
    picture = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels, mode=None)
    if mode == "CMYK":
        picture = Image.frombytes("CMYK", size[::-1], pixels.tobytes())
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


@pytest.fixture
def picture() -> Encode:
    return picture_bytes


@pytest.fixture
def make_zip(tmp_path: Path) -> Zip:
    def make(name: str, members: dict[str, bytes]) -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as archive:
            for member, data in members.items():
                archive.writestr(member, data)
        return path

    return make


@pytest.fixture
def pets(make_zip: Zip) -> Path:
    """20 cats and 20 dogs of 12 x 12 pixels."""
    members = {f"cat/{index:02}.png": picture_bytes(index) for index in range(20)}
    members |= {f"dog/{index:02}.jpg": picture_bytes(100 + index, form="JPEG") for index in range(20)}
    return make_zip("pets.zip", members)


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str | bytes, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def passengers(write_csv: Callable[..., Path]) -> Path:
    """A table of 60 rows with numbers, categories, dates, an identifier and missing cells."""
    rows = ["id,name,age,fare,port,boarded,survived"]
    generator = np.random.default_rng(0)
    for index in range(60):
        age = "" if index % 10 == 3 else f"{generator.uniform(1, 80):.1f}"
        port = "" if index == 7 else "CQS"[index % 3]
        fare = f'"{1 + index % 9},{index:03}.5"' if index % 2 else f"{index}.25"
        day, survived = f"{1 + index % 28}.04.1912", "yes" if index % 3 else "no"
        rows.append(f'{index + 1},"Doe, No. {index}",{age},{fare},{port},{day},{survived}')
    return write_csv("\n".join(rows) + "\n", "passengers.csv")
