"""What `yunmo advise` expects against what `yunmo train` then does: time, memory and the metric of each data set.

Run it as ``python benchmarks/advise.py [DATA SET ...] [--data ../shared/data] [--repeat N]``; without a name it takes
all of them. Each is advised on and then trained with the network that was recommended, in a workspace of its own. Data
sets are expected under ``--data`` by the names that ``JOBS`` has; one that is not there is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

CHILD = "yunmo.control.jobs.child"
POLL_SECONDS = 0.1
WINDOW, STRIDE, TEST_SUBJECT = 100, 50, 9

Arguments = list[str]


def files(train: str, *, test: str | None = None, target: str | None = None) -> Callable[[Path, Path], Arguments]:
    """Return a job on files that are there as they are."""

    def job(data: Path, _scratch: Path) -> Arguments:
        found = [str(data / train)]
        found += ["--test", str(data / test)] if test else []
        return found + (["--target", target] if target else [])

    return job


def watch(data: Path, scratch: Path) -> Arguments:
    """Cut a smartwatch's recordings into windows; people of the test are not in training."""
    with np.load(data / "imu-watch/watch.npz") as arrays:
        values, lengths, labels, people = arrays["x"], arrays["length"], arrays["y"], arrays["subject"]
    parts: dict[bool, tuple[list[Any], list[str]]] = {False: ([], []), True: ([], [])}
    begin = 0
    for length, label, person in zip(lengths, labels, people, strict=True):
        windows, names = parts[bool(person >= TEST_SUBJECT)]
        for start in range(begin, begin + length - WINDOW + 1, STRIDE):
            windows.append(values[start : start + WINDOW])
            names.append(f"exercise {label}")
        begin += length
    paths = []
    for name, (windows, names) in (("watch", parts[False]), ("test", parts[True])):
        paths.append(scratch / f"{name}.npz")
        np.savez(paths[-1], x=np.stack(windows).astype(np.float32), label=np.array(names))
    return [str(paths[0]), "--test", str(paths[1]), "--target", "label"]


JOBS: dict[str, Callable[[Path, Path], Arguments]] = {
    "hand-gestures/keypoint": files("hand-gestures/keypoint.csv", target="c0"),
    "hand-gestures/point_history": files("hand-gestures/point_history.csv", target="c0"),
    "movie-sentiment": files("movie-sentiment/train.csv", test="movie-sentiment/test.csv", target="label"),
    "zh-news-titles": files("zh-news-titles/train.csv", test="zh-news-titles/test.csv", target="label"),
    "imu-watch": watch,
    "cifar10-catdog": files("cifar10-catdog/train.zip", test="cifar10-catdog/test.zip"),
    "cifar10": files("cifar10/train.zip", test="cifar10/test.zip"),
}


@dataclass
class Peak:
    """The most memory that the training process of a command had, looked at until the command ends."""

    process: subprocess.Popen[str]
    value: int = 0

    def follow(self) -> None:
        """Look until the command ends."""
        while self.process.poll() is None:
            try:
                for child in psutil.Process(self.process.pid).children(recursive=True):
                    if CHILD in child.cmdline():
                        self.value = max(self.value, _peak_of(child.pid))
            except (psutil.Error, OSError):
                pass  # it ended between two looks
            time.sleep(POLL_SECONDS)


def _peak_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def command(home: Path, arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Begin a command of the CLI in the workspace ``home``."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("YUNMO_")}
    return subprocess.Popen(
        [sys.executable, "-m", "yunmo.cli", *arguments, "--json"],
        env=environment | {"YUNMO_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str], what: str) -> str:
    """Return what a command wrote.

    Raises:
        SystemExit: it failed.
    """
    out, err = process.communicate()
    if process.returncode:
        raise SystemExit(f"{what} failed:\n{err}")
    return out


def compare(arguments: Arguments, home: Path) -> dict[str, Any]:
    """Ask for advice, follow it, and return both."""
    began = time.perf_counter()
    advice = json.loads(finished(command(home, ["advise", *arguments]), "advise"))
    asked = time.perf_counter() - began
    chosen = next(each for each in advice["candidates"] if each["name"] == advice["recommended"])
    settings = [word for setting in chosen["settings"] for word in ("--set", setting)]
    loads = [os.getloadavg()[0]]
    began = time.perf_counter()
    process = command(home, ["train", *arguments, *settings, "--name", "advised"])
    peak = Peak(process)
    follower = threading.Thread(target=peak.follow)
    follower.start()
    out = finished(process, "train")
    run = time.perf_counter() - began
    follower.join()
    loads.append(os.getloadavg()[0])
    report = json.loads(out.splitlines()[-1])["report"]
    test = report["test"][advice["output"]]
    against = report["baselines"][advice["output"]]["linear"]["metrics"]
    return {
        "asked": asked,
        "advice": advice,
        "chosen": chosen,
        "epochs": len(report["training"]["history"]),
        "training": report["timing"]["train"],
        "run": run,
        "peak": peak.value,
        "metric": test[advice["metric"]],
        "linear": against[advice["metric"]],
        "loads": loads,
    }


def lines(name: str, found: dict[str, Any]) -> Iterator[str]:
    """Return a row of the table in benchmarks/README.md."""
    chosen, advice = found["chosen"], found["advice"]
    probed = sum(each["metric"] is not None for each in advice["candidates"])
    cells = [name, chosen["name"], f"{found['asked']:.1f} s, {probed} of {len(advice['candidates'])}"]
    if chosen["seconds"] is None:
        cells += [f"none / {found['training']:.0f} s", f"none / {found['run']:.0f} s", "none"]
    else:
        epochs, run, memory = chosen["seconds"]["epochs"], chosen["seconds"]["run"], chosen["memory"]
        cells += [
            f"{chosen['epochs']} / {found['epochs']}",
            _both(epochs, found["training"], "s"),
            _both(run, found["run"], "s"),
            _both(memory / 1e6, found["peak"] / 1e6, "MB"),
        ]
    cells += [_inside(chosen["metric"], found["metric"]), _inside(advice["linear"]["metric"], found["linear"])]
    cells.append(f"{advice['load']:.1f}, {found['loads'][0]:.1f} to {found['loads'][1]:.1f}")
    yield f"| {' | '.join(cells)} |"


def _both(expected: float, real: float, unit: str) -> str:
    shown = [f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in (expected, real)]
    return f"{shown[0]} / {shown[1]} {unit} ({max(expected / real, real / expected):.2f}x)"


def _inside(expected: dict[str, float] | None, real: float) -> str:
    if expected is None:
        return f"not probed / {real:.3f}"
    inside = expected["low"] <= real <= expected["high"]
    return f"{expected['low']:.3f} to {expected['high']:.3f} / {real:.3f} ({'inside' if inside else '**outside**'})"


HEAD = (
    "| data | network taken | advice took, networks tried | epochs | time of epochs | whole run | peak memory | metric "
    "| linear model's | load while asked, while trained |"
)


def main() -> None:
    """Compare the data sets named and print one row for each: expected / real (error)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*JOBS, []], help="data sets (default: all)")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    print(HEAD)
    print("|" + "---|" * (HEAD.count("|") - 1))
    for name in arguments.names or JOBS:
        if not (arguments.data / name.partition("/")[0]).is_dir():
            print(f"| {name} | not there |")
            continue
        for _ in range(arguments.repeat):
            with tempfile.TemporaryDirectory() as scratch:
                asked = JOBS[name](arguments.data.resolve(), Path(scratch))
                for line in lines(name, compare(asked, Path(scratch, "home"))):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
