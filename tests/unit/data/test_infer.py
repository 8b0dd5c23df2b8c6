from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from yunmo.core.errors import DataError
from yunmo.core.fields import CategoryOutput, LabelsOutput, NumberOutput
from yunmo.data.infer import infer_fields
from yunmo.data.sources.open import open_source

Write = Callable[..., Path]


def _types(path: Path, target: str | None) -> dict[str, str]:
    inputs, outputs, _ = infer_fields(open_source(path), target)
    return {field.name: field.__struct_config__.tag for field in (*inputs, *outputs)}


def test_columns_of_a_table_are_told(passengers: Path) -> None:
    inputs, outputs, decisions = infer_fields(open_source(passengers), "survived")
    found = {field.name: field.__struct_config__.tag for field in inputs}
    assert found == {"age": "number", "fare": "number", "port": "category", "boarded": "date"}
    assert isinstance(outputs[0], CategoryOutput)
    reasons = {decision.key: decision.reason for decision in decisions}
    assert "counts the rows" in reasons["inputs.id"]
    assert "identifier" in reasons["inputs.name"]


def test_useless_columns_are_left_out(write_csv: Write) -> None:
    rows = "\n".join(f"{index}.5,same,,{index * 7 % 23},u{index},{index % 4}.5" for index in range(23))
    path = write_csv(f"x,constant,empty,user_id,code,good\n{rows}\n")
    inputs, _, decisions = infer_fields(open_source(path), "x")
    reasons = {decision.key.removeprefix("inputs."): decision.reason for decision in decisions}
    assert "same in every row" in reasons["constant"]
    assert "every cell is missing" in reasons["empty"]
    assert "identifier" in reasons["user_id"]
    assert "23 of 23 texts" in reasons["code"]
    assert [field.name for field in inputs] == ["good"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([index % 3 for index in range(30)], CategoryOutput),
        (["yes", "no"] * 10, CategoryOutput),
        ([index + 0.5 for index in range(30)], NumberOutput),
        (list(range(100)), NumberOutput),
        ([0.5, 1.5] * 20, NumberOutput),
        ([5, 6, 7, 8], NumberOutput),
    ],
)
def test_the_target_decides_the_task(write_csv: Write, values: list[object], kind: type) -> None:
    rows = "\n".join(f"{index * 1.5},{value}" for index, value in enumerate(values))
    _, (output,), _ = infer_fields(open_source(write_csv(f"x,t\n{rows}\n")), "t")
    assert type(output) is kind


def _labels(count: int, joined: str = ";") -> list[str]:
    names = ("sport", "pop music", "politics", "世界")
    return [joined.join(name for place, name in enumerate(names) if index >> place & 1) for index in range(count)]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (_labels(160), LabelsOutput),
        (_labels(160, " | "), LabelsOutput),
        ([*_labels(160), "sport;sport"], LabelsOutput),
        (_labels(160, ", "), CategoryOutput),
        (_labels(16), CategoryOutput),  # too few rows of each to know
        (["rock;pop", "jazz", "folk"] * 20, CategoryOutput),  # a name with the separator in it
        (["a;b", "c;d", "a;d", "c;b"] * 20, CategoryOutput),  # two things a row, always
        (["a|b|c", "a|b|d", "a|b", "a|e", "a", "a|e|f"] * 20, CategoryOutput),  # paths of a tree
        ([f"{'x' * 50};{cell}" for cell in _labels(160)], CategoryOutput),  # no short tokens
        ([f"{index};{cell}" for index, cell in enumerate(_labels(160))], CategoryOutput),  # no small vocabulary
        ([cell if index % 3 == 0 else "sport" for index, cell in enumerate(_labels(160))], CategoryOutput),
        ([f'"{cell}";x' for cell in _labels(160)], CategoryOutput),
    ],
    ids=range(12),
)
def test_several_labels_are_told_from_one_category(tmp_path: Path, cells: list[str], kind: type) -> None:
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("x", "t"), *((index * 1.5, cell) for index, cell in enumerate(cells))])
    _, (output,), decisions = infer_fields(open_source(tmp_path / "t.csv"), "t")
    assert type(output) is kind
    if isinstance(output, LabelsOutput):
        assert output.separator == ("|" if " | " in cells[3] else ";")
        (reason,) = [decision.reason for decision in decisions if decision.value == "labels"]
        assert reason.endswith("if not, write outputs: [{name: t, type: category}]")


