from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fixtures.bundles import png

from yunmo.core.errors import Cancelled, DataError, RecipeError, StorageFull, UnsafeArchive
from yunmo.core.events import DataPrepared
from yunmo.core.recipe import recipe_from
from yunmo.data.fields.registry import open_field
from yunmo.data.prepare import prepare
from yunmo.data.prepared import Prepared, load_prepared

Write = Callable[..., Path]
Zip = Callable[[str, dict[str, bytes]], Path]


def _prepare(tmp_path: Path, path: Path, /, *, target: str | None = None, **keys: Any) -> Prepared:
    splits = {"train": path} | {name: keys.pop(name) for name in ("test", "validation") if name in keys}
    options = {name: keys.pop(name) for name in ("emit", "cancelled") if name in keys}
    recipe = recipe_from({"data": {"train": path.name}, **keys})
    return prepare(recipe, splits, tmp_path / "out" / "prepared", target=target, **options)


def _issues(prepared: Prepared) -> dict[str, dict[str, Any]]:
    return {issue["reason"]: issue for issue in prepared.cleaning["issues"]}


def _nothing_left(tmp_path: Path) -> bool:
    out = tmp_path / "out"
    return not out.exists() or not list(out.iterdir())


def test_an_image_folder(tmp_path: Path, pets: Path) -> None:
    found = _prepare(tmp_path, pets)
    assert found.rows == {"train": 29, "validation": 3, "test": 8}
    images, labels = found.inputs("train")["image"], found.outputs("train")["label"]
    assert images.shape == (29, 12, 12, 3)
    assert isinstance(images, np.memmap)
    assert sorted(np.bincount(labels)) == [14, 15]
    assert found.statistics["image"].mean == pytest.approx((images.reshape(-1, 3) / 255).mean(axis=0).tolist())
    assert found.recipe.inputs[0].size == 12
    assert found.recipe.outputs[0].categories == ("cat", "dog")
    assert found.recipe.data.digests == {"train": hashlib.sha256(pets.read_bytes()).hexdigest()}
    assert found.recipe.data.test_share == 0.2


def test_examples_are_requests_that_encode_to_the_test_rows(tmp_path: Path, pets: Path) -> None:
    found = _prepare(tmp_path, pets)
    field = open_field(found.recipe.inputs[0], found.statistics["image"])
    rows = json.loads(json.dumps(found.examples))
    encoded = field.encode([row["image"] for row in rows])["image"]
    assert np.array_equal(encoded, found.inputs("test")["image"])
    assert base64.b64decode(rows[0]["image"])


def test_a_table_with_everything(tmp_path: Path, passengers: Path) -> None:
    found = _prepare(tmp_path, passengers, target="survived")
    assert sum(found.rows.values()) == 60
    inputs = found.inputs("train")
    assert inputs["boarded"].shape == (found.rows["train"], 6)
    assert inputs["port"].dtype == np.int64
    missing = {issue["field"]: issue for issue in found.cleaning["issues"]}
    assert (missing["age"]["count"], missing["age"]["action"]) == (6, "filled with median")
    assert missing["age"]["rows"][0] == "passengers.csv, row 5"
    for spec in found.recipe.inputs:
        field = open_field(spec, found.statistics[spec.name])
        for name, array in field.encode([row[spec.name] for row in found.examples]).items():
            rows = np.unique(np.linspace(0, found.rows["test"] - 1, 8).astype(int))
            assert np.array_equal(array, found.inputs("test")[name][rows])


def test_fitting_sees_train_rows_alone(tmp_path: Path, write_csv: Write) -> None:
    train = write_csv("x,y\n" + "".join(f"{index},{index % 2}\n" for index in range(1, 41)), "train.csv")
    test = write_csv("x,y\n100000,1\n,0\n", "test.csv")
    found = _prepare(tmp_path, train, test=test, target="y", inputs=[{"name": "x", "type": "number"}])
    assert found.statistics["x"].maximum[0] <= 40
    assert found.inputs("test")["x"].tolist() == [100000, found.statistics["x"].fill]


def test_the_same_again_is_opened_and_not_made(tmp_path: Path, pets: Path) -> None:
    events: list[Any] = []
    first = _prepare(tmp_path, pets, emit=events.append)
    inode = (first.folder / "prepared.json").stat().st_ino
    again = _prepare(tmp_path, pets, emit=events.append)
    assert (again.folder / "prepared.json").stat().st_ino == inode
    assert again.recipe == first.recipe == load_prepared(first.folder).recipe
    assert [type(event) for event in events] == [DataPrepared, DataPrepared]
    other = _prepare(tmp_path, pets, train={"seed": 5})
    assert (other.folder / "prepared.json").stat().st_ino != inode


