"""The report's plots as inline SVG, drawn directly.

Text stays text and colors are CSS variables of the page, so a plot follows the reader's light or dark scheme and shows
any script that the browser has a font for. Nothing here is trusted: every label is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from yunmo.training.report import LABELS, SHARES, format_metric, format_number

Point = tuple[float, float]
SERIES = 8
"""Colors that the page defines: ``--s0`` to ``--s7``."""
HEAT_CLASSES = 30
"""More classes than this are not legible as a heat map."""
CELL_TEXT_CLASSES = 20
MARKED_EPOCHS = 60
_WIDE = "ᄀ"
"""From here on, characters are about twice as wide (Chinese, Japanese, Korean)."""


class Axes:
    """A rectangle with two linear scales: turns data into SVG elements.

    Args:
        x: least and greatest value across.
        y: least and greatest value upwards.
        size: width and height of the picture, in pixels.
        margins: left, top, right and bottom, in pixels.
    """

    def __init__(
        self, x: Point, y: Point, size: Point = (460, 300), margins: tuple[float, ...] = (64, 14, 26, 42)
    ) -> None:
        self.size = size
        self._x, self._y = _spread(x), _spread(y)
        self.left, self.top = margins[0], margins[1]
        self.right, self.bottom = size[0] - margins[2], size[1] - margins[3]
        self.parts: list[Markup] = []

    def x(self, value: float) -> float:
        """Return the place of a value, in pixels from the left."""
        share = (value - self._x[0]) / (self._x[1] - self._x[0])
        return round(self.left + share * (self.right - self.left), 1)

    def y(self, value: float) -> float:
        """Return the place of a value, in pixels from the top."""
        share = (value - self._y[0]) / (self._y[1] - self._y[0])
        return round(self.bottom - share * (self.bottom - self.top), 1)

    def add(self, template: str, *values: object) -> None:
        """Add an element; values are escaped."""
        self.parts.append(Markup(template).format(*values))  # noqa: S704 - templates are constants of this module

    def text(self, at: Point, text: object, *, anchor: str = "middle", kind: str = "tick") -> None:
        """Add a text."""
        self.add('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>', kind, at[0], at[1], anchor, text)

    def grid(self, x_label: str, y_label: str, *, whole: bool = False, percent: bool = False) -> None:
        """Add grid, ticks and labels. ``whole``: only whole numbers across; ``percent``: both scales are shares."""
        show = _percent if percent else _compact
        for value in ticks(*self._y):
            self.add('<path class="grid" d="M{} {}H{}"/>', self.left, self.y(value), self.right)
            self.text((self.left - 8, self.y(value) + 4), show(value), anchor="end")
        for value in ticks(*self._x, whole=whole):
            self.text((self.x(value), self.bottom + 18), show(value))
        self.text(((self.left + self.right) / 2, self.size[1] - 6), x_label, kind="label")
        middle = (self.top + self.bottom) / 2
        self.add(
            '<text class="label" text-anchor="middle" transform="translate(12 {}) rotate(-90)">{}</text>',
            middle,
            y_label,
        )

    def line(self, points: Sequence[Point], color: int, *, title: str = "") -> None:
        """Add a line through points."""
        path = "M" + "L".join(f"{self.x(x)} {self.y(y)}" for x, y in points)
        self.add(
            '<path class="line" style="stroke:var(--s{})" d="{}"><title>{}</title></path>', color % SERIES, path, title
        )

    def dot(self, at: Point, color: int, *, radius: float = 3, title: str = "", kind: str = "dot") -> None:
        """Add a dot with a title that shows when it is pointed at."""
        self.add(
            '<circle class="{}" style="fill:var(--s{})" cx="{}" cy="{}" r="{}"><title>{}</title></circle>',
            kind,
            color % SERIES,
            self.x(at[0]),
            self.y(at[1]),
            radius,
            title,
        )

    def bar(self, x: Point, y: float, color: int, *, title: str = "", kind: str = "bar") -> None:
        """Add an upright bar from 0 to a height."""
        left, right, top = self.x(x[0]), self.x(x[1]), self.y(y)
        self.add(
            '<rect class="{}" style="fill:var(--s{})" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>',
            kind,
            color % SERIES,
            left,
            top,
            round(max(right - left - 1, 0.5), 1),
            round(self.y(0) - top, 1),
            title,
        )

    def svg(self, title: str) -> Markup:
        """Return the picture."""
        width, height = (round(side) for side in self.size)
        picture = Markup('<svg viewBox="0 0 {} {}" style="max-width:{}px" role="img" aria-label="{}">{}</svg>')
        return picture.format(width, height, width * 1.25, title, Markup("").join(self.parts))


def ticks(low: float, high: float, *, whole: bool = False, about: int = 5) -> list[float]:
    """Return round values between two others."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    if whole:
        step = max(1.0, round(step))
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 12) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def training_curves(history: Sequence[Mapping[str, Any]], kept: int | None) -> list[tuple[str, Markup]]:
    """Draw losses, and the validation metric, by epoch; the kept epoch is marked.

    Returns:
        Captions and pictures; none where fewer than two epochs were run.
    """
    shown = ("train_loss", "validation_loss", "value")
    epochs = [row for row in history if all(row[key] is not None and math.isfinite(row[key]) for key in shown)]
    if len(epochs) < 2:
        return []
    span = (float(epochs[0]["epoch"]), float(epochs[-1]["epoch"]))
    losses = [float(row[key]) for row in epochs for key in ("train_loss", "validation_loss")]
    axes = Axes(span, (min(0.0, *losses), max(losses)))
    axes.grid("epoch", "loss", whole=True)
    for color, (key, name) in enumerate((("train_loss", "training"), ("validation_loss", "validation"))):
        axes.line([(row["epoch"], row[key]) for row in epochs], color, title=name)
    _legend(axes, ["training", "validation"])
    metric = str(epochs[0]["metric"])
    name = LABELS.get(metric, metric)
    return [
        ("Loss", axes.svg("Loss by epoch")),
        (f"{name} on validation", _validation_curve(epochs, metric, kept).svg(f"{name} by epoch")),
    ]


