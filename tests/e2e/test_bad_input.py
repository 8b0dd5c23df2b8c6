"""Bad input: one line that names file, place and remedy, an exit status, and no model."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.e2e.command import Home, Service
from tests.fixtures import data

Make = Callable[[Path], list[object]]
PICTURE = data.png(np.arange(64, dtype=np.uint8).reshape(8, 8))


def archive(path: Path, members: dict[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def table(path: Path, cells: Callable[[int], tuple[Any, ...]], rows: int = 80) -> Path:
    return data.write_csv(path, ("a", "b", "t"), (cells(index) for index in range(rows)))


# --- what cannot be read at all: refused before there is a dataset ---


def empty_folder(folder: Path) -> list[object]:
    (folder / "pets").mkdir()
    return [folder / "pets"]


def empty_file(folder: Path) -> list[object]:
    (folder / "none.csv").touch()
    return [folder / "none.csv", "--target", "t"]


def empty_archive(folder: Path) -> list[object]:
    (folder / "none.zip").touch()
    return [folder / "none.zip"]


def empty_arrays(folder: Path) -> list[object]:
    (folder / "none.npz").touch()
    return [folder / "none.npz", "--target", "t"]


def no_rows(folder: Path) -> list[object]:
    return [data.write_csv(folder / "bare.csv", ("a", "t"), []), "--target", "t"]


def uneven_rows(folder: Path) -> list[object]:
    rows: list[tuple[Any, ...]] = [(1, "x")] * 5 + [(1, "x", 3)]
    return [data.write_csv(folder / "uneven.csv", ("a", "t"), rows), "--target", "t"]


def leads_out(folder: Path) -> list[object]:
    return [archive(folder / "out.zip", {"a/1.png": PICTURE, "../b/2.png": PICTURE})]


def link_in_archive(folder: Path) -> list[object]:
    link = zipfile.ZipInfo("b/2.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    return [archive(folder / "link.zip", {"a/1.png": PICTURE, link: b"/etc/passwd"})]


def zeros(folder: Path) -> list[object]:
    """Write ten gigabytes of zeros as ten megabytes: one compressed block over and over, which zipfile cannot."""
    packer = zlib.compressobj(wbits=-15)
    block = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = block * 640 + packer.flush()
    name, size = b"b/2.png", 640 * 2**24
    # APPNOTE.TXT 4.3.7, 4.3.12, 4.3.16, 4.5.3: local header, directory, end; the size in a zip64 field. No checksum.
    sizes = len(packed).to_bytes(4, "little") + b"\xff" * 4 + len(name).to_bytes(2, "little")
    wide = b"\x01\0\x08\0" + size.to_bytes(8, "little")
    local = b"PK\x03\x04\x2d\0\0\0\x08\0" + bytes(8) + sizes + len(wide).to_bytes(2, "little") + name + wide
    entry = b"PK\x01\x02\x2d\0\x2d\0\0\0\x08\0" + bytes(8) + sizes + len(wide).to_bytes(2, "little") + bytes(14)
    entry += name + wide
    end = b"PK\x05\x06" + bytes(4) + b"\x01\0\x01\0" + len(entry).to_bytes(4, "little")
    end += (len(local) + len(packed)).to_bytes(4, "little") + bytes(2)
    path = folder / "zeros.zip"
    path.write_bytes(local + packed + entry + end)
    assert zipfile.ZipFile(path).infolist()[0].file_size == size
    return [path]


def a_million_entries(folder: Path) -> list[object]:
    """Entries without content, written by hand: zipfile takes half a minute."""
    path = folder / "many.zip"
    directory = io.BytesIO()
    for index in range(1_000_000):
        name = b"a/%07d.png" % index
        directory.write(b"PK\x01\x02" + bytes(24) + len(name).to_bytes(2, "little") + bytes(16) + name)
    local, content = b"PK\x03\x04" + bytes(26), directory.getvalue()
    end64 = b"PK\x06\x06" + (44).to_bytes(8, "little") + b"\x2d\0\x2d\0" + bytes(8)
    end64 += (1_000_000).to_bytes(8, "little") * 2 + len(content).to_bytes(8, "little")
    end64 += len(local).to_bytes(8, "little")
    locator = b"PK\x06\x07" + bytes(4) + (len(local) + len(content)).to_bytes(8, "little") + (1).to_bytes(4, "little")
    end = b"PK\x05\x06" + bytes(4) + b"\xff" * 12 + bytes(2)
    path.write_bytes(local + content + end64 + locator + end)
    return [path]


UNREADABLE: list[tuple[Make, str]] = [
    (empty_folder, r"pets: an empty folder\. Put a folder of pictures"),
    (empty_file, r"none\.csv: the file is empty\. Give a file"),
    (empty_archive, r"none\.zip: the file is empty\. Give a file"),
    (empty_arrays, r"none\.npz: the file is empty\. Give a file"),
    (no_rows, r"bare\.csv: a header without rows\. Give"),
    (uneven_rows, r"uneven\.csv, row 7: 3 cells where the header has 2\. Correct the row"),
    (leads_out, r"out\.zip, \.\./b/2\.png: a name that leads out of the archive\. Make the archive anew"),
    (link_in_archive, r"link\.zip, b/2\.png: a link\. Make the archive anew"),
    (zeros, r"zeros\.zip, b/2\.png: unpacks to 10,737,418,240 bytes from .*\. Make the archive anew"),
    (a_million_entries, r"many\.zip: more than 200,000 files\. Split the data"),
]

# --- what can be read, and no model learned from: the run fails, and says why ---


def broken_pictures(folder: Path) -> list[object]:
    source = data.digit_folder(folder / "broken", 300)
    first = min((source / "one").iterdir())
    first.write_bytes(first.read_bytes()[:60])
    (source / "zero" / "notes.jpg").write_text("remember the milk")
    return [source, "--set", "clean.unreadable=error"]


def no_pictures(folder: Path) -> list[object]:
    for index in range(40):
        file = folder / "fakes" / "ab"[index % 2] / f"{index}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"no picture %d" % index)
    return [folder / "fakes"]


def one_class(folder: Path) -> list[object]:
    return [data.digit_folder(folder / "ones", 300, classes=[1])]


def no_target(folder: Path) -> list[object]:
    return [data.customers(folder / "c.csv", 60), "--target", "churnd"]


def target_not_named(folder: Path) -> list[object]:
    return [data.customers(folder / "c.csv", 60)]


def constant_target(folder: Path) -> list[object]:
    return [table(folder / "constant.csv", lambda i: (i % 7, i % 5, "x")), "--target", "t"]


def constant_number(folder: Path) -> list[object]:
    return [table(folder / "flat.csv", lambda i: (i % 7 + 0.5, i % 5, 3.5)), "--target", "t"]


def mixed_column(folder: Path) -> list[object]:
    source = table(folder / "mixed.csv", lambda i: (i % 7, i * 1.5 if i != 40 else "oops", "xy"[i % 2]))
    return [source, "--target", "t"]


def infinite_cell(folder: Path) -> list[object]:
    source = table(folder / "infinite.csv", lambda i: (i % 7, i * 1.5 if i != 5 else "inf", "xy"[i % 2]))
    return [source, "--target", "t"]


def bad_array(path: Path, value: float) -> list[object]:
    vectors = np.random.default_rng(0).normal(size=(60, 3))
    vectors[7, 1] = value
    np.savez(path, v=vectors, label=np.arange(60) % 2)
    return [path, "--target", "label"]


def nan_in_array(folder: Path) -> list[object]:
    return bad_array(folder / "nan.npz", np.nan)


def infinity_in_array(folder: Path) -> list[object]:
    return bad_array(folder / "infinity.npz", np.inf)


def infinite_target(folder: Path) -> list[object]:
    target = np.arange(60.0)
    target[9] = np.inf
    np.savez(folder / "target.npz", v=np.random.default_rng(0).normal(size=(60, 3)), y=target)
    return [folder / "target.npz", "--target", "y"]


def one_row(folder: Path) -> list[object]:
    return [data.write_csv(folder / "one.csv", ("a", "t"), [(1, "x")]), "--target", "t"]


def one_array_row(folder: Path) -> list[object]:
    return [data.digits_npz(folder / "one.npz", 1), "--target", "label"]


def large_batch(folder: Path) -> list[object]:
    return [data.customers(folder / "c.csv", 60), "--target", "churned", "--set", "train.batch_size=100000"]


def unseen_label(folder: Path) -> list[object]:
    test = data.write_csv(
        folder / "held-out.csv",
        ("age", "spent", "plan", "joined", "churned"),
        [(30, "10", "free", "2021-01-01", "no"), (31, "11", "pro", "2021-01-01", "maybe")],
    )
    return [data.customers(folder / "c.csv", 60), "--test", test, "--target", "churned"]


def column_missing_in_test(folder: Path) -> list[object]:
    test = data.write_csv(folder / "held-out.csv", ("age", "spent", "plan", "churned"), [(30, "10", "free", "no")])
    return [data.customers(folder / "c.csv", 60), "--test", test, "--target", "churned"]


def recipe(folder: Path, text: str) -> list[object]:
    data.customers(folder / "c.csv", 60)
    (folder / "r.yaml").write_text("data: {train: c.csv}\n" + text)
    return [folder / "r.yaml"]


def misspelt_key(folder: Path) -> list[object]:
    return recipe(folder, "outputs: [{name: churned, type: category}]\ntrain: {epoch: 3}\n")


def misspelt_type(folder: Path) -> list[object]:
    return recipe(folder, "outputs: [{name: churned, type: categry}]\n")


def misspelt_field(folder: Path) -> list[object]:
    return recipe(folder, "inputs: [{name: agee, type: number}]\noutputs: [{name: churned, type: category}]\n")


def misspelt_setting(folder: Path) -> list[object]:
    return [data.customers(folder / "c.csv", 60), "--target", "churned", "--set", "train.epocs=3"]


UNUSABLE: list[tuple[Make, str]] = [
    (broken_pictures, r"broken\.zip, (one|zero)/\S+, field image: unreadable picture: .*\. Replace or remove it"),
    (no_pictures, r"fakes\.zip, a/0\.jpg, field image: no picture could be read\. \w+"),
    (one_class, r"ones\.zip.*, field label: all \d+ training rows have one label, 'one'\. A classifier needs"),
    (no_target, r"c\.csv: there is no column 'churnd'\. Did you mean 'churned'\?"),
    (target_not_named, r"c\.csv: which column is to be predicted\? Name it with --target; the columns are age, "),
    (constant_target, r"constant\.csv.*, field t: all \d+ training rows have one label, 'x'\. A classifier needs"),
    (constant_number, r"flat\.csv.*, field t: .*3\.5.*\. \w+"),
    (mixed_column, r"mixed\.csv, row 42, field b: 'oops' in a column of numbers .*\. Correct these cells"),
    (infinite_cell, r"infinite\.csv, row 7, field b: 'inf' in a column of numbers .*\. Correct these cells"),
    (nan_in_array, r"nan\.npz, row 7 .*, field v: NaN or infinity in 1 of 60 rows\. Replace them"),
    (infinity_in_array, r"infinity\.npz, row 7 .*, field v: NaN or infinity in 1 of 60 rows\. Replace them"),
    (infinite_target, r"target\.npz, row 9 .*, field y: .*inf.*\. \w+"),
    (one_row, r"one\.csv: .*(one row|1 row|too few).*\. Give more rows"),
    (one_array_row, r"one\.npz: .*(one row|1 row|too few).*\. Give more rows"),
    (large_batch, r"recipe, train\.batch_size: a batch of 100000 is larger than the \d+ rows .*\. Use at most"),
    (unseen_label, r"held-out\.csv, row 3, field churned: the label 'maybe' does not occur in train .*Correct"),
    (column_missing_in_test, r"held-out\.csv: there is no column 'joined'\. "),
    (misspelt_key, r"r\.yaml, train: unknown key 'epoch'\. Did you mean 'epochs'\?"),
    (misspelt_type, r"r\.yaml, outputs\[0\]: unknown type 'categry'\. Did you mean 'category'\?"),
    (misspelt_field, r"c\.csv: there is no column 'agee'\. Did you mean 'age'\?"),
    (misspelt_setting, r"recipe, train: unknown key 'epocs'\. Did you mean 'epochs'\?"),
]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service where nothing is ever registered."""
    with Home(tmp_path_factory.mktemp("strict") / "home", {"YUNMO_WORKERS": "1"}).up() as service:
        yield service
        assert service.stop() == 0