def test_the_resolved_recipe_prepares_the_same_bytes(tmp_path: Path, passengers: Path) -> None:
    first = _prepare(tmp_path, passengers, target="survived")
    again = prepare(first.recipe, {"train": passengers}, tmp_path / "again")
    for name, array in first.inputs("train").items():
        assert np.array_equal(array, again.inputs("train")[name])
    assert first.statistics == again.statistics


def test_a_table_of_pictures_and_numbers(tmp_path: Path, make_zip: Zip, picture: Callable[..., bytes]) -> None:
    pictures = {f"pics/{index}.png": picture(index) for index in range(30)}
    rows = "".join(f"pics/{index}.png,{index * 0.5},{'ab'[index % 2]}\n" for index in range(30))
    found = _prepare(
        tmp_path, make_zip("t.zip", {"t.csv": f"photo,size,kind\n{rows}".encode()} | pictures), target="kind"
    )
    assert set(found.inputs("test")) == {"photo", "size"}
    assert len(found.inputs("test")["photo"]) == len(found.inputs("test")["size"]) == found.rows["test"]


def test_unreadable_pictures_are_dropped_and_named(
    tmp_path: Path, make_zip: Zip, picture: Callable[..., bytes]
) -> None:
    members = {f"{kind}/{index:02}.png": picture(index + ord(kind)) for kind in "ab" for index in range(10)}
    members["a/03.png"] = members["a/03.png"][:60]
    members["b/notes.txt"] = b"not a picture"
    path = make_zip("p.zip", members)
    found = _prepare(tmp_path, path)
    assert sum(found.rows.values()) == 19
    issues = [issue for issue in found.cleaning["issues"] if issue["reason"] == "unreadable picture"]
    assert sum(issue["count"] for issue in issues) == 2
    assert any("p.zip, a/03.png" in row for issue in issues for row in issue["rows"])
    with pytest.raises(DataError, match="unreadable") as caught:
        _prepare(tmp_path, path, clean={"unreadable": "error"})
    assert "p.zip, " in str(caught.value.where)


def _pictured(make_zip: Zip, cells: list[str], **files: bytes) -> Path:
    """Zip a table whose rows each name a picture of one gray, or something else."""
    pictures = {cell: png(10 * index % 250, 4) for index, cell in enumerate(cells) if cell.startswith("good")}
    rows = "".join(f"{cell},{index},{'ab'[index % 2]}\n" for index, cell in enumerate(cells))
    return make_zip("table.zip", {"table.csv": f"file,x,label\n{rows}".encode(), **pictures, **files})


def _fields(**keys: Any) -> dict[str, Any]:
    return {
        "inputs": [{"name": "file", "type": "image", "size": 4, **keys}, {"name": "x", "type": "number"}],
        "outputs": [{"name": "label", "type": "category"}],
    }


def test_rows_without_a_picture_go_on_with_the_mean_color(tmp_path: Path, make_zip: Zip) -> None:
    cells = [f"good{index}.png" if index % 3 else "" for index in range(60)]
    cells[4], cells[5] = "broken.png", "not there.png"
    path = _pictured(make_zip, cells, **{"broken.png": b"GIF89a"})
    found = _prepare(tmp_path, path, **_fields(missing="mean"))
    assert sum(found.rows.values()) == 58
    issues = _issues(found)
    assert (issues["no picture"]["count"], issues["no picture"]["rows"][0]) == (20, "table.zip, table.csv, row 2")
    assert sum(issue["count"] for issue in found.cleaning["issues"] if issue["reason"] == "unreadable picture") == 2
    learned = found.statistics["file"]
    assert learned.count == found.rows["train"]
    color = np.rint(np.array(learned.mean) * 255)
    present, missing = [], 0
    for split, rows in found.rows.items():
        pixels, numbers = found.inputs(split)["file"], found.inputs(split)["x"]
        assert len(pixels) == rows
        for row, number in zip(pixels, numbers.astype(int), strict=True):
            if number % 3:
                assert (row == 10 * number % 250).all()
                present += [row] if split == "train" else []
            else:
                assert (row == color).all()
                missing += split == "train"
    assert learned.missing == missing > 0
    assert learned.mean == pytest.approx((np.stack(present).reshape(-1, len(color)) / 255).mean(axis=0).tolist())
    fields = {spec.name: open_field(spec, found.statistics[spec.name]) for spec in found.recipe.inputs}
    assert any(row["file"] is None for row in found.examples)
    again = fields["file"].encode([row["file"] for row in found.examples])["file"]
    assert np.array_equal(
        again, found.inputs("test")["file"][np.unique(np.linspace(0, found.rows["test"] - 1, 8).astype(int))]
    )


