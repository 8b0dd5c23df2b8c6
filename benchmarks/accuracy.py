"""Accuracy of the defaults on real data: what `yunmo train` and then `yunmo evaluate` on the signed bundle say.

Run it as ``python benchmarks/accuracy.py [JOB ...] [--seeds N] [--data ../shared/data]``; without a job it runs all of
them. Every job drives the command line as a user would, each in a workspace of its own. Data sets are expected under
``--data``: pictures as ``cifar10-catdog/{train,test}.zip``, texts as ``movie-sentiment/{train,test}.csv`` and
``zh-news-titles/{train,test}.csv``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RepeatedStratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

RECIPES = Path(__file__).resolve().parent.parent / "recipes"


def yunmo(home: Path, *arguments: str) -> dict[str, Any]:
    """Run one command of the CLI in the workspace ``home`` and return the last JSON object that it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("YUNMO_")}
    command = [sys.executable, "-m", "yunmo.cli", *arguments, "--json"]
    done = subprocess.run(
        command, env=environment | {"YUNMO_HOME": str(home)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    text = done.stdout.strip()
    try:
        whole: dict[str, Any] = json.loads(text)
    except ValueError:
        whole = json.loads(text.splitlines()[-1])
    return whole


def figure(home: Path, source: Path, test: Path, seed: int, *options: str) -> float:
    """Train with one seed and return the accuracy of the signed bundle on the test file."""
    run = yunmo(home, "train", str(source), *options, "--set", f"train.seed={seed}")["run"]
    result = yunmo(home, "evaluate", f"{run['model']}:{run['version']}", str(test))
    return float(result["accuracy"])


def digits(_data: Path, seeds: int) -> list[float]:
    """Return accuracies on scikit-learn's digits: a stratified fifth held out, another one for each seed."""
    pictures, labels = load_digits(return_X_y=True)
    pixels = np.rint(pictures.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    results = []
    for seed in range(seeds):
        parts = train_test_split(pixels, labels.astype(str), test_size=0.2, stratify=labels, random_state=seed)
        with tempfile.TemporaryDirectory() as folder:
            train, test = Path(folder, "digits.npz"), Path(folder, "test.npz")
            np.savez(train, image=parts[0], label=parts[2])
            np.savez(test, image=parts[1], label=parts[3])
            results.append(figure(Path(folder, "home"), train, test, seed, "--test", str(test), "--target", "label"))
    return results


def pets(data: Path, seeds: int) -> list[float]:
    """Return accuracies on cats and dogs with nothing but a budget of 5 minutes."""
    train, test = data / "cifar10-catdog/train.zip", data / "cifar10-catdog/test.zip"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        return [figure(home, train, test, seed, "--test", str(test), "--budget", "5m") for seed in range(seeds)]


def texts(name: str, recipe: str | None = None) -> Callable[[Path, int], list[float]]:
    """Return a job that trains on a data set of texts: with defaults only, or by a recipe."""

    def job(data: Path, seeds: int) -> list[float]:
        train, test = data / name / "train.csv", data / name / "test.csv"
        source, options = train, ("--test", str(test), "--target", "label")
        if recipe is not None:
            source = RECIPES / recipe
            options = ("--set", f"data.train={train}", "--set", f"data.test={test}")
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder, "home")
            return [figure(home, source, test, seed, *options, "--name", "texts") for seed in range(seeds)]

    return job


def recipe(name: str, *options: str) -> Callable[[Path, int], list[float]]:
    """Return a job that trains a recipe of the folder ``recipes`` and evaluates it on its own test data."""

    def job(data: Path, seeds: int) -> list[float]:
        test = data / "cifar10-catdog/test.zip"
        files = ["--set", f"data.train={data}/cifar10-catdog/train.zip", "--set", f"data.test={test}"]
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder, "home")
            return [figure(home, RECIPES / name, test, seed, *files, *options) for seed in range(seeds)]

    return job


def breast_cancer(_data: Path, _seeds: int) -> list[float]:
    """Return accuracies on scikit-learn's breast-cancer table, 5 folds x 5, less those of logistic regression."""
    frame = load_breast_cancer()
    header = ",".join([*(name.replace(" ", "_") for name in frame.feature_names), "diagnosis"])
    diagnosis = frame.target_names[frame.target]
    gains = []
    folds = RepeatedStratifiedKFold(n_splits=5, n_repeats=5, random_state=0)
    for number, (train_rows, test_rows) in enumerate(folds.split(frame.data, diagnosis)):
        linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        linear.fit(frame.data[train_rows], diagnosis[train_rows])
        baseline = linear.score(frame.data[test_rows], diagnosis[test_rows])
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for name, rows in (("train.csv", train_rows), ("test.csv", test_rows)):
                lines = [",".join([*map(repr, map(float, frame.data[row])), diagnosis[row]]) for row in rows]
                files.append(Path(folder, name))
                files[-1].write_text("\n".join([header, *lines]) + "\n")
            options = ("--test", str(files[1]), "--target", "diagnosis", "--name", "cancer")
            gains.append(figure(Path(folder, "home"), files[0], files[1], number, *options) - baseline)
    return gains


JOBS: dict[str, tuple[Callable[[Path, int], list[float]], str]] = {
    "digits": (digits, "digits, stratified 20 % held out"),
    "breast-cancer": (breast_cancer, "breast cancer, 5x5 folds, less logistic regression"),
    "pets": (pets, "cats vs dogs, --budget 5m"),
    "seed-cnn": (recipe("seed-cnn.yaml", "--set", "train.epochs=20"), "seed recipe, 20 epochs"),
    "seed-rnn": (recipe("seed-rnn.yaml", "--set", "train.epochs=15"), "recurrent twin, 15 epochs"),
    "reviews": (texts("movie-sentiment"), "English reviews, defaults"),
    "headlines": (texts("zh-news-titles"), "Chinese headlines, defaults"),
    **{
        f"{place}-{kind}": (texts(name, f"{kind}.yaml"), f"{title}, {kind}.yaml")
        for place, name, title in (
            ("reviews", "movie-sentiment", "English reviews"),
            ("headlines", "zh-news-titles", "Chinese headlines"),
        )
        for kind in ("textcnn", "text-gru", "text-transformer")
    },
    "gru": (recipe("gru.yaml", "--budget", "5m"), "GRU, --budget 5m"),
}


def main() -> None:
    """Run the jobs named and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", choices=[*JOBS, []], help="jobs to run (default: all)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name in arguments.jobs or JOBS:
        job, title = JOBS[name]
        began = time.perf_counter()
        results = job(arguments.data.resolve(), arguments.seeds)
        spread = statistics.stdev(results) if len(results) > 1 else 0.0
        seconds = time.perf_counter() - began
        print(
            f"{title}: {100 * statistics.mean(results):.2f} % (deviation {100 * spread:.2f}, n={len(results)}, "
            f"each: {' '.join(f'{100 * value:.2f}' for value in results[:5])}; {seconds:.0f} s in all)",
            flush=True,
        )


if __name__ == "__main__":
    main()