def _validation_curve(epochs: Sequence[Mapping[str, Any]], metric: str, kept: int | None) -> Axes:
    values = [float(row["value"]) for row in epochs]
    reach = (max(values) - min(values)) * 0.05
    span = (float(epochs[0]["epoch"]), float(epochs[-1]["epoch"]))
    axes = Axes(span, (min(values) - reach, max(values) + reach))
    axes.grid("epoch", LABELS.get(metric, metric).lower(), whole=True)
    axes.line([(row["epoch"], row["value"]) for row in epochs], 1, title=metric)
    for row in epochs:
        at, text = (row["epoch"], row["value"]), f"epoch {row['epoch']}: {format_metric(metric, row['value'])}"
        if row["epoch"] == kept:
            axes.add('<path class="ideal" d="M{} {}V{}"/>', axes.x(at[0]), axes.top, axes.bottom)
            axes.dot(at, 2, radius=6, title=f"{text}, kept", kind="best")
            free = axes.bottom - 12 if values[-1] > values[0] else axes.top + 14
            right = axes.x(at[0]) > (axes.left + axes.right) / 2
            place = (axes.x(at[0]) + (-10 if right else 10), free)
            axes.text(place, f"{text}, kept", anchor="end" if right else "start", kind="note")
        elif len(epochs) <= MARKED_EPOCHS:
            axes.dot(at, 1, radius=2.5, title=text)
    return axes


