"""Decisions on traffic whose rows are not independent: few false alarms, shifts found, reasons."""

import dataclasses

import numpy as np
import pytest
from support import shifts, traffic
from support.imagined import CLASSES, HARMLESS, SETTINGS, sample_predictions
from support.traffic import Pictures, Scenario

from fashion.config.drift import DecisionConfig
from fashion.data.dataset import Dataset
from fashion.drift.decision import WindowStats
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.report_traffic import describe_traffic
from fashion.drift.result import DriftResult
from fashion.model.package import Package
from fashion.model.predictor import Predictions, Predictor
from fashion.model.reference import Reference
from fashion.predictions.record import UNLABELLED

WINDOWS = 30
CHEAP: dict[str, Scenario] = {
    "each picture 4 times": traffic.repeated(300, 4),
    "half from a gallery": traffic.gallery(600),
    "half one picture": traffic.stuck(200),
    "20 clients of one class each": traffic.bursts(20, 30, "class"),
    "20 clients of one kind each": traffic.bursts(20, 30, "kind"),
    "100 clients of one class each": traffic.bursts(100, 5, "class"),
    "a burst among others": traffic.bursts(1, 100, "class", others=400),
    "4 clients of one kind each": traffic.bursts(4, 100, "kind"),
}
FINDS_SHIFTS = [name for name in CHEAP if name not in ("half one picture", "4 clients of one kind each")]


@pytest.fixture(scope="module")
def reference_stats() -> ReferenceStats:
    rows = sample_predictions(2000, seed=1)
    return ReferenceStats(Reference(rows.labels, rows), HARMLESS, CLASSES)


@pytest.fixture(scope="module")
def usual() -> Predictions:
    return sample_predictions(6000, seed=2)


def decide(
    reference: ReferenceStats,
    predicted: Predictions,
    window: traffic.Traffic,
    settings: DecisionConfig = SETTINGS,
    *,
    origins: bool = True,
) -> DriftResult:
    stats, count = WindowStats(reference), len(window.rows)
    times = np.arange(1, count + 1)
    stats.add(predicted[window.rows], np.full(count, UNLABELLED), times, window.origins if origins else None)
    return stats.decide(settings, model_version="1")


def windows(scenario: Scenario, predicted: Predictions, count: int) -> list[traffic.Traffic]:
    rng = np.random.default_rng(0)
    pictures = Pictures(predicted.labels, predicted.statistics[:, 0])
    return [scenario(pictures, rng) for _ in range(count)]


class TestFalseAlarms:
    @pytest.mark.parametrize("name", CHEAP)
    def test_traffic_that_repeats_is_no_drift(
        self, reference_stats: ReferenceStats, usual: Predictions, name: str
    ) -> None:
        drawn = windows(CHEAP[name], usual, WINDOWS)
        found = [decide(reference_stats, usual, window) for window in drawn]
        assert sum(each.decision == "drift" for each in found) <= 1
        assert not any(each.level == "harmful" for each in found)
        # Counted by rows alone, the same windows are called drift: what is counted makes the difference.
        alone = [decide(reference_stats, usual, window, origins=False) for window in drawn[:10]]
        assert sum(each.decision == "drift" for each in alone) >= 2

    @pytest.mark.parametrize("name", FINDS_SHIFTS)
    def test_shifts_are_found_in_it(self, reference_stats: ReferenceStats, usual: Predictions, name: str) -> None:
        moved = dataclasses.replace(usual, statistics=usual.statistics + 1.5)
        drawn = windows(CHEAP[name], usual, 3)
        assert all(decide(reference_stats, moved, window).decision == "drift" for window in drawn)

    def test_repeats_change_no_decision(self, reference_stats: ReferenceStats, usual: Predictions) -> None:
        for shift in (0.0, 0.3):
            moved = dataclasses.replace(usual, statistics=usual.statistics + shift)
            rows = np.arange(400)
            once = decide(reference_stats, moved, traffic.Traffic(rows, [""] * 400))
            often = decide(reference_stats, moved, traffic.Traffic(np.tile(rows, 5), [""] * 2000))
            assert once.columns == often.columns
            assert once.severity == often.severity
            assert (once.decision, often.rows) == (often.decision, 2000)


