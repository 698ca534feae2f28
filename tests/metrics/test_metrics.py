"""Metrics and calibration against scipy, scikit-learn and values computed by statsmodels."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from fashion.metrics import calibration, classification

SEEDS = st.integers(0, 2**32 - 1)


def random_predictions(seed: int, rows: int = 200, classes: int = 4):
    """Logits that are right more often than not, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes)) + 2 * np.eye(classes)[labels]
    return logits, labels


# Intervals


@pytest.mark.parametrize(
    ("successes", "total", "confidence", "expected"),
    [
        # statsmodels 0.14: proportion_confint(..., method="wilson")
        (9320, 10000, 0.95, (0.9268981427551122, 0.9367700826526233)),
        (0, 10, 0.95, (0.0, 0.27753279986288926)),
        (3, 7, 0.90, (0.186443190363956, 0.7105229089864071)),
    ],
)
def test_wilson_interval_equals_statsmodels(successes, total, confidence, expected):
    assert classification.wilson_interval(successes, total, confidence) == pytest.approx(expected, abs=1e-12)


@given(st.integers(1, 10**7), st.floats(0, 1), st.floats(0.01, 0.999))
def test_wilson_interval_contains_the_proportion_and_equals_scipy(total, share, confidence):
    successes = round(share * total)
    low, high = classification.wilson_interval(successes, total, confidence)
    assert 0 <= low <= successes / total <= high <= 1
    theirs = stats.binomtest(successes, total).proportion_ci(confidence, method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((1, 0), "total"), ((3, 2), "successes"), ((-1, 2), "successes"), ((1, 2, 1.0), "confidence")],
)
def test_wilson_interval_refuses_nonsense_by_name(arguments, named):
    with pytest.raises(ValueError, match=f"^{named} must"):
        classification.wilson_interval(*arguments)


# Counts and classes


@given(SEEDS)
def test_counts_and_scores_equal_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    # 12 rows of 6 classes: classes never seen and never predicted are common.
    labels, predictions = rng.integers(0, 6, 12), rng.integers(0, 6, 12)
    matrix = classification.confusion_matrix(labels, predictions, 6)
    assert matrix.dtype == np.int64
    theirs = sklearn_metrics.confusion_matrix(labels, predictions, labels=range(6))
    np.testing.assert_array_equal(matrix, theirs)

    report = classification.classification_report(labels, predictions, list("abcdef"))
    theirs = sklearn_metrics.precision_recall_fscore_support(labels, predictions, labels=range(6), zero_division=0)
    ours = [[getattr(score, key) for score in report] for key in ("precision", "recall", "f1", "support")]
    np.testing.assert_allclose(ours, theirs)
    assert [score.name for score in report] == list("abcdef")


def test_class_never_seen_nor_predicted_scores_zero_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = classification.classification_report(np.array([0, 0]), np.array([0, 0]), ["coat", "bag"])
    assert report == [
        classification.ClassScore("coat", 1.0, 1.0, 1.0, 2),
        classification.ClassScore("bag", 0.0, 0.0, 0.0, 0),
    ]


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        (np.array([], int), np.array([], int), "labels is empty"),
        (np.array([0]), np.array([0, 1]), "labels has 1 rows but predictions has 2"),
        (np.array([0.0, np.nan]), np.array([0, 1]), "labels must be .* integer"),
        (np.array([0, 1]), np.array([[0], [1]]), "predictions must be"),
        (np.array([0, 3]), np.array([0, 1]), r"labels must be in \[0, 3\), got 0 to 3"),
        (np.array([0, 1]), np.array([-1, 1]), r"predictions must be in \[0, 3\), got -1 to 1"),
    ],
)
def test_confusion_matrix_refuses_nonsense_by_name(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        classification.confusion_matrix(labels, predictions, 3)


# Two classifiers on the same rows


def paired(both: int, champion_only: int, challenger_only: int, neither: int):
    """Two (N,) bool arrays with these counts, in a shuffled order."""
    champion = np.repeat([True, True, False, False], [both, champion_only, challenger_only, neither])
    challenger = np.repeat([True, False, True, False], [both, champion_only, challenger_only, neither])
    order = np.random.default_rng(0).permutation(len(champion))
    return champion[order], challenger[order]


@pytest.mark.parametrize(
    ("b", "c", "expected"),
    # statsmodels 0.14: mcnemar([[0, b], [c, 0]], exact=True).pvalue
    [(60, 40, 0.05688793364098089), (5, 12, 0.143463134765625), (4, 4, 1.0), (1, 0, 1.0)],
)
def test_mcnemar_equals_statsmodels(b, c, expected):
    result = classification.mcnemar_exact(*paired(700, b, c, 30))
    assert (result.b, result.c) == (b, c)
    assert result.p_value == pytest.approx(expected)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_one_sided_equals_a_binomial_test_and_swaps_with_the_classifiers(b, c):
    champion, challenger = paired(5, b, c, 1)
    result = classification.mcnemar_exact(champion, challenger)
    swapped = classification.mcnemar_exact(challenger, champion)
    assert (swapped.p_value, swapped.p_worse) == (result.p_value, result.p_better)
    if b + c:
        assert result.p_worse == pytest.approx(stats.binomtest(b, b + c, alternative="greater").pvalue)
        assert result.p_value == pytest.approx(stats.binomtest(b, b + c).pvalue)


def test_identical_classifiers_are_no_evidence_of_anything():
    right = np.array([True, False, True])
    assert classification.mcnemar_exact(right, right) == classification.McNemar(0, 0, 1.0, 1.0, 1.0)
    assert classification.paired_bootstrap_difference(right, right, seed=0) == (0.0, 0.0, 0.0)


def test_bootstrap_interval_equals_one_that_resamples_rows():
    champion, challenger = paired(850, 60, 40, 50)
    theirs = stats.bootstrap(
        (challenger.astype(float) - champion.astype(float),),
        np.mean,
        n_resamples=4000,
        method="percentile",
        confidence_level=0.9,
        rng=np.random.default_rng(1),
    ).confidence_interval
    difference, low, high = classification.paired_bootstrap_difference(
        champion, challenger, confidence=0.9, num_resamples=20_000, seed=2
    )
    assert difference == pytest.approx(-0.02)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.0015)