def test_such_rows_are_dropped_by_default(tmp_path: Path, make_zip: Zip) -> None:
    cells = [f"good{index}.png" if index % 3 else "" for index in range(60)]
    found = _prepare(tmp_path, _pictured(make_zip, cells), **_fields())
    assert sum(found.rows.values()) == 40
    assert _issues(found)["no picture"]["action"] == "row dropped"


def test_missing_pictures_do_not_hide_that_the_others_are_broken(tmp_path: Path, make_zip: Zip) -> None:
    cells = ["" if index % 4 else "broken.png" for index in range(60)]
    path = _pictured(make_zip, cells, **{"broken.png": b"GIF89a"})
    with pytest.raises(DataError, match="pictures cannot be read"):
        _prepare(tmp_path, path, **_fields(missing="mean", color="rgb"))
    assert _nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("cell", "fields", "error", "message"),
    [
        ("../good.png", _fields(missing="mean"), UnsafeArchive, "a picture outside of the archive"),
        ("/etc/good.png", _fields(missing="mean"), UnsafeArchive, "a picture outside of the archive"),
        ("not there.png", {**_fields(), "clean": {"unreadable": "error"}}, DataError, "no file is called"),
        (
            "good.png",
            {"inputs": [{"name": "file", "type": "text"}], "outputs": [{"name": "label", "type": "category"}]},
            DataError,
            "the column holds pictures",
        ),
    ],
    ids=["up", "absolute", "not there", "as a text"],
)
def test_a_cell_that_names_no_picture_of_the_archive_is_refused(
    tmp_path: Path,
    make_zip: Zip,
    cell: str,
    fields: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    path = _pictured(make_zip, [cell, *(f"good{index}.png" for index in range(20))])
    with pytest.raises(error, match=message) as caught:
        _prepare(tmp_path, path, **fields)
    assert "table.zip" in str(caught.value.where)
    assert _nothing_left(tmp_path)


def test_mostly_unreadable_pictures_are_an_error(tmp_path: Path, make_zip: Zip, picture: Callable[..., bytes]) -> None:
    members = {f"{kind}/{index}.png": b"no" * (index + 1) + kind.encode() for kind in "ab" for index in range(9)}
    with pytest.raises(DataError):
        _prepare(tmp_path, make_zip("p.zip", members))
    members |= {f"{kind}/good{index}.png": picture(index + ord(kind)) for kind in "ab" for index in range(4)}
    with pytest.raises(DataError, match="cannot be read, such as"):
        _prepare(tmp_path, make_zip("q.zip", members))
    assert _nothing_left(tmp_path)


def test_duplicates_are_dropped_from_train_and_overlap_is_told(tmp_path: Path, write_csv: Write) -> None:
    rows = [f"{index},{index % 2}" for index in range(30)]
    train = write_csv("\n".join(["x,y", *rows, rows[3], rows[3]]), "train.csv")
    test = write_csv("x,y\n3,1\n500,0\n500,0\n", "test.csv")
    found = _prepare(tmp_path, train, test=test, target="y", inputs=[{"name": "x", "type": "number"}])
    issues = _issues(found)
    assert issues["duplicate of an earlier row"]["rows"] == ["train.csv, row 32", "train.csv, row 33"]
    assert issues["also in train"]["rows"] == ["test.csv, row 2"]
    assert found.rows["test"] == 3
    kept = _prepare(tmp_path, train, target="y", clean={"duplicates": "keep"}, inputs=[{"name": "x", "type": "number"}])
    assert sum(kept.rows.values()) == 32


def test_outliers_are_dropped_from_train_alone(tmp_path: Path, write_csv: Write) -> None:
    rows = "".join(f"{10**6 if index == 7 else index % 40},{index % 3},{index % 2}\n" for index in range(100))
    field = {"name": "x", "type": "number", "outliers": {"action": "drop"}}
    test = write_csv("x,z,y\n1000000,1,1\n1,1,0\n", "test.csv")
    found = _prepare(
        tmp_path,
        write_csv(f"x,z,y\n{rows}"),
        test=test,
        target="y",
        inputs=[field],
        clean={"duplicates": "keep"},
        train={"seed": 1},
    )
    assert found.rows["train"] + found.rows["validation"] in (99, 100)
    assert found.inputs("train")["x"].max() < 100
    assert found.rows["test"] == 2


def test_rows_without_a_target_are_dropped_everywhere(tmp_path: Path, write_csv: Write) -> None:
    train = write_csv("x,y\n" + "".join(f"{index},{'' if index == 4 else index % 2}\n" for index in range(30)), "a.csv")
    test = write_csv("x,y\n1,\n2,0\n", "b.csv")
    found = _prepare(tmp_path, train, test=test, target="y", inputs=[{"name": "x", "type": "number"}])
    assert found.rows["test"] == 1
    assert {issue["rows"][0] for issue in found.cleaning["issues"] if issue["reason"] == "target missing"} == {
        "a.csv, row 6",
        "b.csv, row 2",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y\n1,a\n", "1 row is too few, since validation and test rows are taken from it"),
        ("x,y\n1,a\n2,b\n", "2 rows are too few"),
        ("x,y\n" + "1.5,a\n2.5,a\n3,a\n" * 5, "one label, 'a'"),
        ("x,y\n" + "".join(f"{index % 7},7.5\n" for index in range(30)), "the target is the same 7.5"),
        ("x,y\n" + "".join(f"{index}.5,\n" for index in range(30)), "every cell of the target is missing"),
        ("x,y\n" + "".join(f"{'inf' if index == 3 else index},{index % 2}\n" for index in range(30)), "row 5"),
    ],
)
def test_tables_that_no_model_can_learn_from(tmp_path: Path, write_csv: Write, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _prepare(tmp_path, write_csv(text), target="y")
    assert _nothing_left(tmp_path)


def test_one_class_of_pictures_is_an_error(tmp_path: Path, make_zip: Zip, picture: Callable[..., bytes]) -> None:
    with pytest.raises(DataError, match="one label, 'cat'") as caught:
        _prepare(tmp_path, make_zip("p.zip", {f"cat/{index}.png": picture(index) for index in range(10)}))
    assert caught.value.where == "p.zip, field label"
    assert _nothing_left(tmp_path)


def test_pictures_of_which_none_can_be_read_are_named_with_a_remedy(tmp_path: Path, make_zip: Zip) -> None:
    members = {f"{kind}/{index}.png": b"nothing %d" % index for kind in ("cat", "dog") for index in range(10)}
    with pytest.raises(DataError, match="no picture could be read") as caught:
        _prepare(tmp_path, make_zip("p.zip", members))
    assert "p.zip" in str(caught.value.where)
    assert "JPEG" in str(caught.value.remedy)


def test_an_infinite_value_of_an_array_is_shown_plainly(tmp_path: Path) -> None:
    target = np.arange(60) / 7
    target[9] = np.inf
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=(60, 3)), y=target)
    with pytest.raises(DataError, match=r"field y: inf in a column of numbers \(1 of 60 values is none\)") as caught:
        _prepare(tmp_path, tmp_path / "a.npz", target="y")
    assert "NaN" in str(caught.value.remedy)