class TestReason:
    def test_few_pictures_are_too_few_to_judge(self, reference_stats: ReferenceStats, usual: Predictions) -> None:
        found = decide(reference_stats, usual, traffic.Traffic(np.arange(1000) % 7, [""] * 1000))
        assert found.decision == "insufficient_data"
        assert found.reason == "1,000 rows show only 7 distinct pictures, too few to judge: 50 are needed"

    def test_few_clients_that_differ_are_not_enough(self, reference_stats: ReferenceStats, usual: Predictions) -> None:
        (window,) = windows(traffic.bursts(4, 100, "class"), usual, 1)
        found = decide(reference_stats, usual, window)
        assert found.decision == "insufficient_data"
        assert "of 4 clients are not enough to decide: the clients are few and differ from each other" in found.reason
        assert "Clients that differ most from the reference: client 2" in found.reason

    def test_the_traffic_is_described(self, reference_stats: ReferenceStats, usual: Predictions) -> None:
        (window,) = windows(traffic.bursts(20, 30, "kind", others=100), usual, 1)
        found = decide(reference_stats, usual, window)
        assert found.traffic is not None
        assert (found.traffic.clients, found.traffic.untagged) == (20, 100)
        assert found.traffic.pictures == len(set(window.rows.tolist()))
        words = describe_traffic(found)
        assert "distinct pictures, each counted once; 20 clients and 100 rows without one." in words
        assert "like each other" in words


def feedback(reference: ReferenceStats, usual: Predictions, rows: np.ndarray, clients: list[str]) -> DriftResult:
    """A window in which feedback contradicts the tenth picture."""
    stats = WindowStats(reference)
    labels = usual.labels[rows]
    truth = np.where(rows % 10 == 0, (labels + 1) % 3, labels)
    stats.add(usual[rows], truth, 1 + np.arange(len(rows)), traffic.Traffic(rows, clients).origins)
    return stats.decide(SETTINGS, model_version="1")


def test_feedback_on_one_picture_counts_once(reference_stats: ReferenceStats, usual: Predictions) -> None:
    rows = np.concatenate([np.arange(100), np.full(200, 10)])  # one of the wrong ones, judged again and again
    found = feedback(reference_stats, usual, rows, [""] * 300).feedback
    assert found is not None
    assert (found.rows, found.accuracy) == (100, 0.9)


class TestOneValue:
    """What is the same in all rows of a window, though clients sent them."""

    def test_feedback_that_is_wrong_on_every_row_is_a_decline(
        self, reference_stats: ReferenceStats, usual: Predictions
    ) -> None:
        clients = [f"client {number % 15}" for number in range(60)]
        stats, rows = WindowStats(reference_stats), usual[np.arange(60)]
        stats.add(rows, (rows.labels + 1) % 3, np.arange(1, 61), traffic.Traffic(np.arange(60), clients).origins)
        found = stats.decide(SETTINGS, model_version="1")
        assert found.feedback is not None
        assert (found.feedback.accuracy, found.feedback.declined) == (0, True)
        assert found.coverage is not None
        assert found.coverage.fallen

    def test_a_model_that_answers_one_class_only_is_drift(
        self, reference_stats: ReferenceStats, usual: Predictions
    ) -> None:
        rows = np.flatnonzero(usual.labels == 1)[:300]
        found = decide(reference_stats, usual, traffic.Traffic(rows, [f"client {each % 20}" for each in range(300)]))
        assert found.decision == "drift"
        assert found.columns[-1].drifted
        assert found.columns[-1].p_value < 1e-6

    def test_one_class_of_pictures_that_are_like_each_other_counts_as_a_row_of_each_client(
        self, reference_stats: ReferenceStats, usual: Predictions
    ) -> None:
        of_class = np.flatnonzero(usual.labels == 1)
        rows = of_class[np.argsort(usual.statistics[of_class, 0])][:300]
        found = decide(reference_stats, usual, traffic.Traffic(rows, [f"client {each // 15}" for each in range(300)]))
        assert found.traffic is not None
        assert found.traffic.worth < 50

    def test_a_constant_statistic_leaves_a_window_its_worth(
        self, reference_stats: ReferenceStats, usual: Predictions
    ) -> None:
        constant = usual.statistics.copy()
        constant[:, 3] = 0.5
        same = dataclasses.replace(usual, statistics=constant)
        reference = ReferenceStats(Reference(same.labels[2000:], same[np.arange(2000, 6000)]), HARMLESS, CLASSES)
        clients = [f"client {each % 20}" for each in range(300)]
        found = decide(reference, same, traffic.Traffic(np.arange(300), clients))
        assert found.traffic is not None
        assert found.traffic.worth >= 50
        assert found.decision == "no_drift"

    def test_the_class_probabilities_of_a_predicted_class_are_tested(
        self, reference_stats: ReferenceStats, usual: Predictions
    ) -> None:
        # The same answers, less sure of one class: only its slice and its probabilities change.
        rows = np.arange(1500)
        unsure = usual.probabilities.copy()
        unsure[usual.labels == 1] = 0.6 * unsure[usual.labels == 1] + 0.4 / 3
        moved = dataclasses.replace(usual, probabilities=unsure, confidences=unsure.max(axis=1))
        found = decide(reference_stats, moved, traffic.Traffic(rows, [f"client {each % 30}" for each in rows]))
        slice_of = {each.name: each for each in found.slices if each.kind == "predicted class"}
        assert slice_of["dog"].changed
        assert set(slice_of["dog"].columns) <= {"p(cat)", "p(dog)", "p(bird)"}


