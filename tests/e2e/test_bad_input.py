"""Bad input is refused with one line that names file, place and remedy, and leaves no model behind."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.e2e.command import Home
from tests.fixtures.data import customers, digit_folder, digits, png, write_csv

Arguments = tuple[object, ...]
Case = Callable[[Path], Arguments]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A workspace with a service, so that each command takes no longer than it has to."""
    home = Home(tmp_path_factory.mktemp("home"), {"YUNMO_WORKERS": "1"})
    with home.up() as service:
        yield home
        assert home.registered()[0] == [], "bad input made a model"
        assert service.stop() == 0


def picture() -> bytes:
    return png(digits(1)[0][0])


def no_picture_among_them(folder: Path) -> Arguments:
    for name in ("a", "b"):
        (folder / name).mkdir()
        for number in range(20):
            (folder / name / f"{number}.jpg").write_bytes(b"no picture %d" % number)
    return "train", folder


def a_truncated_picture_that_may_not_be_dropped(folder: Path) -> Arguments:
    digit_folder(folder, 200)
    first = sorted((folder / "zero").iterdir())[0]
    first.write_bytes(first.read_bytes()[:60])
    return "train", folder, "--set", "clean.unreadable=error"


def one_class(folder: Path) -> Arguments:
    return "train", digit_folder(folder, 300, classes=[1])


def an_empty_folder(folder: Path) -> Arguments:
    return "train", folder


def one_picture(folder: Path) -> Arguments:
    (folder / "a").mkdir()
    (folder / "a" / "1.png").write_bytes(picture())
    return "train", folder


def a_link_in_a_folder(folder: Path) -> Arguments:
    digit_folder(folder, 100)
    (folder / "one" / "evil.png").symlink_to("/etc/passwd")
    return "train", folder


def a_target_that_is_not_there(folder: Path) -> Arguments:
    return "train", customers(folder / "t.csv"), "--target", "churnd"


def no_target(folder: Path) -> Arguments:
    return "train", customers(folder / "t.csv")


def a_constant_target(folder: Path) -> Arguments:
    rows = [(number % 7 * 1.5, "x") for number in range(50)]
    return "train", write_csv(folder / "t.csv", ("a", "b"), rows), "--target", "b"


def a_constant_number_as_target(folder: Path) -> Arguments:
    rows = [(number % 7 * 1.5, 3.5) for number in range(50)]
    return "train", write_csv(folder / "t.csv", ("a", "b"), rows), "--target", "b"


def a_text_among_numbers(folder: Path) -> Arguments:
    rows = [("oops" if number == 40 else number * 1.5, "xy"[number % 2]) for number in range(80)]
    return "train", write_csv(folder / "t.csv", ("b", "t"), rows), "--target", "t"


def infinity_in_a_table(folder: Path) -> Arguments:
    rows = [("inf" if number == 5 else number * 1.5, "xy"[number % 2]) for number in range(80)]
    return "train", write_csv(folder / "t.csv", ("b", "t"), rows), "--target", "t"


def nan_in_an_array(folder: Path) -> Arguments:
    vectors = np.random.default_rng(0).normal(size=(60, 3))
    vectors[7, 1] = np.nan
    np.savez(folder / "t.npz", v=vectors, label=np.arange(60) % 2)
    return "train", folder / "t.npz", "--target", "label"


def an_array_of_python_objects(folder: Path) -> Arguments:
    np.savez(folder / "t.npz", v=np.array([{"a": 1}, None], dtype=object), label=[0, 1])
    return "train", folder / "t.npz", "--target", "label"


def empty_file(name: str) -> Case:
    def case(folder: Path) -> Arguments:
        (folder / name).touch()
        return "train", folder / name, "--target", "t"

    return case


def one_row(folder: Path) -> Arguments:
    return "train", write_csv(folder / "t.csv", ("a", "t"), [(1, "x")]), "--target", "t"


def no_row(folder: Path) -> Arguments:
    return "train", write_csv(folder / "t.csv", ("a", "t"), []), "--target", "t"


def a_row_too_long(folder: Path) -> Arguments:
    rows = [(1, "x")] * 5 + [(1, "x", 3)] + [(2, "y")] * 5
    return "train", write_csv(folder / "t.csv", ("a", "t"), rows), "--target", "t"


def two_columns_of_one_name(folder: Path) -> Arguments:
    return "train", write_csv(folder / "t.csv", ("a", "a", "t"), [(1, 2, "x")] * 5), "--target", "t"


def a_label_that_train_never_saw(folder: Path) -> Arguments:
    test = [(30, "10", "free", "2021-01-01", "maybe"), (31, "11", "pro", "2021-01-01", "yes")]
    write_csv(folder / "test.csv", ("age", "spent", "plan", "joined", "churned"), test)
    return "train", customers(folder / "t.csv"), "--test", folder / "test.csv", "--target", "churned"


def a_test_table_without_a_column(folder: Path) -> Arguments:
    write_csv(
        folder / "test.csv", ("age", "spent", "plan", "churned"), [(30, "1", "free", "no"), (1, "1", "pro", "yes")]
    )
    return "train", customers(folder / "t.csv"), "--test", folder / "test.csv", "--target", "churned"


def a_batch_larger_than_the_data(folder: Path) -> Arguments:
    table = customers(folder / "t.csv")
    return "train", table, "--target", "churned", "--set", "train.batch_size=100000"


def recipe(text: str) -> Case:
    def case(folder: Path) -> Arguments:
        customers(folder / "t.csv")
        (folder / "recipe.yaml").write_text(text)
        return "train", folder / "recipe.yaml"

    return case