def test_a_class_of_one_picture_stays_in_train(tmp_path: Path, make_zip: Zip, picture: Callable[..., bytes]) -> None:
    members = {f"cat/{index}.png": picture(index) for index in range(20)} | {"dog/1.png": picture(99)}
    found = _prepare(tmp_path, make_zip("p.zip", members))
    assert np.bincount(found.outputs("train")["label"])[1] == 1


def test_labels_that_train_never_saw_are_named(tmp_path: Path, write_csv: Write) -> None:
    train = write_csv("x,y\n" + "".join(f"{index},{'ab'[index % 2]}\n" for index in range(30)), "train.csv")
    test = write_csv("x,y\n1,a\n2,c\n", "test.csv")
    with pytest.raises(DataError, match="'c' does not occur in train") as caught:
        _prepare(tmp_path, train, test=test, target="y", inputs=[{"name": "x", "type": "number"}])
    assert caught.value.where == "test.csv, row 3, field y"
    assert _nothing_left(tmp_path)


def test_a_column_that_test_lacks_is_named(tmp_path: Path, write_csv: Write) -> None:
    train = write_csv("x,y\n" + "".join(f"{index}.5,{index % 2}\n" for index in range(30)), "train.csv")
    with pytest.raises(DataError, match="there is no column 'x'") as caught:
        _prepare(tmp_path, train, test=write_csv("xs,y\n1,0\n", "test.csv"), target="y")
    assert caught.value.where == "test.csv"