def test_a_limit_of_false_alarms_holds_over_a_year(reference_stats: ReferenceStats, usual: Predictions) -> None:
    """A year of 100 runs, at rates that are high enough to be seen in it."""
    free = dataclasses.replace(SETTINGS, alpha=0.3, runs_per_year=100)
    limited = dataclasses.replace(free, false_alarms_per_year=5)
    alarms = {}
    for name, settings in (("free", free), ("limited", limited)):
        found = [
            decide(reference_stats, usual, each, settings) for each in windows(traffic.independent(100), usual, 100)
        ]
        alarms[name] = sum(each.decision == "drift" for each in found)
        assert found[0].false_alarms_per_year == pytest.approx({"free": 30, "limited": 5}[name])
        assert found[0].alpha == pytest.approx({"free": 0.3, "limited": 0.05}[name])
    assert alarms["limited"] <= 9  # the 97th percentile of 5
    assert alarms["limited"] < alarms["free"] <= 40


@pytest.mark.slow
@pytest.mark.ci  # minutes of windows
class TestPower:
    """On the real data: windows of test images against a reference of validation images."""

    @pytest.mark.parametrize("name", traffic.SCENARIOS)
    def test_at_most_two_percent_of_clean_windows_are_called_drift(
        self, sound_package: Package, whole_dataset: Dataset, name: str
    ) -> None:
        settings = dataclasses.replace(SETTINGS, min_rows=200)
        reference, usual = ReferenceStats.of(sound_package), Predictor(sound_package).predict(whole_dataset.test.images)
        drawn = windows(traffic.SCENARIOS[name], usual, 100)
        found = [decide(reference, usual, window, settings) for window in drawn]
        assert sum(each.decision == "drift" for each in found) <= 4  # of 2 % of 100, the 95th percentile
        assert sum(each.level == "harmful" for each in found) <= 1

    def test_named_shifts_are_detected_in_repeated_pictures_and_through_clients(
        self, sound_package: Package, whole_dataset: Dataset
    ) -> None:
        settings = dataclasses.replace(SETTINGS, min_rows=200)
        reference, predictor = ReferenceStats.of(sound_package), Predictor(sound_package)
        labels, hits, rng = whole_dataset.test.labels, list[bool](), np.random.default_rng(1)
        for name in shifts.NAMES:
            predicted = predictor.predict(shifts.apply(whole_dataset.test.images, name))
            for clients in ([""] * 4000, [f"client {number % 20}" for number in range(4000)]):
                rows = np.tile(shifts.sample_rows(labels, name, 1000, rng), 4)
                hits.append(decide(reference, predicted, traffic.Traffic(rows, clients), settings).decision == "drift")
        assert np.mean(hits) >= 0.98