def a_misspelt_setting(folder: Path) -> Arguments:
    return "train", customers(folder / "t.csv"), "--target", "churned", "--set", "train.epocs=3"


def archive(write: Callable[[zipfile.ZipFile], None]) -> Case:
    def case(folder: Path) -> Arguments:
        with zipfile.ZipFile(folder / "t.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("a/1.png", picture())
            write(file)
        return "train", folder / "t.zip"

    return case


def leads_out(file: zipfile.ZipFile) -> None:
    file.writestr("../b/2.png", picture())


def has_a_link(file: zipfile.ZipFile) -> None:
    link = zipfile.ZipInfo("b/2.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    file.writestr(link, "/etc/passwd")


def unpacks_to_ten_gigabytes(file: zipfile.ZipFile) -> None:
    # Ten gigabytes of zeros take a minute to deflate: one gigabyte is as suspicious, and the limit is a ratio.
    block = bytes(2**24)
    with file.open("b/2.png", "w", force_zip64=True) as member:
        for _ in range(64):
            member.write(block)


def has_too_many_files(file: zipfile.ZipFile) -> None:
    for number in range(200_001):
        file.writestr(zipfile.ZipInfo(f"b/{number}.png"), b"")


def neither_table_nor_picture(folder: Path) -> Arguments:
    (folder / "t.bin").write_bytes(os.urandom(5000))
    return "train", folder / "t.bin", "--target", "t"


def nothing_there(folder: Path) -> Arguments:
    return "train", folder / "t.csv", "--target", "t"


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (no_picture_among_them, ["a/0.jpg", "picture"]),
        (a_truncated_picture_that_may_not_be_dropped, ["zero/", "unreadable picture", "clean.unreadable: drop"]),
        (one_class, ["label", "'one'", "at least two classes"]),
        (an_empty_folder, ["empty folder", "a folder of pictures for each class"]),
        (one_picture, ["too few", "Give more rows"]),
        (a_link_in_a_folder, ["one/evil.png", "link"]),
        (a_target_that_is_not_there, ["t.csv", "'churnd'", "Did you mean 'churned'?"]),
        (no_target, ["t.csv", "--target", "age, spent, plan"]),
        (a_constant_target, ["b", "'x'"]),
        (a_constant_number_as_target, ["b", "3.5"]),
        (a_text_among_numbers, ["t.csv, row 42, field b", "'oops'", "Correct these cells"]),
        (infinity_in_a_table, ["t.csv, row 7, field b", "inf"]),
        (nan_in_an_array, ["t.npz, row 7", "field v", "NaN"]),
        (an_array_of_python_objects, ["t.npz", "object"]),
        (empty_file("t.csv"), ["t.csv", "the file is empty"]),
        (empty_file("t.zip"), ["t.zip", "the file is empty"]),
        (empty_file("t.npz"), ["t.npz", "the file is empty"]),
        (empty_file("t.yaml"), ["t.yaml", "Begin with 'data: {train: FILE}'"]),
        (one_row, ["t.csv", "row"]),
        (no_row, ["t.csv", "a header without rows"]),
        (a_row_too_long, ["t.csv, row 7", "3 cells where the header has 2"]),
        (two_columns_of_one_name, ["t.csv", "'a'", "Rename"]),
        (a_label_that_train_never_saw, ["test.csv, row 2, field churned", "'maybe'", "no, yes"]),
        (a_test_table_without_a_column, ["test.csv", "'joined'"]),
        (a_batch_larger_than_the_data, ["train.batch_size", "100000", "Use at most"]),
        (recipe("data: {train: t.csv}\ntrain: {epoch: 3}"), ["recipe.yaml, train", "Did you mean 'epochs'?"]),
        (recipe("data: {train: t.csv}\noutputs: [{name: churned, type: categry}]"), ["Did you mean 'category'?"]),
        (recipe("data: {train: no.csv}"), ["no.csv", "no such file"]),
        (recipe("data: {train: t.csv"), ["recipe.yaml, line", "not valid YAML"]),
        (a_misspelt_setting, ["train", "Did you mean 'epochs'?"]),
        (archive(leads_out), ["t.zip", "../b/2.png"]),
        (archive(has_a_link), ["t.zip", "b/2.png", "link"]),
        (archive(unpacks_to_ten_gigabytes), ["t.zip", "b/2.png", "1,073,741,824 bytes"]),
        (archive(has_too_many_files), ["t.zip", "more than 200,000 files"]),
        (neither_table_nor_picture, ["t.bin"]),
        (nothing_there, ["t.csv", "no such file"]),
    ],
    ids=lambda value: getattr(value, "__qualname__", None),
)
def test_it_is_refused_by_name(home: Home, tmp_path: Path, case: Case, says: list[str]) -> None:
    line = home.refused(*case(tmp_path))
    for words in says:
        assert words in line


def test_unreadable_pictures_are_dropped_and_named(tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "pets", 300)
    first = sorted((folder / "zero").iterdir())[0]
    first.write_bytes(first.read_bytes()[:60])
    (folder / "one" / "notes.jpg").write_text("not a picture")
    found = Home(tmp_path / "home").train(folder, "--set", "train.epochs=1")
    [issue] = [each for each in found["report"]["data"]["cleaning"]["issues"] if "unreadable" in each["reason"]]
    assert issue["count"] == 2
    assert any("one/notes.jpg" in row for row in issue["rows"])
    assert any(f"zero/{first.name}" in row for row in issue["rows"])