def test_a_value_of_test_that_does_not_fit_names_its_row(tmp_path: Path, write_csv: Write) -> None:
    train = write_csv("d,y\n" + "".join(f"2020-01-{index + 1:02},{index % 2}\n" for index in range(28)), "train.csv")
    test = write_csv("d,y\n2020-01-05,1\n05.01.2020,1\n", "test.csv")
    with pytest.raises(DataError, match="not a date of the format") as caught:
        _prepare(tmp_path, train, test=test, target="y")
    assert caught.value.where == "test.csv, row 3, field d"


def test_a_picture_field_on_a_column_of_texts_is_refused(tmp_path: Path, write_csv: Write) -> None:
    path = write_csv("x,y\n" + "".join(f"{index},{index % 2}\n" for index in range(30)))
    with pytest.raises(DataError, match="no pictures"):
        _prepare(tmp_path, path, target="y", inputs=[{"name": "x", "type": "image"}])


def test_names_that_clash_are_refused(tmp_path: Path, write_csv: Write) -> None:
    path = write_csv("x,y\n" + "".join(f"{index},{index % 2}\n" for index in range(30)))
    with pytest.raises(RecipeError, match="two fields"):
        _prepare(tmp_path, path, target="y", inputs=[{"name": "y", "column": "x", "type": "number"}])


def test_columns_may_have_any_name(tmp_path: Path, write_csv: Write) -> None:
    path = write_csv('"a/../b c",y\n' + "".join(f"{index}.5,{index % 2}\n" for index in range(30)))
    assert list(_prepare(tmp_path, path, target="y").inputs("test")) == ["a/../b c"]


def test_cancelled_leaves_nothing(tmp_path: Path, pets: Path) -> None:
    calls = iter([False] * 3 + [True] * 100)
    with pytest.raises(Cancelled):
        _prepare(tmp_path, pets, cancelled=lambda: next(calls))
    assert _nothing_left(tmp_path)


def test_a_broken_run_before_is_cleared_away(tmp_path: Path, pets: Path) -> None:
    (tmp_path / "out/prepared.partial").mkdir(parents=True)
    (tmp_path / "out/prepared.partial/train-0.npy").write_bytes(b"half")
    _prepare(tmp_path, pets)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["prepared"]


def test_a_full_disk_is_an_error_and_leaves_nothing(pets: Path) -> None:
    place = Path("/dev/shm") / f"yunmo-test-{os.getpid()}"  # noqa: S108 - a tmpfs: it refuses at once
    recipe = recipe_from({"data": {"train": "p"}, "inputs": [{"name": "image", "type": "image", "size": 2**18}]})
    with pytest.raises(StorageFull, match="no space left"):
        prepare(recipe, {"train": pets}, place / "prepared")
    assert list(place.iterdir()) == []
    place.rmdir()


def test_unfinished_and_damaged_folders_are_told(tmp_path: Path, pets: Path) -> None:
    with pytest.raises(DataError, match="not prepared"):
        load_prepared(tmp_path)
    folder = _prepare(tmp_path, pets).folder
    (folder / "prepared.json").write_bytes(b"{")
    with pytest.raises(DataError, match="damaged"):
        load_prepared(folder)


def test_a_hostile_archive_is_refused(tmp_path: Path, make_zip: Zip) -> None:
    with pytest.raises(UnsafeArchive):
        _prepare(tmp_path, make_zip("p.zip", {"../x.png": b""}))
    assert _nothing_left(tmp_path)


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """180 MB of decoded pictures are prepared by a process that may take 120 MB more than it has after imports."""
    from PIL import Image

    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(60):
            out = archive.open(f"{'ab'[index % 2]}/{index}.png", "w")
            with out:
                Image.new("RGB", (1000, 1000), (index, 0, 0)).save(out, "PNG", compress_level=1)
    script = """
import resource, sys
from pathlib import Path
from yunmo.core.recipe import recipe_from
from yunmo.data.prepare import prepare
before = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (before + 120 * 2**20,) * 2)
recipe = recipe_from({"data": {"train": "p"}, "inputs": [{"name": "image", "type": "image", "size": 1000}]})
print(prepare(recipe, {"train": Path(sys.argv[1])}, Path(sys.argv[2])).rows["train"])
"""
    # Buffers of Python's allocator that OpenBLAS' threads would reserve are not what is measured.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, path, tmp_path / "out"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "43", done.stderr[-2000:]
