"""Bars as an SVG picture that follows the reader's light or dark scheme. Drawn directly; text stays text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _LEFT, _RIGHT, _TOP = 880, 270, 90, 74
_BAR, _GAP, _BETWEEN, _HEADING, _AXIS = 15, 3, 20, 34, 34
_COLORS = ("#0f766e", "#b45309", "#7c3aed", "#be123c", "#1d4ed8", "#4d7c0f")
_DARK = ("#2dd4bf", "#fbbf24", "#a78bfa", "#fb7185", "#60a5fa", "#a3e635")


@dataclass(frozen=True)
class Panel:
    """Bars on one scale.

    Args:
        title: what the scale is.
        form: format of its numbers, such as ``.0%``.
        groups: title of a case and the values in the order of the series; None draws no bar.
        least: the scale reaches this far at least.
    """

    title: str
    form: str
    groups: Sequence[tuple[str, Sequence[float | None]]]
    least: float = 0.0


def bars(title: str, series: Sequence[str], panels: Sequence[Panel]) -> str:
    """Draw horizontal bars below one another, one group for each case, one bar for each server.

    Args:
        title: of the picture.
        series: names of the servers.
        panels: each with a scale of its own.

    Returns:
        The SVG document.
    """
    parts = [_style(len(series)), f'<text class="title" x="{_LEFT}" y="26">{escape(title)}</text>', *_legend(series)]
    y = float(_TOP)
    for panel in panels:
        y = _panel(parts, panel, series, y)
    return _document(y, title, parts)


def _panel(parts: list[str], panel: Panel, series: Sequence[str], y: float) -> float:
    """Draw a panel from a height downwards and return the height below it."""
    groups = [(name, [(place, value) for place, value in enumerate(each) if value is not None])
              for name, each in panel.groups]  # fmt: skip
    parts.append(f'<text class="name heading" x="{_LEFT}" y="{y + 12:.1f}">{escape(panel.title)}</text>')
    top = y = y + _HEADING
    bottom = y + sum(len(each) * (_BAR + _GAP) + _BETWEEN for _, each in groups) - _BETWEEN / 2
    greatest = max([value for _, each in groups for _, value in each] + [panel.least])
    step = _step(greatest)
    scale = (_WIDTH - _LEFT - _RIGHT) / greatest
    for number in range(int(greatest / step + 1e-9) + 1):
        x = _LEFT + number * step * scale
        parts.append(f'<path class="grid" d="M{x:.1f} {top - 8:.1f}V{bottom:.1f}"/>')
        label = format(number * step, panel.form)
        parts.append(f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="{bottom + 16:.1f}">{label}</text>')
    for name, each in groups:
        middle = y + len(each) * (_BAR + _GAP) / 2 + 3
        parts.append(f'<text class="name" text-anchor="end" x="{_LEFT - 12}" y="{middle:.1f}">{escape(name)}</text>')
        for place, value in each:
            width = max(1.0, value * scale)
            text = format(value, panel.form)
            parts.append(
                f'<rect class="s{place}" x="{_LEFT}" y="{y:.1f}" width="{width:.1f}" height="{_BAR}" rx="2">'
                f"<title>{escape(series[place])}: {text}</title></rect>"
            )
            at = f'x="{_LEFT + width + 6:.1f}" y="{y + _BAR - 3.5:.1f}"'
            parts.append(f'<text class="value" {at}>{text}</text>')
            y += _BAR + _GAP
        y += _BETWEEN
    return bottom + _AXIS


def _step(greatest: float) -> float:
    """Return a round distance of ticks: about five to a scale."""
    power = 10.0 ** math.floor(math.log10(greatest / 5))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= greatest / 5 * 0.999)


def lines(
    title: str,
    axes: tuple[str, str],
    series: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    mark: float | None = None,
) -> str:
    """Draw lines over time.

    Args:
        title: of the picture.
        axes: what is across and what is upwards.
        series: names, and points (across, upwards) in order.
        mark: height of a dashed line.

    Returns:
        The SVG document.
    """
    height, left, bottom = 380, 70, 330
    points = [point for _, each in series for point in each]
    across = max((x for x, _ in points), default=1.0) or 1.0
    upwards = max([y for _, y in points] + [mark or 0.0], default=1.0) * 1.05 or 1.0
    right = _WIDTH - 20
    parts = [_style(len(series)), f'<text class="title" x="{left}" y="26">{escape(title)}</text>']
    parts += _legend([name for name, _ in series], left)
    for step in range(6):
        x, y = left + step / 5 * (right - left), bottom - step / 5 * (bottom - _TOP)
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>')
        value = f"{upwards * step / 5:,.0f}"
        parts.append(f'<text class="tick" text-anchor="end" x="{left - 8}" y="{y + 4:.1f}">{value}</text>')
        parts.append(
            f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="{bottom + 18}">{across * step / 5:.0f}</text>'
        )
    if mark is not None:
        y = bottom - mark / upwards * (bottom - _TOP)
        parts.append(f'<path class="mark" d="M{left} {y:.1f}H{right}"/>')
    for place, (name, each) in enumerate(series):
        path = "L".join(
            f"{left + x / across * (right - left):.1f} {bottom - y / upwards * (bottom - _TOP):.1f}" for x, y in each
        )
        if path:
            parts.append(f'<path class="line l{place}" d="M{path}"><title>{escape(name)}</title></path>')
    parts.append(f'<text class="tick" text-anchor="end" x="{right}" y="{height - 8}">{escape(axes[0])}</text>')
    parts.append(f'<text class="tick" x="{left}" y="{_TOP - 12}">{escape(axes[1])}</text>')
    return _document(height, title, parts)


def _document(height: float, title: str, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" role="img"'
    return f'{head} aria-label="{escape(title)}">\n' + "\n".join(parts) + "\n</svg>\n"


def _legend(series: Sequence[str], left: int = _LEFT) -> list[str]:
    parts, x = [], float(left)
    for place, name in enumerate(series):
        parts.append(f'<rect class="s{place}" x="{x:.0f}" y="38" width="12" height="12" rx="2"/>')
        parts.append(f'<text class="value" x="{x + 17:.0f}" y="48.5">{escape(name)}</text>')
        x += 40 + 7.5 * len(name)
    return parts


def _style(series: int) -> str:
    def colors(chosen: Sequence[str]) -> str:
        pairs = list(enumerate(chosen[:series]))
        return "".join(f".s{place}{{fill:{color}}}.l{place}{{stroke:{color}}}" for place, color in pairs)

    return (
        "<style>text{font-family:system-ui,sans-serif;fill:#1f2937}.title{font-size:16px;font-weight:600}"
        ".name{font-size:13px}.heading{font-weight:600}.value,.tick{font-size:12px}.tick{fill:#6b7280}.grid{stroke:#e5e7eb;fill:none}"
        ".line{fill:none;stroke-width:2}.mark{fill:none;stroke:#6b7280;stroke-dasharray:5 4}"
        + colors(_COLORS)
        + "@media(prefers-color-scheme:dark){text{fill:#e5e7eb}.tick{fill:#9ca3af}.grid{stroke:#374151}"
        + ".mark{stroke:#9ca3af}"
        + colors(_DARK)
        + "}</style>"
    )
