import numpy as np
import pytest
from sklearn import metrics as reference

from yunmo.training import metrics


def answers(rows: int, classes: int, seed: int = 0):
    random = np.random.default_rng(seed)
    truth = random.integers(classes, size=rows)
    scores = random.normal(size=(rows, classes))
    scores[np.arange(rows), truth] += 1.2
    shares = np.exp(scores)
    return truth, shares / shares.sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_class_metrics_are_scikit_learns(classes):
    truth, probabilities = answers(400, classes)
    predicted = probabilities.argmax(1)
    matrix = metrics.confusion_matrix(truth, predicted, classes)
    scores, means = metrics.scores_of(matrix)
    precision, recall, f1, support = reference.precision_recall_fscore_support(truth, predicted)
    assert (matrix == reference.confusion_matrix(truth, predicted)).all()
    np.testing.assert_allclose(scores.precision, precision)
    np.testing.assert_allclose(scores.recall, recall)
    np.testing.assert_allclose(scores.f1, f1)
    assert (scores.support == support).all()
    assert means["accuracy"] == pytest.approx(reference.accuracy_score(truth, predicted))
    assert means["f1"] == pytest.approx(reference.f1_score(truth, predicted, average="macro"))
    assert means["f1_micro"] == pytest.approx(reference.f1_score(truth, predicted, average="micro"))


def test_macro_averages_leave_out_a_class_that_does_not_occur():
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    _, means = metrics.scores_of(metrics.confusion_matrix(truth, predicted, 5))
    assert means["recall"] == pytest.approx(0.75)
    assert means["precision"] == pytest.approx(reference.precision_score(truth, predicted, average="macro"))


def test_roc_auc_counts_ties_half_and_is_scikit_learns():
    random = np.random.default_rng(0)
    positive, score = random.random(300) < 0.3, random.integers(6, size=300) / 5
    assert metrics.roc_auc(positive, score) == pytest.approx(reference.roc_auc_score(positive, score))
    assert metrics.roc_auc(np.array([True, False]), np.array([0.5, 0.5])) == 0.5
    assert metrics.roc_auc(np.array([True, False]), np.array([0.1, 0.5])) == 0


@pytest.mark.parametrize("positive", [[True, True], [False, False]])
def test_roc_auc_needs_rows_of_both_kinds(positive):
    assert metrics.roc_auc(np.array(positive), np.array([0.2, 0.7])) is None


def test_log_loss_is_scikit_learns_and_finite_for_a_probability_of_0():
    truth, probabilities = answers(200, 4)
    assert metrics.log_losses(truth, probabilities).mean() == pytest.approx(reference.log_loss(truth, probabilities))
    assert np.isfinite(metrics.log_losses(np.array([0]), np.array([[0.0, 1.0]]))).all()


def test_calibration_error_by_hand():
    correct = np.array([True, False, True, True])
    confidence = np.array([0.62, 0.64, 0.95, 1.0])
    error, bins = metrics.calibration(correct, confidence)
    assert error == pytest.approx(abs(1 - 1.26) / 4 + abs(2 - 1.95) / 4)
    assert [place["count"] for place in bins if place["count"]] == [2, 2]
    assert bins[9]["accuracy"] == 0.5
    assert bins[9]["confidence"] == pytest.approx(0.63)
    assert bins[0]["accuracy"] is None


def test_a_bin_holds_its_upper_edge_and_0_is_in_the_first():
    assert metrics.calibration_bins(np.array([0.0, 1 / 15, 0.07, 1.0])).tolist() == [0, 0, 1, 14]


def test_r2_is_not_defined_for_equal_true_numbers():
    scores = metrics.regression_scores(np.array(1.0), np.array(4.0), np.array(0.0))
    assert np.isnan(scores["r2"])
    assert scores["rmse"] == 2