@pytest.mark.parametrize(("make", "message"), UNREADABLE, ids=[make.__name__ for make, _ in UNREADABLE])
def test_what_cannot_be_read_is_no_dataset(strict: Service, tmp_path: Path, make: Make, message: str) -> None:
    before = strict.registered()
    found = strict.home.refused("train", *make(tmp_path))
    assert re.match(rf"error: (\S*/)?{message}", found), found
    assert strict.registered() == before
    assert before[0] == []


@pytest.mark.parametrize(("make", "message"), UNUSABLE, ids=[make.__name__ for make, _ in UNUSABLE])
def test_what_cannot_be_learned_from_makes_no_model(strict: Service, tmp_path: Path, make: Make, message: str) -> None:
    found = strict.home.refused("train", *make(tmp_path))
    assert re.match(rf"error: (\S*/)?{message}", found), found
    assert strict.registered()[0] == []


def test_without_a_service_it_is_the_same(home: Home, tmp_path: Path) -> None:
    assert "the file is empty" in home.refused("train", *empty_file(tmp_path))
    assert "'oops' in a column of numbers" in home.refused("train", *mixed_column(tmp_path))
    assert "unknown key 'epoch'" in home.refused("train", *misspelt_key(tmp_path))
    assert home.registered() == ([], ["mixed:1"])


def test_unreadable_pictures_are_dropped_and_reported(live: Service, tmp_path: Path) -> None:
    source = data.digit_folder(tmp_path / "some-broken", 300)
    first = min((source / "one").iterdir())
    first.write_bytes(first.read_bytes()[:60])
    (source / "zero" / "notes.txt").write_text("remember the milk")
    report = live.home.train(source, "--set", "train.epochs=1")["report"]
    issues = report["data"]["cleaning"]["issues"]
    assert {(each["reason"], each["action"]) for each in issues} == {("unreadable picture", "row dropped")}
    assert sum(each["count"] for each in issues) == 2
    named = " ".join(row for each in issues for row in each["rows"])
    assert first.name in named
    assert "zero/notes.txt" in named
