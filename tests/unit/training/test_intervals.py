import numpy as np
import pytest

from yunmo.training import intervals
from yunmo.training.metrics import confusion_matrix, scores_of


def test_wilson_is_the_published_interval():
    low, high = intervals.wilson(8, 10)
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


@pytest.mark.parametrize(("successes", "rows"), [(0, 5), (5, 5), (0, 1), (1, 1)])
def test_wilson_at_the_ends_holds_the_share_and_stays_within_0_and_1(successes, rows):
    low, high = intervals.wilson(successes, rows)
    assert 0 <= low <= successes / rows <= high <= 1
    assert high - low > 0.3


def test_wilson_without_rows_is_none():
    assert intervals.wilson(0, 0) is None


def test_confusion_intervals_are_those_of_drawing_rows_again():
    random = np.random.default_rng(0)
    truth = random.integers(3, size=200)
    predicted = np.where(random.random(200) < 0.7, truth, random.integers(3, size=200))
    found = intervals.confusion_intervals(confusion_matrix(truth, predicted, 3), seed=0)
    drawn = []
    for _ in range(1500):
        rows = random.integers(200, size=200)
        drawn.append(float(scores_of(confusion_matrix(truth[rows], predicted[rows], 3))[1]["f1"]))
    assert found["f1"] == pytest.approx(np.percentile(drawn, (2.5, 97.5)), abs=0.015)


def test_regression_intervals_hold_the_values_and_are_seeded():
    random = np.random.default_rng(0)
    truth = random.normal(size=300)
    residuals = random.normal(size=300) * 0.4
    found = intervals.regression_intervals(truth, residuals, seed=1)
    assert found == intervals.regression_intervals(truth, residuals, seed=1)
    assert found != intervals.regression_intervals(truth, residuals, seed=2)
    low, high = found["rmse"]
    assert low < np.sqrt((residuals**2).mean()) < high
    assert high - low < 0.1
    low, high = found["r2"]
    assert low < 1 - (residuals**2).mean() / truth.var() < high


def test_a_mean_gets_the_interval_that_theory_gives_it():
    losses = np.random.default_rng(0).exponential(size=2000)
    found = intervals.probability_intervals(losses, np.ones(2000, bool), np.ones(2000), seed=0)
    reach = intervals.Z95 * losses.std() / np.sqrt(2000)
    assert found["log_loss"] == pytest.approx((losses.mean() - reach, losses.mean() + reach), abs=0.15 * reach)


def test_the_interval_of_the_calibration_error_holds_it():
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, size=150)
    correct = random.random(150) < confidence
    gaps = [abs((confidence - correct)[np.ceil(confidence * 15) == place].sum()) for place in range(1, 16)]
    low, high = intervals.probability_intervals(np.ones(150), correct, confidence, seed=0)["calibration_error"]
    assert low <= sum(gaps) / 150 <= high


def test_roc_auc_interval_agrees_with_hanley_and_mcneil():
    random = np.random.default_rng(0)
    positive = np.arange(400) < 200
    score = random.normal(size=400) + positive
    low, high = intervals.roc_auc_interval(positive[:, None], score[:, None], seed=0)
    area = np.mean(score[positive][:, None] > score[~positive][None])
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + 199 * (first - area**2) + 199 * (second - area**2)) / 200**2
    assert high - low == pytest.approx(2 * intervals.Z95 * np.sqrt(variance), rel=0.15)
    assert low < area < high


def test_few_rows_have_no_bootstrap_interval():
    few = intervals.FEWEST_ROWS - 1
    assert intervals.confusion_intervals(np.array([[few, 0], [0, 0]]), 0) == {}
    assert intervals.regression_intervals(np.ones(few), np.ones(few), 0) == {}
    assert intervals.probability_intervals(np.ones(few), np.ones(few, bool), np.ones(few), 0) == {}
    assert intervals.roc_auc_interval(np.eye(few, 2, dtype=bool), np.eye(few, 2), 0) is None


def test_very_large_data_have_no_roc_auc_interval_instead_of_minutes_of_waiting():
    scores = np.broadcast_to(0.5, (1_100_000, 1))
    assert intervals.roc_auc_interval(scores > 1, scores, 0) is None
