import csv
import json
from pathlib import Path

import pytest

from yunmo.data.sources import thin as module
from yunmo.data.sources.open import open_source
from yunmo.data.sources.thin import thin

ROWS = 3000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a few kilobytes are large here."""
    monkeypatch.setattr(module, "TABLE_BYTES", 8000)
    monkeypatch.setattr(module, "FOLDER_BYTES", 8000)


def out(folder: Path) -> Path:
    place = folder / "out"
    place.mkdir()
    return place


def test_a_share_of_a_large_table_stands_for_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["x", "text"])
        writer.writerows([row, f'two\nlines; "{row}"'] for row in range(ROWS))
    found = thin(path, out(tmp_path))
    source = open_source(found.path)
    assert source.names == ["x", "text"]
    assert found.path.stat().st_size < 2 * module.TABLE_BYTES
    assert len(source) * found.ratio == pytest.approx(ROWS)
    numbers = [int(str(value)) for value in source.column("x")]
    assert numbers == sorted(numbers)
    # From all over the file, with cells as they were.
    assert min(numbers) < ROWS / 5 < 4 * ROWS / 5 < max(numbers)
    assert source.column("text")[5] == f'two\nlines; "{numbers[5]}"'


def test_json_lines_keep_their_objects(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    path.write_text("".join(json.dumps({"x": row}) + "\n" for row in range(ROWS)))
    found = thin(path, out(tmp_path), seed=1)
    source = open_source(found.path)
    assert len(source) * found.ratio == pytest.approx(ROWS)


@pytest.mark.parametrize(
    "content", [b"x,y\n1,2\n", b'x,y\n"1,2\n' * 3000, b"x,\xff\n" * 3000], ids=["small", "broken quotes", "no UTF-8"]
)
def test_what_is_small_or_broken_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    assert thin(path, out(tmp_path)) == module.Thinned(path, 1.0)


def test_some_pictures_of_a_large_folder(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for number in range(200):
        file = folder / ("cat", "dog")[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 100)
    found = thin(folder, out(tmp_path))
    kept = list(found.path.rglob("*.jpg"))
    assert 40 < len(kept) < 160
    assert {file.parent.name for file in kept} == {"cat", "dog"}
    assert len(kept) * found.ratio == pytest.approx(200)
    (folder / "labels.csv").write_text("image,label\ncat/0.jpg,a\n")
    assert thin(folder, tmp_path / "out") == module.Thinned(folder, 1.0)
