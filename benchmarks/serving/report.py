"""What a run found: as text for the terminal, and as a dated page with a plot."""

from __future__ import annotations

import datetime as dt
import os
import platform
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Self

from benchmarks.serving import environments
from benchmarks.serving.cases import PEERS, Case
from benchmarks.serving.load import Result
from benchmarks.serving.places import ROOT
from benchmarks.serving.plot import Panel, bars
from yunmo import __version__

RESULTS = Path(__file__).with_name("results")
NAMES = {
    "yunmo": "Yunmo",
    "fastapi": "FastAPI",
    "fastapi-loop": "FastAPI, run on the loop",
    "litserve": "LitServe",
    "mlserver": "MLServer",
}


@dataclass(frozen=True)
class Measured:
    """One case of one server in one round."""

    per_second: float
    p50: float
    p99: float
    server_cpu: float
    """Processor seconds of the server for each second of the measurement: 2.0 is two cores full."""
    cpu_ms: float
    """Processor milliseconds of the server for each right answer."""
    load_cpu: float
    """As ``server_cpu``, of the load generator."""
    bad: int

    @classmethod
    def of(cls, result: Result, cpu: float, seconds: float, bad: int | None = None) -> Self:
        """Make it of a load's result and the processor seconds that the server took meanwhile."""
        answered = result.per_second * seconds
        return cls(
            per_second=result.per_second,
            p50=result.latency_ms.get("p50", 0.0),
            p99=result.latency_ms.get("p99", 0.0),
            server_cpu=cpu / seconds,
            cpu_ms=1000 * cpu / answered if answered else 0.0,
            load_cpu=result.cpu / seconds,
            bad=result.bad if bad is None else bad,
        )

    def __str__(self) -> str:
        text = f"{self.per_second:>8,.0f}/s  p50 {self.p50:8.2f} ms  p99 {self.p99:8.2f} ms"
        text += f"  server {self.server_cpu:4.2f} cores {self.cpu_ms:6.3f} ms each, load {self.load_cpu:4.2f}"
        return text + (f"  BAD {self.bad}" if self.bad else "")


@dataclass(frozen=True)
class Memory:
    """Proportional megabytes: of the processes that answer requests, and of the whole tree."""

    workers: float
    tree: float


@dataclass
class Outcome:
    """All that a run found."""

    cases: dict[tuple[str, str], list[Measured]] = field(default_factory=dict)
    """By server and case, one for each round."""
    raw: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """By model: rows a second by configuration, before and after."""
    memory: dict[str, list[tuple[Memory, Memory]]] = field(default_factory=dict)
    """By server: before and after load."""
    wrk: dict[str, float] = field(default_factory=dict)
    """By case: answers a second of Yunmo as wrk counts them."""

    def add(self, server: str, case: str, measured: Measured) -> None:
        """Take in one measurement."""
        self.cases.setdefault((server, case), []).append(measured)

    @property
    def bad(self) -> int:
        """Wrong, refused and missing answers of all servers."""
        return sum(one.bad for rounds in self.cases.values() for one in rounds)

    def median(self, server: str, case: str, what: str = "per_second") -> float | None:
        """Return the median over the rounds of one figure."""
        rounds = self.cases.get((server, case))
        return statistics.median(getattr(one, what) for one in rounds) if rounds else None

    def raw_best(self, model: str) -> tuple[str, float] | None:
        """Return the best configuration of ONNX Runtime alone and its rows a second, the mean of before and after."""
        rounds = self.raw.get(model)
        if not rounds:
            return None
        means = {name: statistics.mean(one[name] for one in rounds) for name in rounds[0]}
        best = max(means, key=means.__getitem__)
        return best, means[best]

    def share(self, server: str, case: Case) -> float | None:
        """Return answers a second as a share of ONNX Runtime alone."""
        raw, rate = self.raw_best(case.model), self.median(server, case.name)
        return rate / raw[1] if raw and rate is not None else None

    def servers(self) -> list[str]:
        """Return the servers that were measured, in the order of their first turn."""
        return list(dict.fromkeys(server for server, _ in self.cases))


def text(outcome: Outcome, cases: Sequence[Case]) -> str:
    """Return the result as tables of Markdown, which are legible on a terminal too."""
    parts = [_rates(outcome, cases), _latencies(outcome, cases), _ratios(outcome, cases), _memory(outcome)]
    parts += [_raw(outcome), _metrics(outcome, cases), _wrk(outcome)]
    return "\n\n".join(part for part in parts if part)


