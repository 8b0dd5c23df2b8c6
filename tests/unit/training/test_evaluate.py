import json

import numpy as np
import pytest

from yunmo.core.errors import DataError, ModelFailed
from yunmo.core.fields import CategoryOutput, FieldStatistics, NumberOutput
from yunmo.training.evaluate import CURVE_POINTS, MATRIX_CLASSES, WORST, evaluate, flatten, predict_split

CATEGORIES = ("bird", "cat", "dog")


def statistics(name, categories=()):
    kind = "category" if categories else "number"
    return FieldStatistics(
        name=name, type=kind, role="output", encode_version=1, count=10, categories=tuple(categories)
    )


def classify(truth, probabilities, categories=CATEGORIES):
    found = evaluate(
        [CategoryOutput(name="label")],
        {"label": statistics("label", categories)},
        {"label": np.array(truth)},
        {"label": np.array(probabilities, np.float32)},
    )
    json.dumps(found, allow_nan=False)
    return found["label"]


def estimate(truth, predicted):
    found = evaluate(
        [NumberOutput(name="price")],
        {"price": statistics("price")},
        {"price": np.array(truth, np.float32)},
        {"price": np.array(predicted, np.float32)},
    )
    json.dumps(found, allow_nan=False)
    return found["price"]


def random_answers(rows, classes, seed=0):
    random = np.random.default_rng(seed)
    truth = random.integers(classes, size=rows)
    scores = np.exp(random.normal(size=(rows, classes)) + 2 * np.eye(classes)[truth])
    return truth, scores / scores.sum(1, keepdims=True)


