"""Several labels at once: loss, judgement, calibration, thresholds, metrics, baselines."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from tests.unit.training.made_reports import report_of
from tests.unit.training.test_baselines import Arrays

from yunmo.core.errors import ModelFailed
from yunmo.core.fields import FieldStatistics, LabelsOutput, VectorField
from yunmo.training.baselines import baselines
from yunmo.training.calibrate import label_temperature
from yunmo.training.evaluate import evaluate
from yunmo.training.logistic import OneVsRest
from yunmo.training.losses import Judgement, Loss
from yunmo.training.metrics import best_threshold
from yunmo.training.report import summary, verdict
from yunmo.training.report_html import render_html

OUTPUT = LabelsOutput(name="topics", categories=("a", "b", "c"))
STATISTICS = {
    "topics": FieldStatistics(
        name="topics", type="labels", role="output", encode_version=1, count=9, categories=("a", "b", "c")
    )
}


def drawn(rows: int, labels: int = 3) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return labels, and logits that mean the very probabilities with which they were drawn."""
    dice = np.random.default_rng(0)
    logits = dice.normal(size=(rows, labels)) * 2
    return (dice.random((rows, labels)) < 1 / (1 + np.exp(-logits))).astype(np.uint8), logits


def measured(
    truth: np.ndarray[Any, Any], shares: np.ndarray[Any, Any], output: LabelsOutput = OUTPUT
) -> dict[str, Any]:
    return evaluate([output], STATISTICS, {"topics": truth}, {"topics": shares})["topics"]


def test_the_loss_is_the_mean_over_labels_and_of_each_member() -> None:
    torch.manual_seed(0)
    answers, target = torch.randn(2, 4, 3), torch.randint(2, (4, 3), dtype=torch.uint8)
    loss, shares = Loss((OUTPUT,), STATISTICS), answers.sigmoid()
    expected = -torch.where(target.bool(), shares, 1 - shares).log().mean((1, 2)).sum()
    assert float(loss({"topics": answers}, {"topics": target}, separate=False)) == pytest.approx(float(expected), 1e-5)
    own = torch.cat([target, target])
    assert float(loss({"topics": answers}, {"topics": own}, separate=True)) == pytest.approx(float(expected), 1e-5)


def test_more_f1_is_better() -> None:
    assert Judgement(9.0, "f1_micro", 0.9).better_than(Judgement(0.1, "f1_micro", 0.8))


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_the_temperature_undoes_logits_of_a_wrong_size(factor: float) -> None:
    truth, logits = drawn(8000)
    found = label_temperature(torch.from_numpy(logits) * factor, torch.from_numpy(truth))
    assert math.isclose(found, factor, rel_tol=0.05)


def test_the_best_threshold_is_that_of_the_best_f1_and_near_the_usual_one() -> None:
    truth = np.array([[1, 0], [1, 0], [0, 1]], np.bool_)
    assert best_threshold(truth, np.array([[0.33, 0.1], [0.9, 0.2], [0.1, 0.31]])) == (0.3, 1.0, 0.5)
    assert best_threshold(truth, truth.astype(np.float64))[0] == 0.5
    assert best_threshold(np.zeros((3, 2), np.bool_), np.zeros((3, 2))) == (0.5, 0.0, 0.0)


