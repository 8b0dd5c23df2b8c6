from __future__ import annotations

import numpy as np
import pytest

from yunmo.core import fields as specs
from yunmo.core.errors import DataError, InvalidInput
from yunmo.data.fields import category
from yunmo.data.fields.category import CategoryField, CategoryOutput, in_order


def _fitted(values: list[object], **keys: object) -> CategoryField:
    field, _ = CategoryField(specs.CategoryField(name="port", **keys)).resolve(values, str)
    return CategoryField(field.spec, field.fit(values))


def test_input_codes_begin_at_1_and_0_is_unknown() -> None:
    field = _fitted(["S", "C", None, "S"])
    assert field.spec.categories == ("C", "S")
    assert field.encode(["C", "S", "Q", None, " S "])["port"].tolist() == [1, 2, 0, 0, 2]
    assert field.known().category_counts == (1, 2)
    assert field.known().missing == 1


def test_most_frequent_fills_missing_cells_but_not_unknown_ones() -> None:
    field = _fitted(["S", "C", None, "S"], missing="most_frequent")
    assert field.encode([None, "Q"])["port"].tolist() == [2, 0]


def test_drop_leaves_rows_out_and_refuses_them_in_requests() -> None:
    field = _fitted(["S", "C"], missing="drop")
    assert field.clean(["S", None], str).keep.tolist() == [True, False]
    with pytest.raises(InvalidInput, match="missing"):
        field.encode([None])


def test_numbers_of_files_arrays_and_requests_are_one_category() -> None:
    field = _fitted(["3", "10", "2"])
    assert field.spec.categories == ("2", "3", "10"), "whole numbers sort by value"
    assert field.encode([3, 3.0, "3", np.int64(3), np.float32(3)])["port"].tolist() == [2] * 5


@pytest.mark.parametrize("value", [["S"], {"S": 1}])
def test_requests_with_a_structure_are_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="one text"):
        _fitted(["S", "C"]).encode([value])


def test_rare_categories_beyond_the_most_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(category, "MOST_CATEGORIES", 2)
    field, decisions = CategoryField(specs.CategoryField(name="port")).resolve(["a", "a", "b", "b", "c"], str)
    assert field.spec.categories == ("a", "b")
    assert len(decisions) == 1


def test_output_codes_are_places_in_the_sorted_labels() -> None:
    field, _ = CategoryOutput(specs.CategoryOutput(name="label")).resolve(["dog", "cat", "dog"], str)
    field = CategoryOutput(field.spec, field.fit(["dog", "cat", "dog"]))
    assert field.encode(["cat", "dog"])["label"].tolist() == [0, 1]
    assert field.known().category_counts == (1, 2)
    with pytest.raises(InvalidInput, match="not a known label"):
        field.encode(["cow"])


def test_one_class_only_is_refused() -> None:
    with pytest.raises(DataError, match="one label, 'cat'"):
        CategoryOutput(specs.CategoryOutput(name="label")).fit(["cat"] * 5)


def test_labels_never_seen_are_named_with_rows() -> None:
    field = CategoryOutput(specs.CategoryOutput(name="label", categories=("cat", "dog")))
    with pytest.raises(DataError) as caught:
        field.clean(["cat", "cow", "dog", "eel"], lambda row: f"test.csv, row {row + 2}")
    text = str(caught.value)
    assert "'cow', 'eel'" in text
    assert "test.csv, row 3" in text
    assert "test.csv, row 5" in text


def test_rows_without_a_label_are_dropped() -> None:
    cleaned = CategoryOutput(specs.CategoryOutput(name="label")).clean(["a", None, ""], str)
    assert cleaned.keep.tolist() == [True, False, False]
    assert cleaned.issues[0].count == 2


def test_order_is_by_value_only_if_all_are_whole_numbers() -> None:
    assert in_order(["10", "9", "-1"]) == ("-1", "9", "10")
    assert in_order(["10", "9", "a"]) == ("10", "9", "a")
