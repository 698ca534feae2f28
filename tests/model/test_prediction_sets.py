"""Prediction sets hold the true class as often as they are to, for each class, and no longer once pictures change."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support.imagined import CLASSES, sample_predictions

from fashion.data.dataset import Dataset
from fashion.images.corruptions import corrupt
from fashion.model import package
from fashion.model.package import SETS, DamagedPackage, Package
from fashion.model.prediction_sets import STEPS, PredictionSets
from fashion.model.predictor import Predictions, Predictor
from fashion.model.reference import Reference

RESPLITS = 200


def labelled(count: int, seed: int) -> Reference:
    """Rows whose labels are drawn from their probabilities."""
    rows = sample_predictions(count, seed=seed, sharpness=1.5)
    drawn = np.random.default_rng(seed).random((count, 1))
    labels = (drawn > rows.probabilities.cumsum(axis=1)).sum(axis=1).clip(0, len(CLASSES) - 1)
    return Reference(labels.astype(np.int64), rows)


def holds(sets: PredictionSets, rows: Reference, coverage: float) -> np.ndarray:
    own = rows.predictions.probabilities[np.arange(len(rows.labels)), rows.labels]
    return np.asarray(own >= sets.thresholds(coverage)[rows.labels])


@given(st.integers(5, 400), st.integers(0, 1000), st.integers(1, STEPS - 1))
@settings(max_examples=50, deadline=None)
def test_counted_steps_say_what_the_thresholds_say(rows: int, seed: int, step: int) -> None:
    sets, others = PredictionSets.fit(labelled(rows, seed)), labelled(200, seed + 1)
    below = sets.steps(others.predictions.probabilities, others.labels) < step
    assert (below == holds(sets, others, step / STEPS)).all()


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_coverage_over_resplits_is_the_chosen_one_for_each_class(coverage: float) -> None:
    whole, rng = labelled(3000, 0), np.random.default_rng(1)
    held, counts = np.zeros(len(CLASSES)), np.zeros(len(CLASSES))
    for _ in range(RESPLITS):
        order = rng.permutation(3000)
        parts = (Reference(whole.labels[rows], whole.predictions[rows]) for rows in (order[:1500], order[1500:]))
        calibration, test = parts
        inside = holds(PredictionSets.fit(calibration), test, coverage)
        held += np.bincount(test.labels, inside, minlength=len(CLASSES))
        counts += np.bincount(test.labels, minlength=len(CLASSES))
    # The rows are the same in each resplit: what is independent is the rows of one, each class's.
    low, high = stats.binom.interval(0.99, (counts / RESPLITS).astype(int), coverage) / (counts / RESPLITS)
    assert (low <= held / counts).all()
    assert (held / counts <= high).all()


def test_a_class_with_too_few_rows_is_in_every_set() -> None:
    whole = labelled(100, 0)
    few = np.flatnonzero((whole.labels != 2) | (np.cumsum(whole.labels == 2) <= 5))
    thresholds = PredictionSets.fit(Reference(whole.labels[few], whole.predictions[few])).thresholds(0.9)
    assert thresholds[2] == 0
    assert (thresholds[:2] > 0).all()
    none = np.flatnonzero(whole.labels != 2)
    assert PredictionSets.fit(Reference(whole.labels[none], whole.predictions[none])).thresholds(0.5)[2] == 0


def test_they_are_read_as_written(tiny_package: Package) -> None:
    found, fitted = PredictionSets.of(tiny_package), PredictionSets.fit(Reference.of(tiny_package))
    assert found is not None
    assert (found.scores == fitted.scores).all()
    assert (found.ends == fitted.ends).all()


def test_an_older_package_has_none_and_a_damaged_one_is_named(tiny_package: Package, tmp_path: Path) -> None:
    assert tiny_package.folder is not None
    files = {name: (tiny_package.folder / name).read_bytes() for name in package.FILES}
    bare = dataclasses.replace(tiny_package, folder=None)
    older = package.write(bare, tmp_path, {name: data for name, data in files.items() if name != SETS})
    assert PredictionSets.of(older) is None
    with pytest.raises(DamagedPackage, match=f"{SETS} cannot be read"):
        PredictionSets.of(package.write(bare, tmp_path, files | {SETS: b"no arrays"}))


def test_test_pictures_are_covered_for_each_class_and_changed_ones_are_not(
    sound_package: Package, whole_dataset: Dataset
) -> None:
    sets, predictor = PredictionSets.of(sound_package), Predictor(sound_package)
    assert sets is not None

    def coverage(rows: Predictions, labels: np.ndarray) -> np.ndarray:
        inside = holds(sets, Reference(labels, rows), 0.9)
        return np.bincount(labels, inside) / np.bincount(labels)

    test = whole_dataset.test
    usual = coverage(predictor.predict(test.images), test.labels)
    # Of 1,000 held-out and 1,000 test rows of each class: both give chance.
    assert abs(usual - 0.9).max() < 4 * np.sqrt(0.9 * 0.1 * 2 / 1000)
    noisy = coverage(predictor.predict(corrupt(test.images[:2000], "noise", 0.3)), test.labels[:2000])
    assert noisy.mean() < 0.8
