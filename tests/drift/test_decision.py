"""The decision on a window: exact tests, few false alarms, and few missed shifts."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support import shifts
from support.imagined import CLASSES, HARMLESS, SETTINGS, decide, sample_predictions

from fashion.config.compose import compose, load_as
from fashion.config.drift import DecisionConfig, DriftConfig
from fashion.data.dataset import Dataset
from fashion.drift.decision import WindowStats
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.result import FAMILIES, empty_window, result_as_dict
from fashion.images.corruptions import corrupt
from fashion.model.package import Package
from fashion.model.predictor import Predictor
from fashion.model.reference import Reference
from fashion.predictions.record import UNLABELLED

SLIGHT = ("slightly brighter", "slightly darker", "pale", "grainy", "soft")
"""Changes of pictures that cost less than 1.5 points of coverage; of the others, the least costs 3.5."""


@pytest.fixture(scope="module")
def reference() -> Reference:
    rows = sample_predictions(2000, seed=1)
    truth = rows.labels.copy()
    truth[:200] = (truth[:200] + 1) % 3  # 90 % right
    return Reference(truth, rows)


@pytest.fixture(scope="module")
def reference_stats(reference: Reference) -> ReferenceStats:
    return ReferenceStats(reference, HARMLESS, CLASSES)


class TestDistances:
    @given(st.integers(0, 2**32 - 1), st.integers(60, 400), st.floats(-1, 1), st.integers(1, 5))
    @settings(max_examples=25, deadline=None)
    def test_counted_distances_equal_those_of_scipy(
        self, reference: Reference, reference_stats: ReferenceStats, seed: int, rows: int, shift: float, batches: int
    ) -> None:
        window = sample_predictions(rows, seed=seed, shift=shift)
        found = decide(reference_stats, window, batches=batches)
        both = [
            np.concatenate([part.statistics, part.probabilities], axis=1) for part in (window, reference.predictions)
        ]
        assert len(found.columns) == 8 + len(CLASSES) + 1
        for column, now, before in zip(found.columns, both[0].T, both[1].T, strict=False):
            expected = stats.ks_2samp(now, before, method="asymp")
            assert column.distance == pytest.approx(expected.statistic, abs=1e-12), column.name
            assert column.p_value == pytest.approx(expected.pvalue, rel=1e-9), column.name

    def test_labels_are_compared_by_chi_square(self, reference: Reference, reference_stats: ReferenceStats) -> None:
        window = sample_predictions(300, seed=3)
        column = decide(reference_stats, window).columns[-1]
        table = [np.bincount(part.labels, minlength=3) for part in (window, reference.predictions)]
        assert column.p_value == pytest.approx(stats.chi2_contingency(table).pvalue)

    def test_batches_and_their_order_change_nothing(self, reference_stats: ReferenceStats) -> None:
        window = sample_predictions(500, seed=4)
        mixed = window[np.random.default_rng(0).permutation(500)]
        first, second = decide(reference_stats, window), decide(reference_stats, mixed, batches=9)
        assert first.columns == second.columns
        assert first.mean_confidence == pytest.approx(second.mean_confidence)


class TestDecision:
    def test_rows_like_the_reference_are_no_drift(self, reference_stats: ReferenceStats) -> None:
        found = decide(reference_stats, sample_predictions(300, seed=7))
        assert found.decision == "no_drift"
        assert found.conditions == set()
        assert found.severity is not None
        assert found.severity.level == "none"
        assert set(found.p_values) == set(FAMILIES)

    def test_moved_statistics_are_drift_and_named(self, reference_stats: ReferenceStats) -> None:
        found = decide(reference_stats, sample_predictions(300, seed=7, shift=0.8))
        assert found.decision == "drift"
        assert found.conditions == {"drift"}
        assert found.p_values["image statistics"] < 0.01 / 3 < found.p_values["class probabilities"]
        assert "5 more differ from the reference, but no signal says that accuracy suffers" in found.reason

    def test_low_confidence_is_harmful_drift(self, reference_stats: ReferenceStats) -> None:
        found = decide(reference_stats, sample_predictions(300, seed=7, sharpness=0.5))
        assert found.conditions == {"drift", "harmful"}
        assert "mean confidence is lower by 0.3" in found.reason

    def test_thresholds_share_alpha(self, reference_stats: ReferenceStats) -> None:
        found = decide(reference_stats, sample_predictions(300, seed=7))
        assert sum(column.threshold for column in found.columns) == pytest.approx(0.01)
        by_family = {f: sum(c.threshold for c in found.columns if c.family == f) for f in FAMILIES}
        assert list(by_family.values()) == pytest.approx([0.01 / 3] * 3)

    @pytest.mark.parametrize("rows", [1, 49])
    def test_few_rows_are_not_judged(self, reference_stats: ReferenceStats, rows: int) -> None:
        found = decide(reference_stats, sample_predictions(rows, seed=7, shift=9))
        assert found.decision == "insufficient_data"
        assert found.reason == f"{rows} rows are too few to judge: 50 are needed"
        assert found.p_values == {}
        assert found.testable == {"unjudged"}

    def test_an_empty_window_is_not_judged(self, reference_stats: ReferenceStats) -> None:
        found = WindowStats(reference_stats).decide(SETTINGS, model_version="7")
        assert (found.decision, found.rows, found.since_us) == ("insufficient_data", 0, 0)

    def test_the_window_spans_its_rows(self, reference_stats: ReferenceStats) -> None:
        found = decide(reference_stats, sample_predictions(300, seed=7), batches=3)
        assert (found.since_us, found.until_us, found.rows) == (1000, 1299, 300)


class TestUnreadableRows:
    @pytest.mark.parametrize("column", ["confidences", "probabilities", "statistics", "embeddings"])
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_nan_and_infinity_exclude_only_their_row(
        self, reference_stats: ReferenceStats, column: str, value: float
    ) -> None:
        window = sample_predictions(300, seed=7)
        spoilt = getattr(window, column).copy()
        spoilt[7] = value
        found = decide(reference_stats, dataclasses.replace(window, **{column: spoilt}))
        assert (found.rows, found.unreadable) == (299, 1)
        assert found.columns == decide(reference_stats, window[np.delete(np.arange(300), 7)]).columns

    def test_a_window_of_unreadable_rows_is_not_judged(self, reference_stats: ReferenceStats) -> None:
        window = sample_predictions(300, seed=7)
        found = decide(reference_stats, dataclasses.replace(window, confidences=np.full(300, np.nan, np.float32)))
        assert (found.decision, found.rows, found.unreadable) == ("insufficient_data", 0, 300)

    def test_rows_with_another_number_of_classes_are_left_out(self, reference_stats: ReferenceStats) -> None:
        window = sample_predictions(300, seed=7)
        other = dataclasses.replace(window, probabilities=window.probabilities[:, :2])
        assert decide(reference_stats, other).unreadable == 300

    def test_rows_with_an_unknown_label_are_left_out(self, reference_stats: ReferenceStats) -> None:
        window = sample_predictions(300, seed=7)
        labels = window.labels.copy()
        labels[:3] = [3, -1, 99]
        assert decide(reference_stats, dataclasses.replace(window, labels=labels)).unreadable == 3


class TestAccuracy:
    def test_an_estimate_follows_confidence(self, reference_stats: ReferenceStats) -> None:
        found = decide(reference_stats, sample_predictions(3000, seed=6))
        assert found.estimated is not None
        assert found.estimated.reliable
        assert found.estimated.accuracy == pytest.approx(0.9, abs=0.02)
        lost = decide(reference_stats, sample_predictions(3000, seed=6, sharpness=0.5))
        assert lost.estimated is not None
        assert not lost.estimated.reliable

    def test_feedback_gives_accuracy_with_its_interval(self, reference_stats: ReferenceStats) -> None:
        window = sample_predictions(300, seed=7)
        truth = window.labels.copy()
        truth[:4] = (truth[:4] + 1) % 3
        truth[100:] = UNLABELLED
        feedback = decide(reference_stats, window, truth).feedback
        assert feedback is not None
        assert (feedback.rows, feedback.accuracy, feedback.declined) == (100, 0.96, False)
        assert feedback.low < 0.96 < feedback.high
        assert sum(map(sum, feedback.confusion)) == 100

    def test_a_decline_is_detected_and_distinct_from_drift(self, reference_stats: ReferenceStats) -> None:
        window = sample_predictions(300, seed=7)
        truth = (window.labels + (np.arange(300) % 3 == 0)) % 3
        found = decide(reference_stats, window, truth)
        assert found.decision == "no_drift"
        assert found.conditions == {"coverage", "decline"}
        expected = stats.fisher_exact([[200, 100], [1800, 200]], alternative="less").pvalue
        assert found.feedback is not None
        assert found.feedback.p_decline == pytest.approx(expected)

    def test_little_feedback_gives_no_decision(self, reference_stats: ReferenceStats) -> None:
        window = sample_predictions(300, seed=7)
        truth = np.full(300, UNLABELLED)
        truth[:19] = (window.labels[:19] + 1) % 3
        found = decide(reference_stats, window, truth)
        assert found.feedback is not None
        assert found.feedback.declined is None
        assert found.testable == {"drift", "harmful", "unreadable", "unjudged"}

    def test_better_than_before_is_no_decline(self, reference_stats: ReferenceStats) -> None:
        window = sample_predictions(1000, seed=7)
        feedback = decide(reference_stats, window, window.labels).feedback
        assert feedback is not None
        assert (feedback.accuracy, feedback.declined) == (1.0, False)


class TestCoverage:
    def test_sets_that_hold_the_truth_as_often_as_they_are_to_are_no_condition(self, reference: Reference) -> None:
        stats = ReferenceStats(reference, HARMLESS, CLASSES)
        found = decide(stats, reference.predictions, reference.labels).coverage
        assert found is not None
        assert found.held == pytest.approx(0.9, abs=0.005)
        assert found.fallen is False

    def test_sets_that_miss_the_truth_are_a_condition(self, reference_stats: ReferenceStats) -> None:
        window = sample_predictions(300, seed=7)
        truth = (window.labels + (np.arange(300) % 3 == 0)) % 3
        found = decide(reference_stats, window, truth)
        assert found.coverage is not None
        assert found.coverage.held < 0.8
        assert found.conditions == {"coverage", "decline"}

    def test_the_coverage_that_is_served_is_the_one_that_is_watched(self, reference: Reference) -> None:
        truth = np.where(np.arange(len(reference.labels)) % 20 == 0, (reference.labels + 1) % 3, reference.labels)
        found = {
            coverage: decide(
                ReferenceStats(reference, HARMLESS, CLASSES, coverage=coverage), reference.predictions, truth
            ).coverage
            for coverage in (0.8, 0.95)
        }
        assert {coverage: each is not None and each.nominal for coverage, each in found.items()} == {
            0.8: 0.8,
            0.95: 0.95,
        }
        held = [each.held for each in found.values() if each is not None]
        assert held[0] + 0.05 < held[1]

    @pytest.mark.parametrize("labels", [0, 19])
    def test_little_feedback_gives_no_decision(self, labels: int, reference_stats: ReferenceStats) -> None:
        window = sample_predictions(300, seed=7)
        truth = np.where(np.arange(300) < labels, (window.labels + 1) % 3, UNLABELLED)
        found = decide(reference_stats, window, truth)
        assert "coverage" not in found.testable
        assert (found.coverage is None) == (labels == 0)

    def test_another_mix_of_classes_is_no_fall(
        self, sound: ReferenceStats, sound_package: Package, whole_dataset: Dataset, defaults: DecisionConfig
    ) -> None:
        rows = np.flatnonzero(np.isin(whole_dataset.test.labels, [2, 4, 6]))[:1000]
        tops = Predictor(sound_package).predict(whole_dataset.test.images[rows])
        found = decide(sound, tops, whole_dataset.test.labels[rows], defaults)
        assert "coverage" not in found.conditions
        assert "decline" in found.conditions  # tops are harder than the other classes

    @pytest.mark.parametrize("name", [name for name in shifts.PICTURES if name not in SLIGHT])
    def test_coverage_falls_where_pictures_change(
        self,
        name: str,
        sound: ReferenceStats,
        sound_package: Package,
        whole_dataset: Dataset,
        defaults: DecisionConfig,
    ) -> None:
        changed = Predictor(sound_package).predict(shifts.apply(whole_dataset.test.images[:2000], name))
        found = decide(sound, changed, whole_dataset.test.labels[:2000], defaults)
        assert "coverage" in found.conditions


class TestHarm:
    """With an estimate of accuracy, in the package of a real network."""

    def test_harm_is_a_fall_of_the_estimate(
        self, sound: ReferenceStats, sound_package: Package, whole_dataset: Dataset, defaults: DecisionConfig
    ) -> None:
        predictor = Predictor(sound_package)
        usual = decide(sound, predictor.predict(whole_dataset.test.images[:1000]), settings=defaults)
        assert usual.level == "none"
        assert usual.estimated is not None
        assert usual.estimated.reliable
        negative = predictor.predict(shifts.apply(whole_dataset.test.images[:1000], "negative"))
        found = decide(sound, negative, settings=defaults)
        assert found.conditions == {"drift", "harmful"}
        assert "accuracy is likely to suffer: without labels it is estimated to be" in found.reason

    def test_an_estimated_fall_is_said_though_it_is_not_harmful(
        self, sound: ReferenceStats, sound_package: Package, whole_dataset: Dataset, defaults: DecisionConfig
    ) -> None:
        predictor = Predictor(sound_package)
        for amount in np.linspace(0.05, 1, 20):
            window = predictor.predict(corrupt(whole_dataset.test.images[:1000], "inversion", float(amount)))
            found = decide(sound, window, settings=defaults)
            assert found.estimated is not None
            lost = sound.accuracy - found.estimated.accuracy
            says = "no signal says that accuracy suffers" in found.reason
            assert says == (found.decision == "drift" and lost < 0.03)
            if lost > 0.05:
                return
        raise AssertionError("no negative was harmful")

    def test_sneakers_alone_are_not_harmful(
        self, sound: ReferenceStats, sound_package: Package, whole_dataset: Dataset, defaults: DecisionConfig
    ) -> None:
        sneakers = whole_dataset.test.images[whole_dataset.test.labels == 7]
        found = decide(sound, Predictor(sound_package).predict(sneakers), settings=defaults)
        assert found.conditions == {"drift"}


class TestResult:
    def test_it_can_be_stored_as_json(self, reference_stats: ReferenceStats) -> None:
        for found in (
            decide(reference_stats, sample_predictions(300, seed=7)),
            empty_window("shoes", (1, 2), SETTINGS),
        ):
            content = json.loads(json.dumps(result_as_dict(found), allow_nan=False))
            assert content["decision"] == found.decision
            assert content["conditions"] == sorted(found.conditions)

    def test_resplits_measure_the_rate_of_false_alarms(self, reference_stats: ReferenceStats) -> None:
        found = reference_stats.false_alarms(200, 0.3, 300)
        assert found.low <= 0.3
        assert 0 < found.alarms / found.resplits < 0.4
        assert reference_stats.false_alarms(10**6, 0.01, 10).rows == 1000


@pytest.fixture(scope="module")
def sound(sound_package: Package) -> ReferenceStats:
    return ReferenceStats.of(sound_package)


@pytest.fixture(scope="module")
def defaults() -> DecisionConfig:
    found = load_as(DriftConfig, compose(root="drift")).decision
    assert (found.alpha, found.min_rows) == (0.01, 200)
    return dataclasses.replace(found, resplits=0)


@pytest.mark.slow
@pytest.mark.ci  # minutes of windows
class TestPower:
    """On the real data: windows of test images against a reference of validation images."""

    def test_at_most_two_percent_of_clean_windows_are_called_drift(
        self, sound: ReferenceStats, sound_package: Package, whole_dataset: Dataset, defaults: DecisionConfig
    ) -> None:
        predicted = Predictor(sound_package).predict(whole_dataset.test.images)
        rng = np.random.default_rng(0)
        windows = [shifts.sample_rows(whole_dataset.test.labels, None, 200, rng) for _ in range(200)]
        alarms = sum(decide(sound, predicted[rows], settings=defaults).decision == "drift" for rows in windows)
        assert alarms <= 4

    def test_named_shifts_are_detected(
        self, sound: ReferenceStats, sound_package: Package, whole_dataset: Dataset, defaults: DecisionConfig
    ) -> None:
        assert len(shifts.NAMES) >= 20
        predictor, labels = Predictor(sound_package), whole_dataset.test.labels
        found: dict[int, list[bool]] = {200: [], 1000: []}
        for name in shifts.NAMES:
            predicted = predictor.predict(shifts.apply(whole_dataset.test.images, name))
            rng = np.random.default_rng(1)
            for rows, hits in found.items():
                for _ in range(10):
                    window = predicted[shifts.sample_rows(labels, name, rows, rng)]
                    hits.append(decide(sound, window, settings=defaults).decision == "drift")
        assert np.mean(found[200]) >= 0.9
        assert np.mean(found[1000]) >= 0.98


def test_an_empty_window_has_no_mean_confidence() -> None:
    assert math.isnan(empty_window("shoes", (0, 0), SETTINGS).mean_confidence)


def test_an_empty_window_names_the_alpha_of_its_run() -> None:
    limited = dataclasses.replace(SETTINGS, false_alarms_per_year=1, runs_per_year=400)
    assert empty_window("shoes", (0, 0), limited).alpha == limited.run_alpha == 1 / 400
