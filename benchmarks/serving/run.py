"""Answers a second of Yunmo, its peers and ONNX Runtime alone, in one run on one machine.

``python benchmarks/serving/run.py [--seconds S] [--rounds N] [--only SERVER,...] [--cases CASE,...] [--output FILE]``

Every answer is checked. Servers take turns, one at a time, so that a slower minute of the machine hits all of them;
what is printed and written to ``results/`` are medians over the rounds. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.serving import cases, environments, grpc_load, load, models, processes, raw, report, wrk
from benchmarks.serving.cases import BY_NAME, CASES, PEERS, Case, Sample
from benchmarks.serving.places import CACHE_VARIABLE, Failed, cache_folder
from benchmarks.serving.report import Measured, Memory, Outcome
from benchmarks.serving.servers import Backend, Peer, Running, YunmoServer
from yunmo.core.settings import Settings

SERVERS = ("yunmo", *PEERS)
BARE, BARE_SETTING = "yunmo-no-metrics", "metrics"
"""Yunmo with metrics off, and the setting that does it; only in some cases."""
BARE_CASES = ("cnn-jpeg", "mlp-json")
WARM_UP, START_SECONDS, RAW_SECONDS = 1.0, 7.0, 1.0


@dataclass
class Plan:
    """What is to be measured."""

    seconds: float
    rounds: int
    cases: list[Case]
    backends: list[Backend]
    raw: bool
    wrk: bool
    samples: dict[str, list[Sample]]
    files: dict[str, Path]
    work: Path
    outcome: Outcome = field(default_factory=Outcome)

    def groups(self, backend: Backend) -> dict[str, list[Case]]:
        """Return the cases of a server by what must be running for them."""
        found: dict[str, list[Case]] = {}
        for case in self.cases:
            group = backend.group(case)
            if group is None or (backend.name == BARE and case.name not in BARE_CASES):
                continue
            if case.body == "grpc" and not grpc_load.available():
                continue
            found.setdefault(group, []).append(case)
        return found

    def estimate(self) -> float:
        """Return how many seconds it will take."""
        turns = [self.groups(backend) for backend in self.backends]
        one = sum(len(groups) * START_SECONDS for groups in turns)
        one += sum((self.seconds + WARM_UP + 0.5) * len(each) for groups in turns for each in groups.values())
        raw_runs = 2 * 2 * len(raw.LAYOUTS) * (len(raw.BATCHES) * (RAW_SECONDS + raw.WARM_UP) + 1)
        return one * self.rounds + (raw_runs if self.raw else 0) + (30 if self.wrk else 0)


def measure(plan: Plan) -> None:
    """Carry a plan out."""
    if plan.raw:
        _raw(plan, "before")
    for number in range(plan.rounds):
        # Every other round the other way round: nobody always comes after the same neighbour.
        for backend in plan.backends[:: -1 if number % 2 else 1]:
            for group, mine in plan.groups(backend).items():
                _turn(plan, backend, group, mine, number)
    if plan.raw:
        _raw(plan, "after")


def _raw(plan: Plan, when: str) -> None:
    for model in dict.fromkeys(case.model for case in plan.cases):
        found = raw.measure_all(plan.files[model], RAW_SECONDS)
        best = max(found, key=found.__getitem__)
        plan.outcome.raw.setdefault(model, []).append(found)
        print(f"raw {model} {when}: {found[best]:,.0f} rows/s ({best})", flush=True)


def _turn(plan: Plan, backend: Backend, group: str, mine: Sequence[Case], number: int) -> None:
    with backend.start(group) as running:
        idle = Memory(processes.pss_megabytes(running.worker_pids()), processes.pss_megabytes(running.pids()))
        for case in mine:
            measured = _measure_case(plan, running, case)
            plan.outcome.add(backend.name, case.name, measured)
            print(f"round {number + 1} {backend.name:<17} {case.name:<11} {measured}", flush=True)
        after = Memory(processes.pss_megabytes(running.worker_pids()), processes.pss_megabytes(running.pids()))
        plan.outcome.memory.setdefault(backend.name, []).append((idle, after))
        if plan.wrk and number == 0 and backend.name == "yunmo" and wrk.available():
            for case in mine:
                if case.name in wrk.CASES:
                    variants = running.variants(case, plan.samples[case.model])
                    plan.outcome.wrk[case.name] = wrk.run(running.port, variants, case.connections, plan.seconds)


def _measure_case(plan: Plan, running: Running, case: Case) -> Measured:
    samples = plan.samples[case.model]
    pids = running.pids()
    if case.body == "grpc" and running.grpc_port is not None:
        with _Busy(pids) as cpu:
            result = grpc_load.run(running.grpc_port, running.key, samples, plan.seconds, plan.work).phases[0]
        return Measured.of(result, cpu[0], result.seconds + WARM_UP)
    requests = load.write_requests(running.variants(case, samples), plan.work / "requests")
    load.run(running.port, requests, [load.Phase(0, WARM_UP)], connections=case.connections)
    with _Busy(pids) as cpu:
        done = load.run(running.port, requests, [load.Phase(0, plan.seconds)], connections=case.connections)
    result = done.phases[0]
    bad = result.bad + result.refused + done.after.bad + done.after.refused
    if bad:
        print(f"  {bad} answers were wrong or missing; the first: {done.sample[:400]}", flush=True)
    return Measured.of(result, cpu[0], plan.seconds, bad)


class _Busy:
    """Measures the processor seconds that processes take while the context lasts."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self.seconds: list[float] = []

    def __enter__(self) -> list[float]:
        self._began = processes.cpu_seconds(self._pids)
        return self.seconds

    def __exit__(self, *_: object) -> None:
        self.seconds.append(processes.cpu_seconds(self._pids) - self._began)


