from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from yunmo.core.errors import DataError
from yunmo.data.profile import profile
from yunmo.data.sources.open import open_source


def _fields(path: Path, target: str | None = None) -> dict[str, dict[str, object]]:
    found = profile(open_source(path), target)
    json.dumps(found, allow_nan=False)
    return {field["name"]: field for field in found["fields"]}


def test_a_table(passengers: Path) -> None:
    fields = _fields(passengers, "survived")
    assert fields["age"]["missing"] == 6
    assert fields["fare"]["minimum"] == 0.25
    assert fields["port"]["top"][0] == {"value": "C", "count": 20}
    assert fields["boarded"]["type"] == "date"
    assert fields["name"]["role"] == "none"
    assert fields["survived"]["role"] == "output"


def test_without_a_target_every_column_is_an_input(passengers: Path) -> None:
    assert profile(open_source(passengers))["target"] is None
    with pytest.raises(DataError):
        profile(open_source(passengers), "gone")


def test_pictures(make_zip: Callable[..., Path], picture: Callable[..., bytes]) -> None:
    members = {"a/1.png": picture(1), "a/2.png": picture(2, size=(4, 6), mode="L"), "b/3.png": b"no"}
    field = _fields(make_zip("p.zip", members))["image"]
    assert (field["unreadable"], field["gray"]) == (1, 1)
    assert {"size": "4 x 6", "count": 1} in field["sizes"]


def test_labels_are_counted_one_by_one(write_csv: Callable[..., Path]) -> None:
    cells = ["a;b", "a", "b; c", "c;a;a", "", "a;b;c"] * 10
    field = _fields(write_csv("x,t\n" + "".join(f"{index}.5,{cell}\n" for index, cell in enumerate(cells))), "t")["t"]
    assert (field["type"], field["missing"], field["distinct"]) == ("category", 10, 5)
    cells = [cell.replace("a;a", "a") for cell in cells]
    field = _fields(write_csv("x,t\n" + "".join(f"{index}.5,{cell}\n" for index, cell in enumerate(cells))), "t")["t"]
    assert (field["type"], field["missing"], field["distinct"]) == ("labels", 10, 3)
    assert {"value": "a", "count": 40} in field["top"]


def test_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(12.0).reshape(4, 3), y=np.arange(4))
    assert _fields(tmp_path / "a.npz")["x"]["shape"] == [3]


def test_a_column_that_cannot_be_used_says_why(write_csv: Callable[..., Path]) -> None:
    path = write_csv("x,t\n" + "".join(f"{'x' if index == 5 else index},{index % 2}\n" for index in range(30)))
    assert "row 7" in str(_fields(path, "t")["x"]["problem"])


def test_texts_are_told_by_their_length(write_csv: Callable[..., Path]) -> None:
    rows = [f"the {number} films of the year were all a little too long for me" for number in range(30)]
    lines = [f"{row},{len(row) % 2}" for row in rows]
    field = _fields(write_csv("\n".join(["text,label", *lines, ",1", ""])))["text"]
    assert (field["type"], field["missing"], field["distinct"]) == ("text", 1, 30)
    assert field["characters"] == {
        "minimum": len(rows[0]),
        "mean": np.mean([*map(len, rows)]),
        "maximum": len(rows[-1]),
    }
    assert "top" not in field
