"""Older packages tell harmful windows from harmless ones by thresholds."""

import dataclasses

import numpy as np
import pytest
from support.imagined import HARMLESS

from fashion.data.dataset import Dataset
from fashion.images.corruptions import corrupt
from fashion.model import severity
from fashion.model.predictor import Predictions, Predictor
from fashion.model.reference import Reference
from fashion.model.severity import SeverityMeter, is_harmful


@pytest.fixture(scope="module")
def meter(reference: Reference) -> SeverityMeter:
    return SeverityMeter(reference.predictions)


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
def test_any_signal_beyond_its_threshold_is_enough(signal: str) -> None:
    names = [field.name for field in dataclasses.fields(severity.Signals)]
    at_bounds = severity.Signals(**{name: getattr(HARMLESS, name) for name in names})
    assert not is_harmful(at_bounds, HARMLESS)
    assert is_harmful(dataclasses.replace(at_bounds, **{signal: getattr(HARMLESS, signal) + 1e-6}), HARMLESS)


def test_a_window_may_be_a_single_row_but_not_none(meter: SeverityMeter, reference: Reference) -> None:
    assert np.isfinite(meter.measure(rows_of(reference, np.array([0]))).output_distance)
    with pytest.raises(ValueError, match=r"^a window needs rows, got none$"):
        meter.measure(rows_of(reference, np.array([], int)))


def rows_of(reference: Reference, rows: np.ndarray) -> Predictions:
    fields = dataclasses.fields(Predictions)
    return Predictions(**{field.name: getattr(reference.predictions, field.name)[rows] for field in fields})