def dated_page() -> Path:
    """Return the page of today."""
    return RESULTS / f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d}.md"


def write(
    page: Path, outcome: Outcome, cases: Sequence[Case], *, seconds: float, rounds: int, names: Sequence[str]
) -> None:
    """Write the page and its plot."""
    page.parent.mkdir(parents=True, exist_ok=True)
    plot = page.with_suffix(".svg")
    shown = [name for name in outcome.servers() if name in NAMES]
    plot.write_text(bars("Answers a second", [NAMES[one] for one in shown], _panels(outcome, cases, shown)))
    lines = [
        f"# Serving, {page.stem}",
        "",
        f"`python benchmarks/serving/run.py --seconds {seconds:g} --rounds {rounds}`: medians of {rounds} rounds in"
        " which the servers took turns. Every answer was compared with ONNX Runtime's own"
        f" ({outcome.bad} wrong, refused or missing). Load generator and server shared the machine's cores. Yunmo had"
        " two data workers, its gate, validation, metrics and request log on; FastAPI two uvicorn workers, LitServe and"
        " MLServer two model workers; ONNX Runtime one thread in each.",
        "",
        f"![Answers a second by server and case]({plot.name})",
        "",
        text(outcome, cases),
        "",
        "## Machine",
        "",
        *machine(names),
        "",
    ]
    page.write_text("\n".join(lines))