def test_metrics_of_a_classification_by_hand():
    found = classify([0, 1, 2, 2], [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6], [0.1, 0.6, 0.3]])
    assert found["accuracy"] == 0.75
    assert found["f1_micro"] == 0.75
    assert found["confusion_matrix"] == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert found["per_class"]["dog"]["recall"] == 0.5
    assert found["per_class"]["cat"]["precision"] == 0.5
    assert found["recall"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert found["confusions"] == [{"true": "dog", "predicted": "cat", "count": 1}]
    assert found["worst"] == [
        {
            "row": 3,
            "true": "dog",
            "predicted": "cat",
            "probability": pytest.approx(0.6),
            "true_probability": pytest.approx(0.3),
        }
    ]


def test_every_metric_has_an_interval_around_it():
    found = classify(*random_answers(300, 3))
    names = {"accuracy", "precision", "recall", "f1", "f1_micro", "roc_auc", "calibration_error", "log_loss"}
    assert set(found["intervals"]) == names
    for name in names:
        low, high = found["intervals"][name]
        assert low <= found[name] <= high
    found = estimate(np.arange(50), np.arange(50) + np.sin(np.arange(50)))
    for name in ("mae", "mse", "rmse", "r2"):
        low, high = found["intervals"][name]
        assert low < found[name] < high


def test_two_classes_have_one_roc_auc():
    truth, probabilities = random_answers(200, 2)
    found = classify(truth, probabilities, ("no", "yes"))
    assert found["per_class"]["no"]["roc_auc"] == pytest.approx(found["roc_auc"])
    assert list(found["roc"]) == ["yes"]


def test_a_class_absent_from_the_rows_has_no_roc_auc_and_a_note_says_so():
    truth, probabilities = random_answers(60, 2)
    probabilities = np.column_stack((probabilities * 0.9, np.full(60, 0.1)))
    found = classify(truth, probabilities)
    assert found["per_class"]["dog"]["roc_auc"] is None
    assert found["per_class"]["dog"]["recall_interval"] is None
    areas = [found["per_class"][name]["roc_auc"] for name in ("bird", "cat")]
    assert found["roc_auc"] == pytest.approx(np.mean(areas))
    assert any("dog" in note for note in found["notes"])


def test_a_single_row():
    found = classify([1], [[0.2, 0.5, 0.3]])
    assert found["accuracy"] == 1
    assert found["roc_auc"] is None
    assert list(found["intervals"]) == ["accuracy", "f1_micro"]
    assert any("Only 1 row:" in note for note in found["notes"])
    assert any("one class" in note for note in found["notes"])
    found = estimate([3.0], [4.0])
    assert (found["mae"], found["r2"], found["intervals"]) == (1.0, None, {})


def test_nan_answers_name_the_output_and_the_first_row():
    with pytest.raises(ModelFailed, match=r"output 'label', row 1: .*NaN or infinity for 1 of 2 rows"):
        classify([0, 1], [[1, 0, 0], [np.nan, 0, 0]])
    with pytest.raises(ModelFailed, match=r"output 'price', row 0"):
        estimate([1, 2], [np.inf, 2])


def test_answers_of_another_shape_are_refused():
    with pytest.raises(ModelFailed, match=r"shape \(2, 2\), not \(2, 3\)"):
        classify([0, 1], [[1, 0], [0, 1]])


def test_a_missing_or_unknown_true_value_names_its_row():
    with pytest.raises(DataError, match="row 1: the true value is missing"):
        estimate([1, np.nan], [1, 2])
    for unknown in (-1, 3):
        with pytest.raises(DataError, match="row 2: a true class"):
            classify([0, 1, unknown], np.full((3, 3), 1 / 3))
    with pytest.raises(DataError, match="no rows"):
        classify(np.zeros(0, int), np.zeros((0, 3)))


def test_many_classes_and_rows_stay_small():
    classes = MATRIX_CLASSES + 1
    truth, probabilities = random_answers(1000, classes)
    found = classify(truth, probabilities, [f"class {place}" for place in range(classes)])
    assert found["confusion_matrix"] is None
    assert len(found["confusions"]) <= WORST
    assert len(found["worst"]) == WORST
    assert all(len(curve["true_positive_rate"]) <= CURVE_POINTS for curve in found["roc"].values())
    assert len(json.dumps(found)) < 100_000


def test_worst_mistakes_begin_with_the_surest():
    found = classify(*random_answers(300, 3))
    sure = [entry["probability"] for entry in found["worst"]]
    assert sure == sorted(sure, reverse=True)
    residuals = [abs(entry["residual"]) for entry in estimate(range(40), np.arange(40) ** 1.1)["worst"]]
    assert residuals == sorted(residuals, reverse=True)


def test_numbers_by_hand():
    found = estimate([1, 2, 3, 4], [1, 2, 3, 8])
    assert (found["mae"], found["mse"], found["rmse"]) == (1, 4, 2)
    assert found["r2"] == pytest.approx(1 - 16 / 5)
    assert found["residuals"]["mean"] == 1
    assert sum(found["residuals"]["histogram"]["counts"]) == 4
    assert found["worst"][0] == {"row": 3, "true": 4, "predicted": 8, "residual": 4}


def test_equal_true_numbers_have_no_r2():
    found = estimate([5] * 20, np.linspace(4, 6, 20))
    assert found["r2"] is None
    assert "r2" not in found["intervals"]
    assert any("R²" in note for note in found["notes"])


def test_flatten_puts_an_only_output_at_the_top():
    assert flatten({"label": {"accuracy": 1.0}}) == {"output": "label", "accuracy": 1.0}
    assert flatten({"a": {}, "b": {}}) == {"outputs": {"a": {}, "b": {}}}


def test_predict_split_joins_batches_in_order():
    sizes = []

    def double(inputs):
        sizes.append(len(inputs["x"]))
        return {"y": inputs["x"] * 2}

    found = predict_split(double, {"x": np.arange(10)}, batch=4)
    assert found["y"].tolist() == list(range(0, 20, 2))
    assert sizes == [4, 4, 2]
    with pytest.raises(DataError):
        predict_split(double, {"x": np.arange(0)}, batch=4)
