"""Rollouts under load that never pauses: good, not loadable, canary, shadow, failing at run time, rolled back.

``python benchmarks/proof/rollout.py [--seconds S]`` gives each stage S seconds. Every answer must be its caller's own
and be computed by the version that it names. Exit status 0 only if none of the requests failed, but for those that
asked the version that fails at run time, while it was live, for what it fails at or waited beside them; and even those
must all be answered, with an error.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from benchmarks.proof import echo, wire
from benchmarks.proof.callers import PATIENCE, Target
from benchmarks.proof.forms import FormName, form
from benchmarks.service import Yunmo
from benchmarks.serving.places import Failed
from yunmo.client.client import Client
from yunmo.core.errors import YunmoError

ENDPOINT = "echo"
TRAP = 900_000
"""A version that fails at run time does so where a row begins with this."""
TRAPPED = 0.2
"""Share of requests that have such a row."""
FORMS: tuple[FormName, ...] = ("native", "oip-json", "oip-binary")
GOOD, BETTER, UNLOADABLE, FAILING, BEST = 1, 2, 3, 4, 5
"""Versions of the model. Each adds its own number, so that an answer shows who computed it."""
ROLLBACK_SECONDS = 1.0


@dataclass
class Failure:
    """A request that was not answered as it should be."""

    began: float
    ended: float
    what: str
    trapped: bool
    answered: bool
    """With an error; else it was lost or answered wrongly."""


@dataclass
class Seen:
    """What callers saw."""

    answers: Counter[int] = field(default_factory=Counter)
    """By version."""
    last_asked: dict[int, float] = field(default_factory=dict)
    """By version: when the last request was sent that it answered."""
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Seen) -> None:
        """Take in what others saw."""
        self.answers += other.answers
        for version, when in other.last_asked.items():
            self.last_asked[version] = max(when, self.last_asked.get(version, when))
        self.failures += other.failures


@dataclass
class Stages:
    """What was done to the endpoint, and when."""

    times: dict[str, tuple[float, float]] = field(default_factory=dict)

    def run(self, name: str, work: Callable[[], object], seconds: float, *, refused: bool = False) -> None:
        """Do one thing and let the load go on for a while.

        Raises:
            Failed: it failed, or should have.
        """
        began = time.monotonic()
        try:
            work()
            problem = None
        except YunmoError as error:
            problem = error
        self.times[name] = (began, time.monotonic())
        took = self.times[name][1] - began
        said = f" ({problem})" if problem else ""
        print(f"  {name}: {took:.2f} s{said}", flush=True)
        if (problem is not None) != refused:
            raise Failed(f"{name}: {problem or 'should have been refused'}")
        time.sleep(seconds)


async def _call(target: Target, number: int, process: int, stop: Event) -> Seen:
    seen = Seen()
    dice = random.Random(f"{process} {number}")  # noqa: S311  # may be guessed
    form_ = form(target.form, target.endpoint)
    connection: wire.Connection | None = None
    asked = 0
    while not stop.is_set():
        asked += 1
        trapped = dice.random() < TRAPPED
        marks = (TRAP if trapped else process, number, asked % echo.LIMIT)
        rows = np.asarray(
            [[*marks, row, *(dice.randrange(echo.LIMIT) for _ in range(4))] for row in range(dice.randint(1, 4))],
            np.float32,
        )
        path, headers, body = form_.encode(rows, f"{process}-{number}-{asked}")
        began = time.monotonic()
        what, answered = "", False
        try:
            async with asyncio.timeout(PATIENCE):
                if connection is None:
                    connection = await wire.Connection.open(target.host, target.port)
                await connection.send(wire.request(path, {**target.headers, **headers}, body))
                reply = await connection.receive()
            if reply.last:
                connection.close()
                connection = None
            if reply.status == 200:
                found = form_.decode(reply.headers, reply.body)
                version = int(found.version or 0)
                if np.array_equal(found.rows, echo.expected(rows, version)):
                    seen.answers[version] += 1
                    seen.last_asked[version] = began
                else:
                    what = f"version {version} answered {found.rows[:1].tolist()} to {rows[:1].tolist()}"
            else:
                what, answered = f"{reply.status} {reply.body[:200].decode(errors='replace')}", True
        except (wire.Gone, OSError, TimeoutError) as error:
            what = f"no answer ({type(error).__name__})"
            connection = None
        except (ValueError, KeyError, TypeError, IndexError) as error:
            what = f"no such answer ({error!r})"
        if what:
            seen.failures.append(Failure(began, time.monotonic(), what, trapped, answered))
    return seen


def _process(targets: Sequence[Target], process: int, callers: int, stop: Event, out: multiprocessing.Queue) -> None:  # type: ignore[type-arg]  # only generic in stubs
    async def every() -> Seen:
        total = Seen()
        work = (_call(targets[number % len(targets)], number, process, stop) for number in range(callers))
        for seen in await asyncio.gather(*work):
            total.add(seen)
        return total

    out.put(asyncio.run(every()))


def roll_out(service: Yunmo, client: Client, stages: Stages, seconds: float) -> None:
    """Take an endpoint through everything that can happen to it.

    Raises:
        Failed: something that should work did not, or the other way round.
    """

    def deploy(version: int, **how: int | bool) -> Callable[[], object]:
        return lambda: client.deploy(f"{ENDPOINT}:{version}", ENDPOINT, **how)  # type: ignore[arg-type]  # canary or shadow

    folder = service.home / "bundles" / client.model(f"{ENDPOINT}:{UNLOADABLE}").digest.removeprefix("sha256:")
    graph = folder / "graph.onnx"
    damaged = bytearray(graph.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    graph.write_bytes(bytes(damaged))

    time.sleep(seconds)
    stages.run("a better version", deploy(BETTER), seconds)
    stages.run("one that cannot be loaded", deploy(UNLOADABLE), seconds, refused=True)
    stages.run("a canary of 20 %", deploy(BEST, canary=20), seconds)
    stages.run("the canary gets everything", deploy(BEST), seconds)
    stages.run("one that fails at run time, as shadow", deploy(FAILING, shadow=True), seconds)
    stages.run("the shadow goes", lambda: client.rollback(ENDPOINT), seconds)
    stages.run("one that fails at run time, live", deploy(FAILING), seconds)
    stages.run("rollback", lambda: client.rollback(ENDPOINT), seconds)


def judge(seen: Seen, stages: Stages) -> bool:
    """Print what was seen and say whether it is as it should be."""
    trouble_began, _ = stages.times["one that fails at run time, live"]
    rollback_began, rollback_ended = stages.times["rollback"]
    excused = [
        one for one in seen.failures if one.answered and one.ended >= trouble_began and one.began <= rollback_ended
    ]
    failed = [one for one in seen.failures if one not in excused]
    beside = sum(not one.trapped for one in excused)
    last = max((one.began for one in excused), default=rollback_began)
    total = seen.answers.total() + len(seen.failures)
    by_version = ", ".join(f"version {version}: {count:,}" for version, count in sorted(seen.answers.items()))
    print(f"answers    {seen.answers.total():,} ({by_version})")
    print(f"failed     {len(failed):,} of {total:,}")
    for one in failed[:5]:
        print(f"  e.g. {one.what}")
    print(
        f"while the failing version was live: {len(excused):,} answered with an error, {beside:,} of them beside others"
    )
    if excused:
        print(f"  e.g. {excused[0].what}")
    quick = rollback_ended - rollback_began
    print(f"rollback   {quick:.3f} s; the last request that the failing version spoilt was sent")
    print(f"           {last - rollback_began:+.3f} s from its begin")
    late = [
        version for version in (GOOD, BETTER, FAILING) if seen.last_asked.get(version, 0.0) > _until(version, stages)
    ]
    for version in late:
        print(f"version {version} answered a request that was sent after it had been replaced")
    used = {GOOD, BETTER, BEST, FAILING} == set(seen.answers)
    if not used:
        print(f"versions {sorted(seen.answers)} answered, where {GOOD}, {BETTER}, {FAILING} and {BEST} should have")
    trapped = any(one.trapped for one in excused)
    return not failed and not late and used and trapped and quick <= ROLLBACK_SECONDS


def _until(version: int, stages: Stages) -> float:
    """Return when a version had been replaced everywhere."""
    name = {GOOD: "a better version", BETTER: "the canary gets everything", FAILING: "rollback"}[version]
    return stages.times[name][1]


def prove(seconds: float, processes: int, callers: int) -> bool:
    """Start Yunmo, load it, roll out, and say whether all was as it should be."""
    with tempfile.TemporaryDirectory(prefix="yunmo-proof-") as folder, Yunmo() as service, service.client() as client:
        for version in (GOOD, BETTER, UNLOADABLE, FAILING, BEST):
            made = echo.model(offset=version, slow=True, fails_from=TRAP if version == FAILING else None)
            service.import_onnx(echo.write(Path(folder, "echo.onnx"), made), ENDPOINT)
        client.deploy(f"{ENDPOINT}:{GOOD}", ENDPOINT)
        headers = {"authorization": f"Bearer {service.key}"}
        targets = [Target("127.0.0.1", service.port, name, ENDPOINT, headers) for name in FORMS]
        context = multiprocessing.get_context("spawn")
        stop, out = context.Event(), context.Queue()
        children = [
            context.Process(target=_process, args=(targets, process, callers, stop, out))
            for process in range(processes)
        ]
        for child in children:
            child.start()
        stages, seen = Stages(), Seen()
        try:
            roll_out(service, client, stages, seconds)
        finally:
            stop.set()
            for _ in children:
                seen.add(out.get(timeout=PATIENCE + 30))
            for child in children:
                child.join()
    return judge(seen, stages)


def main() -> int:
    """Prove it, or show that it is not so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each of the nine stages [5]")
    parser.add_argument("--processes", type=int, default=2, help="of callers [2]")
    parser.add_argument("--callers", type=int, default=24, help="in each process [24]")
    arguments = parser.parse_args()
    print(f"about {9 * arguments.seconds + 20:.0f} seconds", flush=True)
    try:
        proven = prove(arguments.seconds, arguments.processes, arguments.callers)
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("PROVEN: 0 failed" if proven else "NOT SO")
    return 0 if proven else 1


if __name__ == "__main__":
    sys.exit(main())
