"""What Yunmo does with more than it can: 1, 2, 5 and 10 times its capacity, and the time after.

``python benchmarks/serving/overload.py [--seconds S] [--case CASE] [--times 1,2,5,10] [--limit S] [--output FILE]``

First the capacity is measured: as many right answers as 64 callers get that ask again at once. Then requests come at
random at multiples of that rate, whatever the server does, over many connections. Goodput are right answers a second,
held against the mean of the capacities measured right before and right after; p99 is that of accepted requests. A
prober asks ``/healthz`` ten times a second all the while, each time over a new connection. After each overload, half
of the capacity goes on, and the time is taken until answers come as they did before. The load generator takes its
share of the same cores, the more the higher the rate: it is printed beside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.serving import cases, load, models, processes, report
from benchmarks.serving.cases import BY_NAME, Case, Sample
from benchmarks.serving.load import Phase, Result, Variant
from benchmarks.serving.places import Failed, cache_folder
from benchmarks.serving.plot import lines
from benchmarks.serving.servers import Running, YunmoServer

CLOSED_CONNECTIONS = 64
CALM = 0.5
"""Share of the capacity that comes before and after an overload."""
BEFORE, RECOVERY = 3.0, 10.0
PROBES = 10.0
_SLICE = 0.1
_WINDOW = 5
"""Recovered: for so many slices, as many answers as half the capacity, none refused, as fast as before (within
`_SLOWER` times, plus `_SLACK_MS`)."""
_SLOWER, _SLACK_MS = 3.0, 20.0


@dataclass(frozen=True)
class Overload:
    """What one rate came to."""

    times: float
    capacity: float
    """Mean of what was measured right before and right after, a second."""
    result: Result
    unanswered: int
    bad: int
    recovery: float | None
    """Seconds until answers came as before; None: not within `RECOVERY`."""
    health: Result
    server_cpu: float
    timeline: list[tuple[int, int, int, float]]


def capacity(running: Running, requests: Path, seconds: float) -> float:
    """Return how many right answers a second `CLOSED_CONNECTIONS` callers get."""
    phases = [Phase(0, 2.0), Phase(0, seconds)]
    done = load.run(running.port, requests, phases, connections=CLOSED_CONNECTIONS).phases[1]
    if done.bad:
        raise Failed(f"{done.bad} requests went wrong before there was any overload")
    return done.per_second


def overload(
    running: Running, requests: Path, probe: Path, rate: float, times: float, seconds: float, connections: int
) -> Overload:
    """Load at a multiple of the capacity, with a calm time before and after; then measure the capacity again."""
    phases = [Phase(CALM * rate, BEFORE), Phase(times * rate, seconds), Phase(CALM * rate, RECOVERY)]
    whole = sum(phase.seconds for phase in phases)
    pids = running.pids()
    began = processes.cpu_seconds(pids)
    prober = load.start(running.port, probe, [Phase(PROBES, whole)], connections=4, fresh=True)
    try:
        done = load.run(running.port, requests, phases, connections=connections)
    finally:
        health = load.finish(prober, [Phase(PROBES, whole)])
    cpu = processes.cpu_seconds(pids) - began
    after = capacity(running, requests, seconds)
    every = [*done.phases, done.after]
    return Overload(
        times=times,
        capacity=(rate + after) / 2,
        result=done.phases[1],
        unanswered=sum(each.unanswered for each in every),
        bad=sum(each.bad for each in every),
        recovery=_recovery(done, rate, seconds),
        health=health.phases[0],
        server_cpu=cpu / whole,
        timeline=done.timeline,
    )


def _recovery(done: load.Load, rate: float, seconds: float) -> float | None:
    """Return the seconds from the end of the overload until answers come as before it."""
    first, last = round(1.0 / _SLICE), round(BEFORE / _SLICE)
    usual = statistics.median(slowest for *_, slowest in done.timeline[first:last])
    enough = 0.8 * CALM * rate * _SLICE * _WINDOW
    start = round((BEFORE + seconds) / _SLICE)
    for place in range(start, len(done.timeline) - _WINDOW + 1):
        window = done.timeline[place : place + _WINDOW]
        quick = statistics.median(slowest for *_, slowest in window) <= _SLOWER * usual + _SLACK_MS
        if (
            quick
            and sum(ok for ok, *_ in window) >= enough
            and not any(refused + other for _, refused, other, _ in window)
        ):
            return (place - start) * _SLICE
    return None


def table(found: Sequence[Overload]) -> str:
    """Return what was found as a table of Markdown."""
    lines_ = [
        "| load | sent/s | goodput/s | of capacity | p50 ms | p99 ms | refused | failed, lost | not sent"
        " | with Retry-After | recovery s | /healthz p50, max ms | load generator, cores |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for each in found:
        one = each.result
        recovery = f"> {RECOVERY:g}" if each.recovery is None else f"{each.recovery:.1f}"
        told = f"{one.retry_after / one.refused:.0%}" if one.refused else ""
        health = f"{each.health.latency_ms['p50']:.1f}, {each.health.latency_ms['max']:.1f}"
        if each.health.bad or each.health.refused or each.health.unsent:
            health += f" ({each.health.bad + each.health.refused + each.health.unsent} missing)"
        lines_.append(
            f"| {each.times:g}x | {one.sent / one.seconds:,.0f} | {one.per_second:,.0f}"
            f" | {one.per_second / each.capacity:.0%}"
            f" | {one.latency_ms['p50']:.1f} | {one.latency_ms['p99']:.1f} | {one.refused:,} | {each.bad:,}"
            f" | {one.unsent:,} | {told} | {recovery} | {health} | {one.cpu / one.seconds:.2f} |"
        )
    return "\n".join(lines_)


def measure(
    samples: dict[str, list[Sample]],
    files: dict[str, Path],
    case: Case,
    multiples: Sequence[float],
    seconds: float,
    connections: int,
    limit: float,
) -> list[Overload]:
    """Start Yunmo, and return what each multiple of its capacity came to."""
    with (
        YunmoServer("yunmo", files, {"YUNMO_REQUEST_TIMEOUT": f"{limit:g}"}).start("all") as running,
        tempfile.TemporaryDirectory() as folder,
    ):
        requests = load.write_requests(running.variants(case, samples[case.model]), Path(folder, "requests"))
        health = Variant(load.request("GET", "/healthz", {}), [], None)
        probe = load.write_requests([health], Path(folder, "probe"))
        rate = capacity(running, requests, seconds)
        print(f"capacity: {rate:,.0f} answers a second ({case.title}, {CLOSED_CONNECTIONS} callers)", flush=True)
        found: list[Overload] = []
        for times in multiples:
            one = overload(running, requests, probe, rate, times, seconds, connections)
            found.append(one)
            rate = 2 * one.capacity - rate  # what was measured last
            print(
                f"{times:g}x: goodput {one.result.per_second:,.0f}/s of {one.capacity:,.0f},"
                f" p99 {one.result.latency_ms['p99']:.0f} ms,"
                f" refused {one.result.refused:,}, recovery {one.recovery}, status {json.dumps(one.result.status)}",
                flush=True,
            )
    return found


def picture(found: Sequence[Overload]) -> str:
    """Draw goodput over time for each multiple; the dashed line is the mean capacity."""
    rate = statistics.mean(each.capacity for each in found)
    series = []
    for each in found:
        oks = [ok / _SLICE for ok, *_ in each.timeline]
        steps = range(0, len(oks) - 4, 5)
        series.append(
            (f"{each.times:g}x", [((place + 2.5) * _SLICE, statistics.mean(oks[place : place + 5])) for place in steps])
        )
    return lines("Right answers a second: calm, overload, calm", ("seconds", "answers a second"), series, rate)


def main() -> int:
    """Measure, print and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each overload, and of measuring capacity [10]")
    parser.add_argument("--case", choices=[one for one in BY_NAME if BY_NAME[one].body != "grpc"], default="cnn-jpeg")
    parser.add_argument("--times", default="1,2,5,10", help="multiples of the capacity [1,2,5,10]")
    parser.add_argument("--limit", type=float, default=0.5, help="seconds that a request may take [0.5]")
    parser.add_argument("--connections", type=int, default=1024, help="[1024]")
    parser.add_argument("--output", type=Path, help="the page [results/DATE-overload.md]; '-': none")
    arguments = parser.parse_args()
    multiples = [float(part) for part in arguments.times.split(",")]
    today = report.dated_page()
    page = arguments.output or today.with_name(f"{today.stem}-overload.md")
    case = BY_NAME[arguments.case]
    print(
        f"about {(20 + (2 * arguments.seconds + 2 + BEFORE + RECOVERY) * (len(multiples) + 0.5)) / 60:.0f} minutes",
        flush=True,
    )
    try:
        load.compiled()
        files = models.build(cache_folder() / "models")
        samples, connections = cases.samples(files), arguments.connections
        found = measure(samples, files, case, multiples, arguments.seconds, connections, arguments.limit)
    except (Failed, subprocess.SubprocessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(found))
    if str(page) != "-":
        page.parent.mkdir(parents=True, exist_ok=True)
        plot = page.with_suffix(".svg")
        plot.write_text(picture(found))
        command = f"`python benchmarks/serving/overload.py --seconds {arguments.seconds:g} --case {case.name}`"
        text = [f"# Overload, {page.stem.removesuffix('-overload')}", "", f"{command}. {case.title}; capacity"]
        least, most = min(each.capacity for each in found), max(each.capacity for each in found)
        text[-1] += f" {least:,.0f} to {most:,.0f} answers a second ({CLOSED_CONNECTIONS} callers that ask again at"
        text[-1] += " once), measured before and after each overload."
        text[-1] += f" A request may take {arguments.limit:g} s; what could not be answered in time is refused."
        text += ["", f"![Goodput over time]({plot.name})", "", table(found), "", "## Machine", ""]
        page.write_text("\n".join([*text, *report.machine(), ""]))
        print(f"wrote {page}")
    return 0 if all(not one.bad for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
