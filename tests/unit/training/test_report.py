import json

import msgspec
import pytest
from tests.unit.training.made_reports import against, classified, epochs, estimated, report_of

from yunmo.core.recipe import METRICS
from yunmo.training.report import (
    LABELS,
    environment,
    format_metric,
    format_number,
    headline,
    summary,
    verdict,
    with_interval,
)


def test_a_report_is_json_and_holds_everything():
    report = report_of({"label": classified("abc")})
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["task"] == "classification"
    assert report["data"]["rows"]["train"] == 300
    assert report["data"]["digests"] == {"train": "sha256:ab"}
    assert report["decisions"] == [{"key": "train.epochs", "value": "5", "reason": "as many as fit"}]
    assert report["recipe"]["inputs"][0]["name"] == "size"
    assert report["recipe_yaml"].startswith("name:")
    assert report["environment"]["versions"]["yunmo"]
    assert [epoch["epoch"] for epoch in report["training"]["history"]] == [1, 2, 3]


def test_a_loss_that_was_not_a_number_is_null():
    history = [*epochs([0.5]), msgspec.structs.replace(epochs([0.5])[0], train_loss=float("nan"))]
    report = report_of({"label": classified("abc")}, history=history)
    json.dumps(report, allow_nan=False)
    assert report["training"]["history"][1]["train_loss"] is None


@pytest.mark.parametrize(("keep", "kept"), [("best", 2), ("last", 3)])
def test_the_kept_epoch(keep, kept):
    training = report_of({"label": classified("ab")}, keep=keep)["training"]
    assert training["best_epoch"] == 2
    assert training["kept_epoch"] == kept


def test_tasks():
    number, category = estimated(), classified("ab")
    assert report_of({"price": number})["task"] == "regression"
    assert report_of({"price": number, "label": category})["task"] == "mixed"


def test_summary_has_the_usual_metrics_or_those_asked_for():
    values = classified("abc")
    assert set(summary(report_of({"label": values}))) == set(METRICS["category"])
    asked = summary(report_of({"label": values}, metrics=("accuracy", "f1")))
    assert asked == {"accuracy": values["accuracy"], "f1": values["f1"]}
    several = summary(report_of({"label": values, "price": estimated()}, metrics=("accuracy", "mae")))
    assert set(several) == {"label.accuracy", "price.mae"}


def test_summary_leaves_out_what_is_not_defined():
    values = classified("abc") | {"roc_auc": None}
    report = report_of({"label": values})
    assert "roc_auc" not in summary(report)
    assert ("ROC-AUC", "not defined") in headline(report)


def test_headline_names_metrics_baselines_and_verdict():
    lines = dict(headline(report_of({"label": classified("abc")}, metrics=("accuracy",))))
    assert list(lines) == ["Accuracy", "Logistic regression", "Majority class", "Verdict"]
    assert " % (" in lines["Accuracy"]
    assert list(dict(headline(report_of({"label": classified("abc")}, metrics=("f1",), with_baselines=False)))) == [
        "F1 (macro)"
    ]


def figures(kind, metric, value, reach):
    return {"type": kind, metric: value, "intervals": {metric: [value - reach, value + reach]}}


@pytest.mark.parametrize(
    ("network", "linear", "simple", "best", "sentence"),
    [
        (0.9, 0.777, 0.5, "network", "The network is better than a linear model by 12.3 points of accuracy (95 % int"),
        (0.80, 0.777, 0.5, "undecided", "than a linear model by 2.3 points of accuracy, but the 95 % intervals overl"),
        (0.77, 0.777, 0.5, "linear", "A linear model is as good: use it"),
        (0.70, 0.777, 0.5, "linear", "A linear model is better than the network by 7.7 points of accuracy: use it"),
        (0.50, 0.490, 0.5, "simple", "Neither the network nor a linear model beats the majority class"),
    ],
)
def test_verdict_on_accuracy(network, linear, simple, best, sentence):
    values = [figures("category", "accuracy", value, 0.03) for value in (network, linear, simple)]
    found = verdict(values[0], against(values[1], values[2]))
    assert found["best"] == best
    assert sentence in found["sentence"]


def test_verdict_on_an_error_prefers_the_smaller():
    network, linear, simple = (figures("number", "rmse", value, 0.2) for value in (3.0, 4.0, 9.0))
    found = verdict(network, against(linear, simple))
    assert found["best"] == "network"
    assert "than a linear model: its error (RMSE) is smaller by 25.0 %" in found["sentence"]
    assert verdict(linear, against(network, simple))["best"] == "linear"
    assert verdict(simple, against(simple, simple))["best"] == "simple"


def test_verdict_without_intervals_never_claims_a_difference():
    network, linear, simple = ({"type": "category", "accuracy": value, "intervals": {}} for value in (1.0, 0.2, 0.1))
    assert verdict(network, against(linear, simple))["best"] == "undecided"


def test_formats():
    assert with_interval("accuracy", {"accuracy": 0.9741, "intervals": {"accuracy": [0.95, 0.989]}}) == (
        "97.4 % (95.0 to 98.9)"
    )
    assert with_interval("r2", {"r2": None, "intervals": {}}) == "not defined"
    assert format_metric("r2", -0.00001) == "0.000"
    assert format_number(1234567.0) == "1,234,567"
    assert format_number(0.000012345) == "1.23e-05"
    assert format_number(0) == "0"


def test_every_metric_of_a_recipe_has_a_label():
    assert {metric for metrics in METRICS.values() for metric in metrics} <= set(LABELS)


def test_environment_names_versions_and_cores():
    found = environment()
    assert found["cores"] >= 1
    assert set(found["versions"]) >= {"yunmo", "numpy"}
