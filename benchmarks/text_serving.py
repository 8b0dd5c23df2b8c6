"""A served text model against its own tokenizer and graph alone, in one run.

``python -m benchmarks.text_serving DATA.csv --target COLUMN [--text COLUMN] [--seconds S] [--rounds N]``

It trains the default text model on DATA within a service of its own and deploys it. Alone: two processes that encode
texts and run the graph, best of batches of 1, 4, 8 and 16. Served: JSON rows over 64 connections, everything on, every
answer checked. Both take turns; figures are medians.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from benchmarks.service import Yunmo
from benchmarks.serving import load
from benchmarks.serving.load import Phase, Variant
from benchmarks.serving.places import Failed
from yunmo.data.sources.open import open_source
from yunmo.inference.predictor import Predictor

PROCESSES, CONNECTIONS = 2, 64
BATCHES = (1, 4, 8, 16)
TEXTS = 64
"""Different texts that are sent, over and over."""
WARM_UP = 0.5


def train(service: Yunmo, data: Path, target: str) -> None:
    """Train the default model and deploy it as ``text``."""
    environment = {**os.environ, "YUNMO_URL": service.url, "YUNMO_API_KEY": service.key}
    command = [sys.executable, "-m", "yunmo.cli", "train", str(data), "--target", target, "--name", "text", "--json"]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    service.deploy("text:1", "text")


def alone(folder: str, public: str, name: str, texts: list[str], seconds: float, ready: Barrier, answers: Any) -> None:
    """Encode and run as much as one process can; put rows a second for each batch."""
    predictor = Predictor.open(Path(folder), public_key_pem=public)
    found = []
    for batch in BATCHES:
        rows = itertools.cycle([{name: text} for text in texts])
        ready.wait(60)
        began, done = time.perf_counter(), 0
        while (took := time.perf_counter() - began) < seconds:
            predictor.run(predictor.encode(list(itertools.islice(rows, batch))))
            done += batch
        found.append(done / took)
    answers.put(found)


def measure_alone(folder: Path, public: str, name: str, texts: list[str], seconds: float) -> float:
    """Return rows a second of `PROCESSES` processes with the best batch."""
    context = multiprocessing.get_context("spawn")
    ready, answers = context.Barrier(PROCESSES), context.Queue()
    given = (str(folder), public, name, texts, seconds, ready, answers)
    children = [context.Process(target=alone, args=given) for _ in range(PROCESSES)]
    for child in children:
        child.start()
    rates = [answers.get(timeout=120) for _ in children]
    for child in children:
        child.join()
    return max(map(sum, zip(*rates, strict=True)))


def variants(predictor: Predictor, name: str, texts: list[str], key: str) -> list[Variant]:
    """Return a request for each text, with the answer that is right."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    found = []
    for text in texts:
        (prediction,) = predictor.predict([{name: text}])
        (answer,) = prediction.values()
        body = json.dumps({name: text}, ensure_ascii=False).encode()
        whole = load.request("POST", "/api/v1/endpoints/text/predict", headers, body)
        found.append(Variant(whole, list(answer["probabilities"].values()), b'"probabilities":'))
    return found


def measure_served(port: int, requests: Path, seconds: float) -> float:
    """Return right answers a second.

    Raises:
        Failed: an answer was wrong or missing.
    """
    phases = [Phase(0, WARM_UP), Phase(0, seconds)]
    done = load.run(port, requests, phases, connections=CONNECTIONS).phases[1]
    if done.bad or done.refused:
        raise Failed(f"{done.bad} wrong or missing answers, {done.refused} refused")
    return done.per_second


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--text", default="text", help="column of the texts [text]")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement [3]")
    parser.add_argument("--rounds", type=int, default=3, help="[3]")
    arguments = parser.parse_args()
    source = open_source(arguments.data)
    texts = [str(text) for text in source.column(arguments.text)[:TEXTS]]
    source.close()
    with Yunmo(workers=PROCESSES) as service, tempfile.TemporaryDirectory() as temporary:
        train(service, arguments.data.resolve(), arguments.target)
        (bundle,) = (service.home / "bundles").iterdir()
        public = (service.home / "signing.pub").read_text()
        predictor = Predictor.open(bundle, public_key_pem=public)
        requests = load.write_requests(
            variants(predictor, arguments.text, texts, service.new_key()), Path(temporary, "requests")
        )
        both: list[tuple[float, float]] = []
        for _ in range(arguments.rounds):
            raw = measure_alone(bundle, public, arguments.text, texts, arguments.seconds / len(BATCHES))
            both.append((raw, measure_served(service.port, requests, arguments.seconds)))
            print(f"alone {both[-1][0]:,.0f}, served {both[-1][1]:,.0f} a second", flush=True)
    raw, served = (statistics.median(values) for values in zip(*both, strict=True))
    length = statistics.mean(map(len, texts))
    print(f"{arguments.data.name}: {served:,.0f} answers a second, {served / raw:.0%} of {raw:,.0f} alone")
    print(f"(texts of {length:.0f} characters; medians of {arguments.rounds} rounds)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