def test_metrics_are_those_of_scikit_learn() -> None:
    truth, logits = drawn(400)
    shares = 1 / (1 + np.exp(-logits))
    found = measured(truth, shares, msgspec.structs.replace(OUTPUT, threshold=0.4))
    held = shares >= 0.4
    assert found["threshold"] == 0.4
    expected = {
        "f1_micro": sklearn.f1_score(truth, held, average="micro"),
        "f1": sklearn.f1_score(truth, held, average="macro"),
        "precision": sklearn.precision_score(truth, held, average="macro"),
        "recall": sklearn.recall_score(truth, held, average="macro"),
        "subset_accuracy": sklearn.accuracy_score(truth, held),
        "hamming_loss": sklearn.hamming_loss(truth, held),
        "roc_auc": sklearn.roc_auc_score(truth, shares, average="macro"),
        "log_loss": np.mean([sklearn.log_loss(truth[:, label], shares[:, label]) for label in range(3)]),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert all(found["intervals"][name][0] < value < found["intervals"][name][1] for name, value in expected.items())
    each = sklearn.precision_recall_fscore_support(truth, held)
    for place, name in enumerate("abc"):
        scores = found["per_class"][name]
        own = [scores[key] for key in ("precision", "recall", "f1", "support")]
        assert own == pytest.approx([column[place] for column in each])
    assert [entry["row"] for entry in found["worst"]]
    assert all(entry["true"] != entry["predicted"] for entry in found["worst"])


def test_labels_that_no_row_has_are_noted_and_rows_of_none_are_right() -> None:
    truth = np.array([[1, 0, 0], [0, 0, 0]], np.uint8)
    found = measured(truth, truth.astype(np.float32))
    assert (found["subset_accuracy"], found["f1_micro"], found["f1"]) == (1.0, 1.0, 1.0)
    assert "recall and ROC-AUC of their own: b, c" in found["notes"][1]
    nothing = measured(np.zeros((2, 3), np.uint8), np.zeros((2, 3)))
    assert (nothing["roc_auc"], nothing["f1_micro"], nothing["subset_accuracy"]) == (None, 0.0, 1.0)
    with pytest.raises(ModelFailed, match="NaN"):
        measured(truth, np.full((2, 3), np.nan))


def test_the_page_of_a_report_shows_labels() -> None:
    truth, logits = drawn(60)
    values = measured(truth, 1 / (1 + np.exp(-logits)))
    values["worst"][0]["true"] = ["<b>", "c"]
    report = report_of({"topics": values})
    assert set(summary(report)) == set(values["intervals"])
    page = render_html(report)
    assert "Label by label" in page
    assert "&lt;b&gt;, c" in page
    assert "<b>" not in page


def test_a_verdict_compares_f1() -> None:
    network, linear, simple = (
        {"type": "labels", "f1_micro": value, "intervals": {"f1_micro": [value - 0.02, value + 0.02]}}
        for value in (0.9, 0.8, 0.3)
    )
    against = {"linear": {"name": "l", "metrics": linear}, "simple": {"name": "s", "metrics": simple}}
    found = verdict(network, against)
    assert (found["best"], found["metric"]) == ("network", "f1_micro")
    assert "by 10.0 points of F1 (micro)" in found["sentence"]


def test_baselines_are_the_usual_labels_and_one_model_each() -> None:
    dice = np.random.default_rng(0)
    x = dice.normal(size=(800, 3)).astype(np.float32)
    truth = np.stack([x[:, 0] > -1, x[:, 1] > 1, np.zeros(800)], 1).astype(np.uint8)
    output = LabelsOutput(name="y")
    found = baselines(Arrays([VectorField(name="x")], output, {"x": x}, truth, "abc"))["y"]
    assert found["simple"]["name"] == "most frequent labels"
    assert found["simple"]["metrics"]["per_class"]["a"]["recall"] == 1.0
    assert found["simple"]["metrics"]["per_class"]["b"]["recall"] == 0.0
    assert found["linear"]["name"] == "logistic regression of each label"
    assert found["linear"]["metrics"]["f1_micro"] > 0.97
    assert found["linear"]["metrics"]["per_class"]["c"]["support"] == 0


def test_models_without_time_answer_shares() -> None:
    truth = np.array([[1, 0], [1, 1], [0, 1], [1, 0]])
    model = OneVsRest(2)
    assert not model.fit(np.eye(4, dtype=np.float32), truth, 1.0, deadline=0.0)
    assert model.predict_proba(np.eye(4, dtype=np.float32))[0].tolist() == pytest.approx([4 / 6, 3 / 6])
    assert model.coef_.shape == (2, 0)
