from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yunmo.core import fields as specs
from yunmo.core.errors import DataError, InvalidInput, RecipeError
from yunmo.core.recipe import parse_recipe
from yunmo.data.fields import labels as module
from yunmo.data.fields.labels import LabelsOutput, held_labels, join_labels, label_strata, split_labels
from yunmo.data.splits import hold_out, strata

SPEC = specs.LabelsOutput(name="topics")


def fitted(values: list[object], spec: specs.LabelsOutput = SPEC) -> LabelsOutput:
    field, _ = LabelsOutput(spec).resolve(values, str)
    return LabelsOutput(field.spec, field.fit(values))


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("sport;politics", ["sport", "politics"]),
        ("  sport ; politics;; ", ["sport", "politics"]),
        ('"a;b"; c', ["a;b", "c"]),
        ('"say ""hi""";x', ['say "hi"', "x"]),
        ('5" pipe;x', ['5" pipe', "x"]),
        ("音乐;体育", ["音乐", "体育"]),
        ("", []),
        ("  ", []),
        (";", []),
        (None, []),
        (float("nan"), []),
        (3.0, ["3"]),
    ],
)
def test_a_cell_is_read(cell: object, labels: list[str]) -> None:
    assert split_labels(cell, ";") == labels


@given(
    st.lists(st.text(st.characters(exclude_categories=("C", "Z")), min_size=1), unique=True),
    st.sampled_from(";|,/"),
)
def test_what_is_joined_is_read_again(labels: list[str], separator: str) -> None:
    assert split_labels(join_labels(labels, separator), separator) == labels


def test_encode_marks_every_label() -> None:
    field = fitted(["b;a", "", "a;a", "c"])
    assert field.known().categories == ("a", "b", "c")
    assert field.known().category_counts == (2, 1, 1)
    encoded = field.encode(["c; a", None, "a;a"])["topics"]
    assert encoded.dtype == np.uint8
    assert encoded.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert field.raw("c;a;c") == ["c", "a"]
    with pytest.raises(InvalidInput, match="'d' is not a known label") as caught:
        field.encode(["a", "a;d"])
    assert caught.value.where == "row 1, field topics"


def test_what_is_not_known_is_not_none_of_them() -> None:
    cleaned = LabelsOutput(SPEC).clean(["a;b", "", "NA", None, "b;b"], lambda row: f"t.csv, row {row + 2}")
    assert cleaned.keep.tolist() == [True, True, False, True, True]
    assert [(issue.reason, issue.action, issue.rows) for issue in cleaned.issues] == [
        ("target missing", "row dropped", ("t.csv, row 4",)),
        ("a label twice", "counted once", ("t.csv, row 6",)),
    ]


@pytest.mark.parametrize("cell", ['"a;b', '"a"b;c'])
def test_quotes_that_do_not_fit_are_refused_with_their_row(cell: str) -> None:
    with pytest.raises(DataError, match="quotes do not fit") as caught:
        LabelsOutput(SPEC).clean(["a", cell], lambda row: f"t.csv, row {row + 2}")
    assert caught.value.where == "t.csv, row 3, field topics"
    with pytest.raises(InvalidInput, match="quotes do not fit"):
        fitted(["a", "b"]).encode([cell])


@pytest.mark.parametrize(("values", "same"), [(["a;b", "b; a"], "'a', 'b'"), (["", None], "none")])
def test_rows_that_all_have_the_same_labels_are_refused(values: list[object], same: str) -> None:
    with pytest.raises(DataError, match=f"all 2 training rows have the same labels: {same}"):
        LabelsOutput(SPEC).fit(values)


def test_one_label_that_some_rows_have_is_enough() -> None:
    assert fitted(["a", "", "a"]).encode(["a", ""])["topics"].tolist() == [[1], [0]]


def test_too_many_labels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LABELS", 3)
    with pytest.raises(DataError, match=r"4 different labels, more than 3.*Is ';' between the labels"):
        LabelsOutput(SPEC).resolve(["a;b", "c;d"], str)


def test_labels_of_the_recipe_are_all_there_are() -> None:
    spec = specs.LabelsOutput(name="topics", categories=("b", "a"))
    with pytest.raises(DataError, match=r"'c', 'd' is not among the categories of the recipe \(2 rows; also row 3\)"):
        LabelsOutput(spec).clean(["a", "a;c", "", "d"], lambda row: f"row {row}")
    assert fitted(["a", "b"], spec).encode(["b"])["topics"].tolist() == [[1, 0]]


def test_labels_hold_from_the_threshold_on() -> None:
    spec = specs.LabelsOutput(name="t", categories=("a", "b"))
    shares = np.array([[0.5, 0.2], [0.49, 0.7]])
    assert held_labels(shares, spec) == [["a"], ["b"]]
    assert held_labels(shares, specs.LabelsOutput(name="t", categories=("a", "b"), threshold=0.2)) == [["a", "b"]] * 2


@given(st.lists(st.sets(st.sampled_from("abcdef")), min_size=4, max_size=60), st.floats(0.1, 0.6), st.integers(0, 99))
def test_no_label_is_held_out_in_all_its_rows(cells: list[set[str]], share: float, seed: int) -> None:
    values = [";".join(sorted(labels)) for labels in cells]
    stay, _ = hold_out(strata(SPEC, values), share, seed)
    assert set().union(*(cells[row] for row in stay)) == set().union(*cells)


def test_a_rare_label_is_in_both_parts() -> None:
    values = ["a;b"] * 100 + ["a"] * 100 + ["c;a"] * 10
    _, held = hold_out(label_strata(values, SPEC), 0.2, 0)
    assert 1 <= sum(values[row] == "c;a" for row in held) <= 3


@pytest.mark.parametrize("separator", ['""', "ab", "'\"'", '"\\n"'])
def test_a_separator_is_one_character_and_no_quote(separator: str) -> None:
    text = f"data: {{train: a.csv}}\noutputs: [{{name: t, type: labels, separator: {separator}}}]"
    with pytest.raises(RecipeError, match="separator"):
        parse_recipe(text)


def test_the_recipe_names_metrics_of_labels() -> None:
    text = "data: {train: a.csv}\noutputs: [{name: t, type: labels}]\nevaluate: {metrics: [subset_accuracy]}"
    assert parse_recipe(text).outputs == (specs.LabelsOutput(name="t"),)
    with pytest.raises(RecipeError, match="hamming_loss"):
        parse_recipe(text.replace("subset_accuracy", "hamming"))