def _names(text: str, known: Sequence[str], what: str) -> list[str]:
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    for name in chosen:
        if name not in known:
            raise Failed(f"no {what} is called {name!r}; known: {', '.join(known)}")
    return chosen


def _backends(names: Sequence[str], files: dict[str, Path], bare: bool) -> Iterator[Backend]:
    for name in names:
        if name == "yunmo":
            yield YunmoServer("yunmo", files)
            if bare and BARE_SETTING in Settings.__struct_fields__:
                yield YunmoServer(BARE, files, {f"YUNMO_{BARE_SETTING.upper()}": "false"})
        else:
            environments.python(name)
            yield Peer(name, files)  # type: ignore[arg-type]  # `_names` has looked


def main() -> int:
    """Measure, print and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=7.0, help="of each case in each round [7]")
    parser.add_argument("--rounds", type=int, default=3, help="[3]")
    parser.add_argument("--only", default=",".join(SERVERS), help=f"servers [{','.join(SERVERS)}]")
    parser.add_argument("--cases", default=",".join(BY_NAME), help=f"[{','.join(BY_NAME)}]")
    parser.add_argument("--no-raw", action="store_true", help="leave ONNX Runtime alone out (no shares of it then)")
    parser.add_argument("--no-bare", action="store_true", help="leave Yunmo with metrics off out")
    parser.add_argument("--output", type=Path, help="the page [results/DATE.md; none with --only or --cases]")
    parser.add_argument("--cache", type=Path, help="environments and models [~/.cache/yunmo-bench]")
    arguments = parser.parse_args()
    if arguments.cache:
        os.environ[CACHE_VARIABLE] = str(arguments.cache.resolve())
    whole = arguments.only == parser.get_default("only") and arguments.cases == parser.get_default("cases")
    page = arguments.output or (report.dated_page() if whole else None)
    began = time.monotonic()
    try:
        load.compiled()
        chosen = [BY_NAME[name] for name in _names(arguments.cases, list(BY_NAME), "case")]
        names = _names(arguments.only, SERVERS, "server")
        files = models.build(cache_folder() / "models")
        with tempfile.TemporaryDirectory(prefix="yunmo-bench-") as work:
            plan = Plan(
                seconds=arguments.seconds,
                rounds=arguments.rounds,
                cases=chosen,
                backends=list(_backends(names, files, not arguments.no_bare)),
                raw=not arguments.no_raw,
                wrk=whole,
                samples=cases.samples(files),
                files=files,
                work=Path(work),
            )
            if not grpc_load.available() and any(case.body == "grpc" for case in CASES):
                print("no h2load (apt-get install nghttp2-client): gRPC is left out", flush=True)
            print(f"about {plan.estimate() / 60:.0f} minutes", flush=True)
            measure(plan)
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report.text(plan.outcome, chosen))
    if page is not None:
        report.write(page, plan.outcome, chosen, seconds=plan.seconds, rounds=plan.rounds, names=names)
        print(f"wrote {page}")
    print(f"{time.monotonic() - began:.0f} s")
    return 0 if plan.outcome.bad == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