@given(SEEDS)
def test_bootstrap_is_deterministic_and_blind_to_the_order_of_rows(seed):
    rng = np.random.default_rng(seed)
    champion, challenger = rng.random(50) < 0.8, rng.random(50) < 0.6
    order = rng.permutation(50)
    first = classification.paired_bootstrap_difference(champion, challenger, num_resamples=500, seed=3)
    assert first == classification.paired_bootstrap_difference(
        champion[order], challenger[order], num_resamples=500, seed=3
    )
    difference, low, high = first
    assert low <= difference <= high


@pytest.mark.parametrize(
    ("champion", "challenger", "message"),
    [
        (np.array([], bool), np.array([], bool), "empty"),
        (
            np.array([True]),
            np.array([True, False]),
            "champion_correct has 1 rows but .* has 2",
        ),
        (np.array([1.0, np.nan]), np.array([True, False]), "champion_correct must be"),
        (np.array([True, False]), np.array([1, 0]), "challenger_correct must be"),
    ],
)
def test_paired_comparison_refuses_nonsense_by_name(champion, challenger, message):
    with pytest.raises(ValueError, match=message):
        classification.mcnemar_exact(champion, challenger)
    with pytest.raises(ValueError, match=message):
        classification.paired_bootstrap_difference(champion, challenger, seed=0)


def test_bootstrap_refuses_no_resamples():
    with pytest.raises(ValueError, match="num_resamples must be at least 1, got 0"):
        classification.paired_bootstrap_difference(np.array([True]), np.array([True]), num_resamples=0, seed=0)


# Calibration


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
    theirs = sklearn_metrics.brier_score_loss(labels, probabilities, labels=range(4), scale_by_half=False)
    assert calibration.brier_score(probabilities, labels) == pytest.approx(theirs)


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


def test_a_sure_and_right_classifier_has_no_calibration_error():
    assert calibration.expected_calibration_error(np.eye(3, dtype=np.float32), np.arange(3)) == 0.0


@given(SEEDS, st.integers(1, 30))
def test_calibration_error_is_bounded_and_blind_to_order(seed, num_bins):
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


def test_fitted_temperature_of_a_classifier_that_is_always_right_stays_in_bounds():
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
def test_calibration_refuses_nonsense_by_name(scores, labels, message):
    for score in (
        calibration.fit_temperature,
        calibration.expected_calibration_error,
        calibration.brier_score,
        calibration.negative_log_likelihood,
    ):
        with pytest.raises(ValueError, match=message):
            score(scores, labels)


def test_logits_are_refused_as_probabilities():
    with pytest.raises(ValueError, match="probabilities must be at least 0 and sum to 1"):
        calibration.brier_score(np.array([[3.0, -2.0]]), np.array([0]))


def test_calibration_refuses_bad_settings_by_name():
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        calibration.reliability_bins(np.array([[0.5, 0.5]]), np.array([0]), 0)
    for temperature in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"temperature must be positive and finite, got {temperature}"):
            calibration.softmax(np.array([[0.5, 0.5]]), temperature)