def machine(names: Sequence[str] = ()) -> list[str]:
    """Return what it was measured on, as Markdown items."""
    names_ = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = names_[0].partition(":")[2].strip() if names_ else platform.machine()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    git = shutil.which("git") or "git"
    described = subprocess.run(
        [git, "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    commit = described.stdout.strip() or "no commit"
    yunmo = f"Yunmo {__version__} ({commit}), uvloop {version('uvloop')}"
    lines = [
        f"- {len(os.sched_getaffinity(0))} cores of {model}, {memory:.0f} GB, Linux {platform.release()}",
        f"- Python {platform.python_version()}, {yunmo}, onnxruntime {version('onnxruntime')}",
    ]
    return lines + [f"- {NAMES[name]}: {environments.describe(name)}" for name in names if name in PEERS]


def _panels(outcome: Outcome, cases: Sequence[Case], servers: Sequence[str]) -> list[Panel]:
    """Return the CNN's cases as shares of ONNX Runtime alone; the MLP's, of which that does far more, as they are."""
    shares = [(case, [outcome.share(server, case) for server in servers]) for case in cases if case.model == "cnn"]
    rates = [(case, [outcome.median(server, case.name) for server in servers]) for case in cases if case.model == "mlp"]
    panels = (
        ("CNN: share of ONNX Runtime alone", ".0%", shares, 1.0),
        ("MLP: answers a second", ",.0f", rates, 1.0),
    )
    return [
        Panel(title, form, [(_short(case), values) for case, values in groups], least)
        for title, form, groups, least in panels
        if any(value is not None for _, values in groups for value in values)
    ]


def _short(case: Case) -> str:
    return case.title.partition(", ")[2]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (cell.ljust(width) if not place else cell.rjust(width)
                          for place, (cell, width) in enumerate(zip(cells, widths, strict=True)))  # fmt: skip
        return "| " + " | ".join((first, *others)) + " |"

    rule = "|" + "|".join("-" * (width + 1) + ("-" if not place else ":") for place, width in enumerate(widths)) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


def _number(value: float | None, form: str = ",.0f") -> str:
    return "" if value is None else format(value, form)


def _rates(outcome: Outcome, cases: Sequence[Case]) -> str:
    servers = [one for one in outcome.servers() if one in NAMES]
    head = ["answers a second (CNN: share of ONNX Runtime alone)", *(NAMES[one] for one in servers)]
    rows = []
    for case in cases:
        row = [case.title if case.connections == 1 else f"{case.title}, {case.connections} connections"]
        for server in servers:
            rate, share = outcome.median(server, case.name), outcome.share(server, case)
            # The MLP's share would say nothing: it runs for microseconds, and batches of 16 make that less yet.
            row.append(_number(rate) + (f" ({share:.0%})" if share is not None and case.model == "cnn" else ""))
        rows.append(row)
    return _table(head, rows)


def _latencies(outcome: Outcome, cases: Sequence[Case]) -> str:
    servers = [one for one in outcome.servers() if one in NAMES]
    head = ["latency in ms: p50 / p99 (CPU ms an answer)", *(NAMES[one] for one in servers)]
    rows = []
    for case in cases:
        row = [case.title]
        for server in servers:
            p50, p99, cpu = (outcome.median(server, case.name, what) for what in ("p50", "p99", "cpu_ms"))
            row.append("" if p50 is None else f"{p50:.2f} / {p99:.2f} ({cpu:.3f})")
        rows.append(row)
    return _table(head, rows)


def _ratios(outcome: Outcome, cases: Sequence[Case]) -> str:
    peers = [one for one in outcome.servers() if one in PEERS]
    if "yunmo" not in outcome.servers() or not peers:
        return ""
    rows = []
    for case in cases:
        mine = outcome.median("yunmo", case.name)
        row = [case.title]
        for peer in peers:
            other = case.name if (peer, case.name) in outcome.cases else case.against or case.name
            theirs = outcome.median(peer, other)
            mark = "" if other == case.name else " *"
            row.append(f"{mine / theirs:.2f}x{mark}" if mine and theirs else "")
        rows.append(row)
    lines = [_table(["Yunmo's answers a second against", *(NAMES[one] for one in peers)], rows)]
    marked = [f"{case.title}: against `{case.against}`" for case in cases if case.against]
    if marked:
        lines.append("\\* " + "; ".join(marked) + ".")
    single, peer_single = (outcome.median(one, "mlp-one", "p50") for one in ("yunmo", "fastapi"))
    if single and peer_single:
        lines.append(f"One connection, p50 against FastAPI's: {single / peer_single:.2f}x.")
    grpc, rest = outcome.median("yunmo", "cnn-grpc"), outcome.median("yunmo", "cnn-binary")
    if grpc and rest:
        lines.append(f"gRPC against REST binary: {grpc / rest:.2f}x.")
    return "\n\n".join(lines)


def _memory(outcome: Outcome) -> str:
    rows = []
    for server in outcome.servers():
        if server in NAMES:
            rounds = outcome.memory[server]
            figures = [
                statistics.median(value)
                for value in (
                    [before.workers for before, _ in rounds],
                    [after.workers for _, after in rounds],
                    [after.tree for _, after in rounds],
                )
            ]
            rows.append([NAMES[server], *(f"{value:.0f}" for value in figures)])
    return _table(["memory in MB (proportional)", "workers, idle", "workers, after load", "all processes"], rows)


def _raw(outcome: Outcome) -> str:
    if not outcome.raw:
        return ""
    head = ["ONNX Runtime alone, rows a second (processes x threads)"]
    head += [f"{model}, {when}" for model in outcome.raw for when in ("before", "after")]
    configurations = next(iter(outcome.raw.values()))[0]
    rows = [
        [name, *(f"{one[name]:,.0f}" for rounds in outcome.raw.values() for one in rounds)] for name in configurations
    ]
    return _table(head, rows)


def _metrics(outcome: Outcome, cases: Sequence[Case]) -> str:
    rows = []
    for case in cases:
        on, off = (outcome.median(one, case.name) for one in ("yunmo", "yunmo-no-metrics"))
        cpu_on, cpu_off = (outcome.median(one, case.name, "cpu_ms") for one in ("yunmo", "yunmo-no-metrics"))
        if on and off and cpu_on and cpu_off:
            cost = f"{1000 * (cpu_on - cpu_off):+.1f}"
            rows.append([case.title, f"{on:,.0f}", f"{off:,.0f}", f"{on / off:.3f}", cost])
    head = ["Yunmo's metrics", "on, answers/s", "off, answers/s", "ratio", "CPU µs an answer"]
    return _table(head, rows) if rows else ""


def _wrk(outcome: Outcome) -> str:
    rows = []
    for case, rate in outcome.wrk.items():
        ours = outcome.median("yunmo", case)
        rows.append([case, _number(ours), f"{rate:,.0f}"])
    return _table(["cross-check of the load generator, Yunmo", "ours", "wrk"], rows) if rows else ""
