"""Several labels at once: from cells that hold them joined to answers by every way, and what is said of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnxruntime
from tests.e2e.command import Service

from yunmo.inference.predictor import Predictor

WORDS = {
    "sport": ("match", "goal", "coach"),
    "politics": ("vote", "minister", "law"),
    "music": ("song", "band", "concert"),
}


def messages(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return texts with their labels joined; about one in eight has none."""
    dice = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        held = [label for label in WORDS if dice.random() < 0.6]
        words = [str(word) for label in held for word in dice.choice(WORDS[label], 2)]
        text = " ".join(dice.permutation([*words, "news", "of", "day", str(number)]))
        rows.append((text, ";".join(dice.permutation(held)) if held else ""))
    return rows


def table(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("message", "topics"), *rows])
    return path


def test_from_joined_labels_to_answers_by_every_way(live: Service, tmp_path: Path) -> None:
    rows = [*messages(480), ("a match twice 7", "sport; sport")]
    source = table(tmp_path / "news.csv", rows)
    settings = ("evaluate.cross_validation.folds=2", "train.validation=0.3", "train.epochs=10")
    options = [part for setting in settings for part in ("--set", setting)]
    result = live.home.train(source, "--target", "topics", *options)
    report, run = result["report"], result["run"]
    reasons = {each["key"]: each for each in report["decisions"]}
    assert reasons["outputs.topics"]["value"] == "labels"
    assert "if not, write outputs: [{name: topics, type: category}]" in reasons["outputs.topics"]["reason"]
    assert "F1 (micro)" in reasons["topics.threshold"]["reason"]
    found = report["test"]["topics"]
    assert found["f1_micro"] > 0.95
    assert found["threshold"] == run["resolved"]["outputs"][0]["threshold"]
    against = report["baselines"]["topics"]
    assert against["linear"]["metrics"]["f1_micro"] > against["simple"]["metrics"]["f1_micro"]
    assert {word["word"] for word in against["linear"]["words"]["sport"][:3]} == set(WORDS["sport"])
    assert len(report["cross_validation"]["outputs"]["topics"]["f1_micro"]["values"]) == 2
    (issue,) = [each for each in report["data"]["cleaning"]["issues"] if each["reason"] == "a label twice"]
    assert issue["rows"] == ["news.csv, row 482"]

    bundle = live.home.bundle(run)
    assert "(any of music, politics, sport)" in (bundle / "README.md").read_text()
    assert "Label by label" in (bundle / "report.html").read_text()
    live.home.ok("deploy", "news:1")
    asked = [{"message": "goal of the coach, and a song"}, {"message": "news of day 500"}, {"message": "minister"}]
    answers = live.curl("/api/v1/endpoints/news/predict", "--json", json.dumps(asked))["predictions"]
    assert [answer["topics"]["value"] for answer in answers] == [["music", "sport"], [], ["politics"]]
    shares = [list(answer["topics"]["probabilities"].values()) for answer in answers]
    assert list(answers[0]["topics"]["probabilities"]) == ["music", "politics", "sport"]

    tensor = {"name": "message", "datatype": "BYTES", "shape": [3], "data": [row["message"] for row in asked]}
    oip = live.curl("/v2/models/news/infer", "--json", json.dumps({"inputs": [tensor]}))["outputs"]
    assert [(each["name"], each["datatype"], each["shape"]) for each in oip] == [
        ("topics", "BYTES", [3]),
        ("topics.probabilities", "FP32", [3, 3]),
    ]
    assert oip[0]["data"] == ["music;sport", "", "politics"]
    assert np.allclose(np.reshape(oip[1]["data"], (3, 3)), shares, atol=1e-6)
    form = live.curl("/openapi.json")["paths"]["/api/v1/endpoints/news/predict"]["post"]["responses"]["200"]
    items = form["content"]["application/json"]["schema"]["properties"]["predictions"]["items"]
    assert items["properties"]["topics"]["properties"]["value"]["items"]["enum"] == ["music", "politics", "sport"]

    predictor = Predictor.open(bundle, public_key_pem=(live.home.path / "signing.pub").read_text())
    tensors = predictor.encode(asked)
    alone = onnxruntime.InferenceSession(bundle / "graph.onnx").run(["topics"], dict(tensors))[0]
    assert np.allclose(alone, shares, atol=1e-6)

    table(tmp_path / "asked.csv", [(row["message"], "") for row in asked])
    live.home.ok("predict", "news", tmp_path / "asked.csv", "-o", tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["predicted_topics"] for row in written] == ["music;sport", "", "politics"]

    measured = live.home.ok("evaluate", "news:1", table(tmp_path / "more.csv", messages(60, seed=1)), "--json").json
    assert measured["type"] == "labels"
    assert measured["f1_micro"] > 0.95
    assert set(measured["per_class"]["music"]) >= {"precision", "recall", "f1", "support"}
    table(tmp_path / "other.csv", [("a match", "sport;chess"), ("a vote", "politics")])
    refused = live.home.refused("evaluate", "news:1", tmp_path / "other.csv")
    assert "the label 'chess' is not among the categories" in refused
    assert "other.csv, row 2" in refused
