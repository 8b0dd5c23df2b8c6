"""A pretrained encoder from a local folder: fine-tuned through a running service, verified, deployed, asked."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.command import Home, Service
from tests.fixtures.encoders import save_encoder

pytest.importorskip("transformers")
RECIPE = """\
name: reviews
data: {train: reviews.csv}
inputs: [{name: text, type: text, encoder: {type: pretrained, folder: encoders/tiny, tune: lora}}]
outputs: [{name: label, type: category}]
train: {epochs: 1, threads: 1, precision: fp32, batch_size: 16}
"""
ANSWERS = """
import json, sys
from pathlib import Path
from yunmo.inference.predictor import Predictor
predictor = Predictor.open(Path(sys.argv[1]), public_key_pem=Path(sys.argv[2]).read_text())
answer = predictor.predict([{"text": "a lovely film"}])[0]["label"]
print(json.dumps([answer, [name for name in ("torch", "transformers", "peft", "safetensors") if name in sys.modules]]))
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A folder with a recipe, its data and its encoder; the recipe."""
    folder = tmp_path / "job"
    save_encoder(folder / "encoders" / "tiny")
    with (folder / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((f"{'lovely' if n % 2 else 'dull'} film {n}", "good" if n % 2 else "bad") for n in range(80))
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder / "recipe.yaml"


def test_from_a_folder_to_answers(home: Home, job: Path, tmp_path: Path) -> None:
    with home.up() as service:
        trained = home.train(job)
        (run,) = home.ok("runs", "ls", "--json").json
        encoder = run["resolved"]["inputs"][0]["encoder"]
        assert encoder["folder"] == "tiny"
        assert encoder["digest"].startswith("sha256:")
        assert str(tmp_path) not in json.dumps(run)
        version = f"{trained['run']['model']}:{trained['run']['version']}"
        home.ok("models", "verify", version)
        home.ok("deploy", version)
        body = json.dumps({"text": "a lovely film"})
        native = service.curl("/api/v1/endpoints/reviews/predict", "--json", body)["predictions"][0]["label"]
        tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a lovely film"]}
        protocol = service.curl("/v2/models/reviews/infer", "--json", json.dumps({"inputs": [tensor]}))
        assert protocol["outputs"][0]["data"] == [native["value"]]
        refuses_paths(service, home, job, trained["run"]["recipe"])
    bundle = home.bundle(trained["run"])
    (key,) = home.path.glob("**/*.pub")
    done = subprocess.run(
        [sys.executable, "-c", ANSWERS, str(bundle), str(key)], capture_output=True, text=True, check=True
    )
    answer, loaded = json.loads(done.stdout)
    assert answer["probabilities"] == pytest.approx(native["probabilities"], abs=1e-5)
    assert loaded == []


def refuses_paths(service: Service, home: Home, job: Path, recipe: dict[str, object]) -> None:
    """No path that a request names is opened, and no file of another project is found."""
    (name,) = home.ok("data", "ls", "--json").json
    dataset = {"dataset": f"{name['name']}:{name['version']}"}
    for keys, words in (
        ({"folder": str(job.parent / "encoders" / "tiny")}, "which only its owner can read"),
        ({"folder": "tiny", "digest": f"sha256:{'0' * 64}"}, "was uploaded"),
    ):
        field = {"name": "text", "type": "text", "encoder": {"type": "pretrained", **keys}}
        asked = {"recipe": {**recipe, "data": dataset, "inputs": [field]}}
        assert words in service.curl("/api/v1/runs", "--json", json.dumps(asked))["detail"]
