import re

import pytest
from tests.unit.training.made_reports import classified

from yunmo.training.plots import HEAT_CLASSES, Axes, comparison, confusion, shorten, ticks, training_curves


def rows(count):
    return [
        {"epoch": place, "train_loss": 1 / place, "validation_loss": 2 / place, "metric": "rmse", "value": 3 / place}
        for place in range(1, count + 1)
    ]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ((-3, 7), [-2, 0, 2, 4, 6]),
        ((1.2, 1.31), [1.2, 1.25, 1.3]),
    ],
)
def test_ticks_are_round(span, expected):
    assert ticks(*span) == pytest.approx(expected)


def test_whole_ticks_for_epochs():
    assert ticks(1, 3, whole=True) == [1, 2, 3]


def test_axes_place_values():
    axes = Axes((0, 10), (0, 1), (120, 120), (10, 10, 10, 10))
    assert (axes.x(0), axes.x(10), axes.y(0), axes.y(1)) == (10, 110, 110, 10)


def test_a_scale_without_extent_is_widened():
    axes = Axes((5, 5), (0, 0))
    assert axes.left < axes.x(5) < axes.right
    assert axes.top < axes.y(0) < axes.bottom


def test_training_curves_leave_out_what_is_not_a_number():
    history = rows(4)
    history[1]["train_loss"] = None
    history[2]["validation_loss"] = float("inf")
    (_, losses), _ = training_curves(history, 4)
    path = re.search(r'class="line"[^>]* d="([^"]*)"', losses).group(1)
    assert path.count("L") == 1
    assert training_curves(rows(1), 1) == []


def test_confusion_marks_mistakes_with_their_counts():
    picture = confusion([[3, 1], [0, 6]], ["cat", "dog"])
    assert "cat taken for dog: 1 of 4 (25.0%)" in picture
    assert "dog taken for cat" not in picture
    assert confusion([[0] * (HEAT_CLASSES + 1)] * (HEAT_CLASSES + 1), ["x"] * (HEAT_CLASSES + 1)) is None


def test_a_longer_bar_is_a_greater_value():
    good, bad = classified("ab", noise=0.2), classified("ab", noise=5.0)
    widths = re.findall(r'class="bar[^>]* width="([\d.]+)"', comparison("accuracy", [("Good", good), ("Bad", bad)]))
    assert float(widths[0]) > float(widths[1]) > 0


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [("short", 10, "short"), ("a long name", 6, "a lon…"), ("猫猫猫猫", 6, "猫猫…"), ("猫猫", 4, "猫猫")],
)
def test_shorten_counts_wide_letters_twice(text, most, expected):
    assert shorten(text, most) == expected
