"""Batch prediction against ONNX Runtime alone, on the same rows: ``python -m benchmarks.batch_prediction``.

A job's step, as its child process does it (read the file, decode, encode, run, write the answers and make them last),
against ONNX Runtime with the tensors ready in memory, at the best batch size found, with as many threads. Rounds are
interleaved; the median of each is taken. Where others use the machine too, the share in processor time tells more than
that in time. The last column says what it costs to load the model and open the file, which is part of the job's time.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import statistics
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.serving import models
from yunmo.bundle.files import GRAPH, bundle_digest
from yunmo.bundle.sign import new_key_pair, sign
from yunmo.control.jobs.answering import Answering, Order
from yunmo.control.services.jobs import ANSWERS
from yunmo.data.sources.open import open_source
from yunmo.inference.predictor import Predictor
from yunmo.packaging.imported.description import description_from
from yunmo.packaging.imported.pack import pack_imported

BATCHES = (1, 4, 16, 64, 256)
FIELDS: dict[str, dict[str, Any]] = {
    "cnn": {
        "inputs": [{"name": "image", "type": "image", "size": 32}],
        "outputs": [{"name": "label", "type": "category", "categories": [f"class {n}" for n in range(10)]}],
    },
    "mlp": {
        "inputs": [{"name": f"f{n:02}", "type": "number"} for n in range(models.FEATURES)],
        "outputs": [{"name": "label", "type": "category", "categories": ["no", "yes"]}],
    },
}
"""The models as fields, and the data: JPEG files of 32x32 pixels in a zip; a CSV of 30 numbers a row."""


@dataclass(frozen=True)
class Taken:
    """Seconds of time and of this process's processors."""

    time: float
    processor: float

    @classmethod
    def now(cls) -> Taken:
        """Return both clocks."""
        return cls(time.perf_counter(), time.process_time())

    def since(self) -> Taken:
        """Return what has passed."""
        now = Taken.now()
        return Taken(now.time - self.time, now.processor - self.processor)


@dataclass(frozen=True)
class Case:
    """A bundle with its data, and both ways through it."""

    order: Order
    folder: Path
    tensors: dict[str, Any]
    rows: int

    def job(self) -> Taken:
        """Carry out a whole job."""
        (self.folder / ANSWERS).unlink(missing_ok=True)
        began = Taken.now()
        Answering(self.folder, self.order, lambda _: None, lambda: False).answer()
        return began.since()

    def opening(self) -> float:
        """Return the seconds that opening bundle and data takes."""
        began = time.perf_counter()
        predictor = Predictor.open(Path(self.order.bundle), public_key_pem=self.order.public_key)
        open_source(Path(self.order.data)).close()
        predictor.close()
        return time.perf_counter() - began

    def alone(self, batch: int) -> Taken:
        """Have ONNX Runtime alone answer all rows."""
        session = models.open_session(str(Path(self.order.bundle) / GRAPH))
        starts = range(0, self.rows, batch)

        def run(start: int) -> Any:
            return session.run(None, {name: tensor[start : start + batch] for name, tensor in self.tensors.items()})

        run(0)
        began = Taken.now()
        with ThreadPoolExecutor(self.order.cores) as pool:
            for _ in pool.map(run, starts):
                pass
        return began.since()


def make(kind: str, file: Path, folder: Path, rows: int, cores: int) -> Case:
    """Make a case of a model's file."""
    folder.mkdir()
    private, public = new_key_pair()
    key = folder / "key"
    key.write_text(private)
    bundle = folder / "bundle"
    pack_imported(file, bundle, name=kind, description=description_from(FIELDS[kind]))
    sign(bundle, key)
    data = {"cnn": pictures, "mlp": table}[kind](folder, rows)
    predictor = Predictor.open(bundle, public_key_pem=public)
    source = open_source(data)
    columns = {name: source.column(field.column) for name, field in predictor.fields.items()}
    tensors = predictor.encode_columns(columns, rows)
    source.close()
    predictor.close()
    order = Order(
        bundle=str(bundle),
        digest=bundle_digest(bundle),
        public_key=public,
        data=str(data),
        data_digest="sha256:0",
        cores=cores,
        max_pixels=10**6,
    )
    return Case(order, folder, tensors, rows)


def pictures(folder: Path, rows: int) -> Path:
    """Write a zip of pictures."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for row in range(rows):
            buffer = io.BytesIO()
            Image.fromarray(models.picture(rng)).save(buffer, "JPEG", quality=90)
            archive.writestr(f"class/{row:06}.jpg", buffer.getvalue())
    return folder / "pictures.zip"


def table(folder: Path, rows: int) -> Path:
    """Write a CSV of numbers."""
    numbers = np.random.default_rng(0).normal(size=(rows, models.FEATURES))
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(f"f{n:02}" for n in range(models.FEATURES))
        writer.writerows(numbers.round(6).tolist())
    return folder / "table.csv"


def median(taken: list[Taken]) -> Taken:
    """Return the medians."""
    return Taken(statistics.median(one.time for one in taken), statistics.median(one.processor for one in taken))


def best_batch(case: Case) -> int:
    """Return the batch with which ONNX Runtime alone takes least processor time."""
    tried = {batch: median([case.alone(batch) for _ in range(2)]).processor for batch in BATCHES}
    return min(tried, key=lambda batch: tried[batch])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    print("| model | rows | ONNX Runtime alone, rows/s (batch) | job, rows/s | share | of processor time | opening |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        files = models.build(Path(scratch) / "models")
        for kind, rows in (("cnn", given.pictures), ("mlp", given.rows)):
            case = make(kind, files[kind], Path(scratch) / kind, rows, given.cores)
            batch = best_batch(case)
            rounds = [(case.alone(batch), case.job()) for _ in range(given.rounds)]
            raw, ours = median([one for one, _ in rounds]), median([one for _, one in rounds])
            opening = statistics.median(case.opening() for _ in range(3))
            print(
                f"| {kind} | {rows:,} | {rows / raw.time:,.0f} ({batch}) | {rows / ours.time:,.0f} | "
                f"{raw.time / ours.time:.0%} | {raw.processor / ours.processor:.0%} | {opening:.2f} s |"
            )


if __name__ == "__main__":
    main()
