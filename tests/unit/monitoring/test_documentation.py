"""The table of metrics in docs/monitoring.md is the program's."""

from __future__ import annotations

import re
from pathlib import Path

from yunmo.monitoring.families import FAMILIES, Family
from yunmo.monitoring.traces import _FACTS

PAGE = (Path(__file__).parents[3] / "docs" / "monitoring.md").read_text()


def row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"| `{family.sample}` | {family.kind} | {labels} | {family.meaning} |"


def test_every_metric_is_described_as_it_is_and_no_other() -> None:
    written = [line for line in PAGE.splitlines() if line.startswith("| `yunmo_")]
    assert written == [row(family) for family in FAMILIES]


def test_the_examples_name_metrics_that_there_are() -> None:
    endings = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
    known = {family.sample + ending for family in FAMILIES for ending in endings[family.kind]}
    known |= {family.sample for family in FAMILIES}
    assert set(re.findall(r"\byunmo_[a-z_]+", PAGE)) <= known


def test_what_a_span_says_is_described() -> None:
    for name in _FACTS.values():
        assert f"`{name}`" in PAGE