def confusion(matrix: Sequence[Sequence[int]], categories: Sequence[str]) -> Markup | None:
    """Draw a confusion matrix as a heat map, colored by the share of each true class; None for too many classes."""
    classes = len(categories)
    if classes > HEAT_CLASSES:
        return None
    names = [shorten(name, 18) for name in categories]
    widest = max(_width(name) for name in names)
    cell = max(15.0, min(84.0, 460.0 / classes))
    upright = widest * 7 + 8 > cell
    left, top = widest * 7 + 34.0, 22.0
    below = (widest * 7 * 0.72 + 46.0) if upright else 44.0
    size = (left + cell * classes + max(14.0, widest * 2.0 if upright else 0), top + cell * classes + below)
    axes = Axes((0, classes), (0, classes), size, (left, top, size[0] - left - cell * classes, below))
    axes.add(
        '<rect class="board" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="6"/>',
        left - 1,
        top - 1,
        cell * classes + 2,
        cell * classes + 2,
    )
    for row, counts in enumerate(matrix):
        total = sum(counts)
        middle = top + (row + 0.5) * cell
        axes.text((left - 8, middle + 4), names[row], anchor="end")
        for column, count in enumerate(counts):
            share = count / total if total else 0.0
            if not count and row != column:
                continue
            title = f"{names[row]} taken for {names[column]}: {count:,} of {total:,} ({share:.1%})"
            _cell(axes, (left + column * cell, top + row * cell), cell, share, row == column, title)
            if count and classes <= CELL_TEXT_CLASSES:
                _count(axes, (left + (column + 0.5) * cell, middle), cell, count, share)
    for column, name in enumerate(names):
        x, y = left + (column + 0.5) * cell, top + cell * classes + 16
        if upright:
            axes.add(
                '<text class="tick" text-anchor="end" transform="translate({} {}) rotate(-45)">{}</text>',
                x + 4,
                y,
                name,
            )
        else:
            axes.text((x, y), name)
    axes.text((left + cell * classes / 2, size[1] - 6), "predicted", kind="label")
    axes.add(
        '<text class="label" text-anchor="middle" transform="translate(12 {}) rotate(-90)">true</text>',
        top + cell * classes / 2,
    )
    return axes.svg("Confusion matrix")


def _cell(axes: Axes, at: Point, cell: float, share: float, right: bool, title: str) -> None:
    axes.add(
        '<rect class="cell" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="3" '
        'style="fill:var({});fill-opacity:{:.2f}"><title>{}</title></rect>',
        at[0] + 1,
        at[1] + 1,
        cell - 2,
        cell - 2,
        "--s0" if right else "--wrong",
        share if right else 0.12 + 0.88 * math.sqrt(share),
        title,
    )


def _count(axes: Axes, at: Point, cell: float, count: int, share: float) -> None:
    size = min(15.0, cell * 0.36, cell * 1.5 / len(f"{count:,}"))
    axes.add(
        '<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="middle" style="font-size:{:.1f}px">{}</text>',
        "on" if share > 0.55 else "off",
        at[0],
        at[1] + size * 0.35,
        size,
        f"{count:,}",
    )