def test_a_missing_target_suggests_the_nearest(passengers: Path) -> None:
    with pytest.raises(DataError, match="Did you mean 'survived'"):
        infer_fields(open_source(passengers), "Survive")
    with pytest.raises(DataError, match="--target; the columns are id, name") as caught:
        infer_fields(open_source(passengers), None)
    assert caught.value.where == "passengers.csv"


def test_a_usual_name_is_taken_for_the_target(write_csv: Write) -> None:
    _, outputs, decisions = infer_fields(open_source(write_csv("x,label\n1.5,a\n2,b\n3,a\n")), None)
    assert outputs[0].name == "label"
    assert "usual name" in decisions[0].reason


def test_stray_texts_in_numbers_are_an_error_with_rows(write_csv: Write) -> None:
    cells = [str(index) for index in range(40)]
    cells[7], cells[20] = "n.a.?", "forty"
    path = write_csv("x,t\n" + "\n".join(f"{cell},{index % 2}" for index, cell in enumerate(cells)))
    with pytest.raises(DataError) as caught:
        infer_fields(open_source(path), "t")
    assert caught.value.where == "table.csv, row 9, field x"
    assert "'forty' in table.csv, row 22" in caught.value.message
    assert "type: category" in str(caught.value.remedy)


def test_a_column_of_texts_with_many_numbers_is_a_category(write_csv: Write) -> None:
    rows = "\n".join(f"{'A' if index % 3 == 0 else index % 5},{index % 2}" for index in range(60))
    assert _types(write_csv(f"x,t\n{rows}\n"), "t")["x"] == "category"


def test_nothing_to_learn_from_says_what_was_left_out(write_csv: Write) -> None:
    rows = "\n".join(f"user {index},{index % 2}" for index in range(60))
    with pytest.raises(DataError, match=r"who \(left out: an identifier, 60 of 60 texts are different"):
        infer_fields(open_source(write_csv(f"who,t\n{rows}\n")), "t")


@pytest.mark.parametrize(
    ("name", "cell", "kind"),
    [
        ("review", "it was {}th of the best films", "text"),
        ("title", "第{}届电影节今日开幕", "text"),
        ("text", "لقد كان الفيلم {} جميلا", "text"),
        ("comment_id", "it was {}th of the best films", None),
        ("customer_name", "Dr. Anna Maria {} Smith Jones", None),
        ("code", "AB-{}-C", None),
        ("page", "https://example.org/a/b/c/d/{}", None),
        ("contact", "some.body.{}@example.org", None),
        ("key", "3f2a{}b-11ee-be56-0242ac120002", None),
        ("who", "user {}", None),
        ("when", "2024-01-{:02}", "date"),
    ],
)
def test_language_is_told_from_identifiers(write_csv: Write, name: str, cell: str, kind: str | None) -> None:
    cells = [cell.format(index % 28 + 1 if kind == "date" else index) for index in range(60)]
    rows = "\n".join(f'"{text}",{index * 7 % 23},{index % 2}' for index, text in enumerate(cells))
    inputs, _, decisions = infer_fields(open_source(write_csv(f"{name},good,t\n{rows}\n")), "t")
    assert {field.name: field.__struct_config__.tag for field in inputs}.get(name) == kind
    reason = next(decision.reason for decision in decisions if decision.key == f"inputs.{name}")
    if kind != "date":
        other = "category" if kind else "text"
        assert f"inputs: [{{name: {name}, type: {other}}}]" in reason


def test_sentences_that_come_again_are_categories(write_csv: Write) -> None:
    rows = "\n".join(f"the answer number {index % 10} of all,{index % 2}" for index in range(60))
    assert _types(write_csv(f"x,t\n{rows}\n"), "t")["x"] == "category"


def test_arrays_are_told_by_rank_and_values(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    np.savez(
        tmp_path / "a.npz",
        digits=generator.integers(0, 17, (20, 8, 8)).astype(np.float64),
        photo=generator.integers(0, 256, (20, 4, 4, 3), np.uint8),
        motion=generator.normal(size=(20, 5, 2)),
        table=generator.normal(size=(20, 3)),
        age=generator.normal(size=20),
        y=np.arange(20) % 2,
    )
    assert _types(tmp_path / "a.npz", None) == {
        "digits": "image",
        "photo": "image",
        "motion": "sequence",
        "table": "vector",
        "age": "number",
        "y": "category",
    }


def test_images_and_labels_are_told(pets: Path) -> None:
    assert _types(pets, None) == {"image": "image", "label": "category"}
