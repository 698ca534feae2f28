"""Harmful windows are told from harmless ones by thresholds whose error rates are measured."""

import dataclasses

import numpy as np
import pytest

from fashion.data.dataset import Dataset
from fashion.evaluation import scoring
from fashion.images.corruptions import corrupt
from fashion.images.statistics import STATISTICS
from fashion.model import severity
from fashion.model.package import Package, SeverityThresholds
from fashion.model.predictor import EMBEDDING_SIZE, Predictions, Predictor
from fashion.model.reference import Reference
from fashion.model.severity import SeverityMeter, is_harmful


@pytest.fixture(scope="module")
def predictor(tiny_package: Package) -> Predictor:
    return Predictor(tiny_package)


@pytest.fixture(scope="module")
def reference(tiny_package: Package) -> Reference:
    return Reference.of(tiny_package)


@pytest.fixture(scope="module")
def thresholds(tiny_package: Package) -> SeverityThresholds:
    assert tiny_package.severity is not None
    return tiny_package.severity


@pytest.fixture(scope="module")
def meter(reference: Reference, thresholds: SeverityThresholds) -> SeverityMeter:
    return SeverityMeter(reference.predictions, outlier_distance=thresholds.outlier_distance)


@pytest.mark.parametrize("seed", range(10))
def test_windows_of_unchanged_pictures_are_harmless(
    seed: int, meter: SeverityMeter, thresholds: SeverityThresholds, predictor: Predictor, small_dataset: Dataset
) -> None:
    rows = np.random.default_rng(seed).choice(1000, thresholds.window, replace=False)
    assert not is_harmful(meter.measure(predictor.predict(small_dataset.test.images[rows])), thresholds)


@pytest.mark.parametrize(("name", "amount"), [("inversion", 1), ("noise", 1), ("shift", 0.6), ("rotation", 1)])
def test_windows_of_ruined_pictures_are_harmful(
    name: str,
    amount: float,
    meter: SeverityMeter,
    thresholds: SeverityThresholds,
    predictor: Predictor,
    small_dataset: Dataset,
) -> None:
    window = corrupt(small_dataset.test.images[: thresholds.window], name, amount)
    assert is_harmful(meter.measure(predictor.predict(window)), thresholds)


def test_the_reference_does_not_differ_from_itself(reference: Reference) -> None:
    signals = SeverityMeter(reference.predictions).measure(reference.predictions)
    assert signals.confidence_drop == 0
    assert signals.output_distance == 0
    assert signals.outlier_fraction == pytest.approx(0.01, abs=0.002)


def test_worse_pictures_give_larger_signals(meter: SeverityMeter, predictor: Predictor, small_dataset: Dataset) -> None:
    measured = [
        meter.measure(predictor.predict(corrupt(small_dataset.test.images[:500], "noise", amount)))
        for amount in (0, 0.3, 1)
    ]
    distances = [signals.output_distance for signals in measured]
    assert distances == sorted(distances)
    outliers = [signals.outlier_fraction for signals in measured]
    assert outliers == sorted(outliers)


@pytest.mark.parametrize("signal", ["confidence_drop", "output_distance", "outlier_fraction"])
def test_any_signal_beyond_its_threshold_is_enough(signal: str, thresholds: SeverityThresholds) -> None:
    names = [field.name for field in dataclasses.fields(severity.Signals)]
    at_bounds = severity.Signals(**{name: getattr(thresholds, name) for name in names})
    assert not is_harmful(at_bounds, thresholds)
    assert is_harmful(dataclasses.replace(at_bounds, **{signal: getattr(thresholds, signal) + 1e-6}), thresholds)


def test_a_window_may_be_a_single_row_but_not_none(meter: SeverityMeter, reference: Reference) -> None:
    assert np.isfinite(meter.measure(rows_of(reference, np.array([0]))).output_distance)
    with pytest.raises(ValueError, match=r"^a window needs rows, got none$"):
        meter.measure(rows_of(reference, np.array([], int)))


def rows_of(reference: Reference, rows: np.ndarray) -> Predictions:
    fields = dataclasses.fields(Predictions)
    return Predictions(**{field.name: getattr(reference.predictions, field.name)[rows] for field in fields})


# Calibration


def test_recorded_rates_equal_counted_ones(
    thresholds: SeverityThresholds,
    meter: SeverityMeter,
    reference: Reference,
    predictor: Predictor,
    small_dataset: Dataset,
) -> None:
    windows = severity.calibration_windows(
        small_dataset.val.images, thresholds.window, np.random.default_rng(scoring.SEED)
    )
    usual = (reference.predictions.labels == reference.labels).mean()
    found: dict[bool, list[bool]] = {True: [], False: []}
    for rows, corrupted in windows:
        predictions = rows_of(reference, rows) if corrupted is None else predictor.predict(corrupted)
        drop = usual - (predictions.labels == reference.labels[rows]).mean()
        found[bool(drop > severity.HARMFUL)].append(is_harmful(meter.measure(predictions), thresholds))
    assert thresholds.detected == pytest.approx(np.mean(found[True]))
    assert thresholds.false_alarms == pytest.approx(np.mean(found[False]))
    assert thresholds.detected > 0.5
    # Each of three signals exceeds its bound in at most 2 % of the harmless windows, or in one of them.
    assert thresholds.false_alarms <= 3 * max(1 - severity.QUANTILE, 1 / len(found[False]))


def test_calibration_is_deterministic(predictor: Predictor, reference: Reference, small_dataset: Dataset) -> None:
    small = Reference(reference.labels[:300], rows_of(reference, np.arange(300)))

    def calibrated(seed: int) -> SeverityThresholds:
        return severity.calibrate(predictor.predict, small_dataset.val.images[:300], small, window=100, seed=seed)

    first = calibrated(1)
    assert calibrated(1) == first
    assert calibrated(2) != first
    assert first.window == 100


def test_a_window_is_at_most_half_of_a_small_reference(
    predictor: Predictor, reference: Reference, small_dataset: Dataset
) -> None:
    small = Reference(reference.labels[:60], rows_of(reference, np.arange(60)))
    found = severity.calibrate(predictor.predict, small_dataset.val.images[:60], small)
    assert found.window == 30
    assert all(np.isfinite(value) for value in dataclasses.astuple(found))


def test_a_model_that_nothing_can_hurt_raises_no_alarm() -> None:
    def predict(images: np.ndarray) -> Predictions:
        count = len(images)
        return Predictions(
            labels=np.zeros(count, np.int64),
            confidences=np.full(count, 0.9, np.float32),
            probabilities=np.tile(np.array([0.9, 0.1], np.float32), (count, 1)),
            statistics=np.zeros((count, len(STATISTICS)), np.float32),
            embeddings=np.zeros((count, EMBEDDING_SIZE), np.float16),
        )

    images = np.zeros((40, 8, 8), np.uint8)
    found = severity.calibrate(predict, images, Reference(np.zeros(40, np.int64), predict(images)))
    assert (found.detected, found.false_alarms) == (1, 0)