def reliability(bins: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw accuracy against confidence: on the diagonal, the model knows how sure it may be."""
    axes = Axes((0, 1), (0, 1), (380, 340))
    axes.grid("confidence", "accuracy", percent=True)
    total = sum(place["count"] for place in bins)
    axes.add('<path class="ideal" d="M{} {}L{} {}"/>', axes.x(0), axes.y(0), axes.x(1), axes.y(1))
    for place in bins:
        if place["count"]:
            title = f"{place['count']:,} rows, confidence {place['confidence']:.1%}, accuracy {place['accuracy']:.1%}"
            axes.bar((place["low"], place["high"]), place["accuracy"], 0, title=title, kind="bar soft")
    for place in bins:
        if place["count"]:
            radius = 3 + 7 * math.sqrt(place["count"] / total)
            axes.dot(
                (place["confidence"], place["accuracy"]), 0, radius=round(radius, 1), title=f"{place['count']:,} rows"
            )
    return axes.svg("Reliability diagram")


def roc(curves: Mapping[str, Mapping[str, Sequence[float]]], areas: Mapping[str, float | None]) -> Markup | None:
    """Draw ROC curves, one a class; None where there are none."""
    if not curves:
        return None
    axes = Axes((0, 1), (0, 1), (380, 340))
    axes.grid("false positive rate", "true positive rate", percent=True)
    axes.add('<path class="ideal" d="M{} {}L{} {}"/>', axes.x(0), axes.y(0), axes.x(1), axes.y(1))
    for color, (name, curve) in enumerate(curves.items()):
        points = list(zip(curve["false_positive_rate"], curve["true_positive_rate"], strict=True))
        axes.line(points, color, title=f"{name}: {areas.get(name) or 0:.3f}")
    labels = [f"{shorten(name, 16)}  {areas.get(name) or 0:.3f}" for name in curves]
    _legend(axes, labels[:SERIES], at=(axes.x(1) - 14, axes.y(0) - 12 - 17 * (min(len(labels), SERIES) - 1)))
    return axes.svg("ROC curves")


def estimates(pairs: Sequence[Sequence[float]]) -> Markup:
    """Draw predicted against true numbers."""
    values = [value for pair in pairs for value in pair]
    span = (min(values), max(values))
    axes = Axes(span, span, (380, 340))
    axes.grid("true", "predicted")
    low, high = _spread(span)
    axes.add('<path class="ideal" d="M{} {}L{} {}"/>', axes.x(low), axes.y(low), axes.x(high), axes.y(high))
    for true, predicted in pairs:
        axes.dot((true, predicted), 0, title=f"true {format_number(true)}, predicted {format_number(predicted)}")
    return axes.svg("Predicted against true numbers")


def residuals(histogram: Mapping[str, Sequence[float]]) -> Markup:
    """Draw how many rows were estimated too low or too high, and by how much."""
    edges, counts = histogram["edges"], histogram["counts"]
    axes = Axes((edges[0], edges[-1]), (0, max(counts)), (380, 340))
    axes.grid("predicted − true", "rows")
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        if count:
            title = f"{format_number(low)} to {format_number(high)}: {int(count):,} rows"
            axes.bar((low, high), count, 0, title=title)
    axes.add('<path class="ideal" d="M{} {}V{}"/>', axes.x(0), axes.top, axes.bottom)
    return axes.svg("Residuals")


def comparison(metric: str, entries: Sequence[tuple[str, Mapping[str, Any]]]) -> Markup:
    """Draw a metric of several models as bars with 95 % intervals; the first one is the network."""
    bounds = [values["intervals"].get(metric, (values[metric],) * 2) for _, values in entries]
    highest = 1.0 if metric in SHARES else max(high for _, high in bounds) or 1.0
    axes = Axes((0, highest), (0, len(entries)), (1030, 26.0 + 44 * len(entries)), (150, 4, 96, 24))
    for value in ticks(0, highest):
        axes.add('<path class="grid" d="M{} {}V{}"/>', axes.x(value), axes.top, axes.bottom)
        axes.text((axes.x(value), axes.bottom + 17), _percent(value) if metric in SHARES else _compact(value))
    for place, ((name, values), (low, high)) in enumerate(zip(entries, bounds, strict=True)):
        middle = axes.y(len(entries) - place - 0.5)
        axes.text((axes.left - 10, middle + 4), name, anchor="end", kind="name")
        axes.add(
            '<rect class="{}" style="fill:var(--s0)" x="{}" y="{}" width="{:.1f}" height="24" rx="4"/>',
            "bar" if place == 0 else "bar soft",
            axes.left,
            middle - 12,
            max(1.0, axes.x(values[metric]) - axes.left),
        )
        axes.add(
            '<path class="interval" d="M{0} {1}H{2}M{0} {3}v10M{2} {3}v10"/>',
            axes.x(low),
            middle,
            axes.x(high),
            middle - 5,
        )
        axes.text((axes.right + 12, middle + 4), format_metric(metric, values[metric]), anchor="start", kind="value")
    return axes.svg(f"{metric} of the network and the baselines")


def shorten(text: str, most: int) -> str:
    """Cut a text to a width, counted in Latin letters; Chinese, Japanese and Korean ones count twice."""
    if _width(text) <= most:
        return text
    kept = ""
    for letter in text:
        if _width(kept + letter) > most - 1:
            break
        kept += letter
    return kept + "…"


def _width(text: str) -> int:
    return sum(2 if letter >= _WIDE else 1 for letter in text)


def _legend(axes: Axes, labels: Sequence[str], *, at: Point | None = None) -> None:
    x, y = at or (axes.right - 14, axes.top + 12)
    for place, label in enumerate(labels):
        axes.add(
            '<circle style="fill:var(--s{})" cx="{}" cy="{}" r="4.5"/>', place % SERIES, x, round(y + 17 * place, 1)
        )
        axes.text((x - 10, round(y + 17 * place + 4, 1)), label, anchor="end", kind="tick")


def _spread(span: Point) -> Point:
    """Widen a scale that has no extent, so that it can be divided by."""
    low, high = span
    if high - low > 1e-9 * max(abs(low), abs(high), 1e-300):
        return low, high
    reach = abs(low) * 0.05 or 0.5
    return low - reach, high + reach


def _compact(value: float) -> str:
    """Format a tick: thousands and millions as k and M, so that it fits beside its axis."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size <= abs(value) < 1e12:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return format_number(value)


def _percent(value: float) -> str:
    return f"{value:.0%}".replace("%", " %")
