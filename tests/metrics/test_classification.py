"""Classification metrics against scipy, scikit-learn and values computed by statsmodels."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from fashion.metrics import classification

SEEDS = st.integers(0, 2**32 - 1)


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
    expected = stats.binomtest(successes, total).proportion_ci(confidence, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((1, 0), "total"), ((3, 2), "successes"), ((-1, 2), "successes"), ((1, 2, 1.0), "confidence")],
)
def test_wilson_interval_rejects_arguments_out_of_range(arguments, named):
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
    expected = sklearn_metrics.confusion_matrix(labels, predictions, labels=range(6))
    np.testing.assert_array_equal(matrix, expected)

    report = classification.classification_report(labels, predictions, list("abcdef"))
    expected = sklearn_metrics.precision_recall_fscore_support(labels, predictions, labels=range(6), zero_division=0)
    scores = [[getattr(score, key) for score in report] for key in ("precision", "recall", "f1", "support")]
    np.testing.assert_allclose(scores, expected)
    assert [score.name for score in report] == list("abcdef")


def test_absent_class_scores_zero_without_a_warning():
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
def test_confusion_matrix_rejects_wrong_arrays_by_name(labels, predictions, message):
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


def test_identical_classifiers_give_no_evidence():
    right = np.array([True, False, True])
    assert classification.mcnemar_exact(right, right) == classification.McNemar(0, 0, 1.0, 1.0, 1.0)
    assert classification.paired_bootstrap_difference(right, right, seed=0) == (0.0, 0.0, 0.0)


def test_bootstrap_interval_equals_one_that_resamples_rows():
    champion, challenger = paired(850, 60, 40, 50)
    expected = stats.bootstrap(
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
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.0015)


@given(SEEDS)
def test_bootstrap_is_deterministic_and_independent_of_row_order(seed):
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
def test_paired_comparison_rejects_wrong_arrays_by_name(champion, challenger, message):
    with pytest.raises(ValueError, match=message):
        classification.mcnemar_exact(champion, challenger)
    with pytest.raises(ValueError, match=message):
        classification.paired_bootstrap_difference(champion, challenger, seed=0)


def test_bootstrap_rejects_zero_resamples():
    with pytest.raises(ValueError, match="num_resamples must be at least 1, got 0"):
        classification.paired_bootstrap_difference(np.array([True]), np.array([True]), num_resamples=0, seed=0)
