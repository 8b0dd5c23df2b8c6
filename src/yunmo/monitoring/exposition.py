"""The page of metrics: Prometheus' text format 0.0.4, or OpenMetrics 1.0 for those who ask for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate

from yunmo.monitoring.families import Family

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Page:
    """A page that is being written.

    Args:
        openmetrics: the format; else it is Prometheus' own.
    """

    def __init__(self, *, openmetrics: bool) -> None:
        self._openmetrics = openmetrics
        self._lines: list[str] = []

    def head(self, family: Family) -> None:
        """Begin a metric: what follows is its samples."""
        name = family.name if self._openmetrics else family.sample
        meaning = family.meaning.replace("\\", r"\\").replace("\n", r"\n")
        if self._openmetrics:
            meaning = meaning.replace('"', r"\"")
        self._lines += (f"# HELP {name} {meaning}", f"# TYPE {name} {family.kind}")

    def sample(self, family: Family, labels: Sequence[str], value: float) -> None:
        """Add a sample of a counter or gauge."""
        self._lines.append(f"{family.sample}{_braces(_pairs(family, labels))} {_number(value)}")

    def histogram(self, family: Family, labels: Sequence[str], cells: Sequence[float]) -> None:
        """Add a histogram.

        Args:
            family: it.
            labels: their values.
            cells: what fell into each bucket, what lay above all, and the sum.
        """
        pairs = _pairs(family, labels)
        *counts, total = cells
        bounds = (*map(_number, family.bounds), "+Inf")
        for bound, count in zip(bounds, accumulate(counts), strict=True):
            braces = _braces([*pairs, f'le="{bound}"'])
            self._lines.append(f"{family.name}_bucket{braces} {_number(count)}")
        self._lines.append(f"{family.name}_count{_braces(pairs)} {_number(sum(counts))}")
        self._lines.append(f"{family.name}_sum{_braces(pairs)} {_number(total)}")

    def end(self) -> tuple[bytes, str]:
        """Return the page and its media type."""
        last = ["# EOF", ""] if self._openmetrics else [""]
        return "\n".join([*self._lines, *last]).encode(), OPENMETRICS if self._openmetrics else TEXT


def wants_openmetrics(accept: str) -> bool:
    """Say whether the value of an Accept header prefers OpenMetrics (RFC 9110, 12.5.1)."""
    shares = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.split(","):
        kind, *parameters = (each.strip().lower() for each in part.split(";"))
        quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        try:
            share = float(quality)
        except ValueError:
            continue
        if kind in shares:
            shares[kind] = max(shares[kind], share)
    return shares["application/openmetrics-text"] > 0.0 and (
        shares["application/openmetrics-text"] >= shares["text/plain"]
    )


def _pairs(family: Family, labels: Iterable[str]) -> list[str]:
    return [f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(family.labels, labels, strict=True)]


def _braces(pairs: Sequence[str]) -> str:
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _number(value: float) -> str:
    """Return a number as both formats have it: whole ones with ``.0``, as OpenMetrics asks of bounds."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(float(value))
