"""Calibration against scikit-learn, values by hand, and temperatures that are known."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from fashion.metrics import calibration

SEEDS = st.integers(0, 2**32 - 1)


def random_predictions(seed: int, rows: int = 200, classes: int = 4):
    """Return logits that are mostly correct, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes)) + 2 * np.eye(classes)[labels]
    return logits, labels


def test_softmax_survives_large_logits_and_follows_the_temperature():
    np.testing.assert_allclose(calibration.softmax(np.array([[1000.0, 0.0]])), [[1.0, 0.0]])
    np.testing.assert_allclose(calibration.softmax(np.array([[2.0, 0.0]], np.float32), 2.0)[0, 0], 1 / (1 + np.exp(-1)))


def test_softmax_needs_no_scipy():
    script = """
import sys
sys.modules["scipy"] = None  # as where only the service is installed
import numpy as np
from fashion.metrics.calibration import softmax
assert softmax(np.array([[0.0, 0.0]])).tolist() == [[0.5, 0.5]]
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@given(SEEDS)
def test_scores_of_probabilities_equal_scikit_learn(seed):
    logits, labels = random_predictions(seed)
    probabilities = calibration.softmax(logits)
    assert calibration.negative_log_likelihood(probabilities, labels) == pytest.approx(
        sklearn_metrics.log_loss(labels, probabilities, labels=range(4))
    )
    expected = sklearn_metrics.brier_score_loss(labels, probabilities, labels=range(4), scale_by_half=False)
    assert calibration.brier_score(probabilities, labels) == pytest.approx(expected)


def test_likelihood_stays_finite_when_the_true_class_has_probability_zero():
    loss = calibration.negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1]))
    assert loss == pytest.approx(-np.log(np.finfo(float).eps))


def test_calibration_error_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.6, 0.4], [0.3, 0.7]])
    labels = np.array([0, 1, 0, 0])
    bins = calibration.reliability_bins(probabilities, labels, num_bins=10)
    assert bins.counts.tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0, 2]
    np.testing.assert_allclose(bins.confidence[[5, 6, 9]], [0.6, 0.7, 0.95])
    np.testing.assert_allclose(bins.accuracy[[5, 6, 9]], [1.0, 0.0, 0.5])
    assert np.isnan(bins.accuracy[0])
    # (1 * |1 - 0.6| + 1 * |0 - 0.7| + 2 * |0.5 - 0.95|) / 4
    assert calibration.expected_calibration_error(probabilities, labels, 10) == pytest.approx(0.5)


def test_a_certain_and_correct_classifier_has_no_calibration_error():
    assert calibration.expected_calibration_error(np.eye(3, dtype=np.float32), np.arange(3)) == 0.0


@given(SEEDS, st.integers(1, 30))
def test_calibration_error_is_bounded_and_independent_of_order(seed, num_bins):
    logits, labels = random_predictions(seed)
    probabilities = calibration.softmax(logits)
    error = calibration.expected_calibration_error(probabilities, labels, num_bins)
    bins = calibration.reliability_bins(probabilities, labels, num_bins)
    held = bins.counts > 0
    overall = np.mean(probabilities.argmax(axis=1) == labels)
    # A mean of distances is at least the distance of the means.
    assert abs(overall - probabilities.max(axis=1).mean()) - 1e-12 <= error <= 1
    assert bins.counts.sum() == len(labels)
    assert np.average(bins.accuracy[held], weights=bins.counts[held]) == pytest.approx(overall)
    assert np.all(bins.confidence[held] <= bins.edges[1:][held] + 1e-12)

    rows, columns = np.random.default_rng(seed).permutation(len(labels)), np.array([2, 0, 3, 1])
    moved = probabilities[rows][:, columns]
    moved_labels = np.argsort(columns)[labels[rows]]
    assert calibration.expected_calibration_error(moved, moved_labels, num_bins) == pytest.approx(error)


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_fitted_temperature_recovers_the_one_that_made_the_labels(true_temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3, size=(20_000, 5))
    truth = calibration.softmax(logits, true_temperature)
    labels = (truth.cumsum(axis=1) < rng.random((len(truth), 1))).sum(axis=1)
    fitted = calibration.fit_temperature(logits.astype(np.float32), labels)
    assert fitted == pytest.approx(true_temperature, rel=0.03)
    before = calibration.expected_calibration_error(calibration.softmax(logits), labels)
    after = calibration.expected_calibration_error(calibration.softmax(logits, fitted), labels)
    assert after < 0.02
    assert true_temperature == 1.0 or after < before / 5


@given(SEEDS, st.floats(0.25, 4))
def test_fitted_temperature_scales_with_the_logits_and_minimises_the_loss(seed, scale):
    logits, labels = random_predictions(seed)
    fitted = calibration.fit_temperature(logits, labels)
    assert calibration.fit_temperature(logits * scale, labels) == pytest.approx(fitted * scale, rel=1e-3)

    def loss(temperature: float) -> float:
        return calibration.negative_log_likelihood(calibration.softmax(logits, temperature), labels)

    assert loss(fitted) <= min(loss(fitted * 1.05), loss(fitted / 1.05), loss(1.0)) + 1e-9


def test_fitted_temperature_of_a_perfect_classifier_stays_in_bounds():
    low, high = calibration.TEMPERATURE_BOUNDS
    assert low <= calibration.fit_temperature(np.eye(3), np.arange(3)) <= 1.001 * low
    assert high >= calibration.fit_temperature(np.eye(3), np.array([1, 2, 0])) >= high / 1.001


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "must be .* not empty"),
        (np.array([[0.5, np.nan]]), np.array([0]), "1 values that are NaN"),
        (np.array([0.5, 0.5]), np.array([0]), r"got shape \(2,\)"),
        (np.array([[0.5, 0.5]]), np.array([0, 1]), r"labels must be \(1,\) integers"),
        (np.array([[0.5, 0.5]]), np.array([0.0]), r"labels must be \(1,\) integers"),
        (np.array([[0.5, 0.5]]), np.array([2]), r"labels must be in \[0, 2\), got 2 to 2"),
    ],
)
def test_calibration_rejects_wrong_arrays_by_name(scores, labels, message):
    for score in (
        calibration.fit_temperature,
        calibration.expected_calibration_error,
        calibration.brier_score,
        calibration.negative_log_likelihood,
    ):
        with pytest.raises(ValueError, match=message):
            score(scores, labels)


def test_logits_are_rejected_as_probabilities():
    with pytest.raises(ValueError, match="probabilities must be at least 0 and sum to 1"):
        calibration.brier_score(np.array([[3.0, -2.0]]), np.array([0]))


def test_calibration_rejects_settings_out_of_range():
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        calibration.reliability_bins(np.array([[0.5, 0.5]]), np.array([0]), 0)
    for temperature in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"temperature must be positive and finite, got {temperature}"):
            calibration.softmax(np.array([[0.5, 0.5]]), temperature)


def test_few_rows_that_are_all_right_do_not_make_a_model_certain() -> None:
    logits = np.array([[3.0, 0.0], [0.0, 3.0]] * 3)
    labels = np.array([0, 1] * 3)
    assert calibration.fit_temperature(logits, labels) < 0.1
    assert 0.5 < calibration.fit_temperature(logits, labels, prior=2.0) < 1


def test_a_prior_counts_for_nothing_with_many_rows() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 10_000)
    logits = rng.normal(size=(10_000, 10)) + 2 * np.eye(10)[labels]
    assert calibration.fit_temperature(2 * logits, labels, prior=2.0) == pytest.approx(
        calibration.fit_temperature(2 * logits, labels), rel=2e-3
    )
