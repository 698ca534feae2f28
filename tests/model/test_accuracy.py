"""Accuracy without labels: sums that can be divided, weights that see corruptions, intervals that hold."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.odd import ODD, RELATED

from fashion.data.dataset import Dataset
from fashion.images.corruptions import corrupt
from fashion.images.statistics import STATISTICS
from fashion.model import accuracy_calibration, package
from fashion.model.accuracy import HARMFUL, RELIABLE, SIGNALS, UNITS, AccuracyEstimator
from fashion.model.accuracy_calibration import Pools
from fashion.model.package import ACCURACY, TYPICALITY, DamagedPackage, Package
from fashion.model.predictor import EMBEDDING_SIZE, Predictions, Predictor
from fashion.model.reference import Reference
from fashion.model.typicality import Typicality


@pytest.fixture(scope="module")
def estimator(tiny_package: Package) -> AccuracyEstimator:
    found = AccuracyEstimator.of(tiny_package)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def unchanged(predictor: Predictor, small_dataset: Dataset) -> Predictions:
    return predictor.predict(small_dataset.test.images)


def fall(estimator: AccuracyEstimator, rows: Predictions) -> float:
    return estimator.fall(estimator.signals(rows).sum(axis=0), len(rows.labels))


class TestSignals:
    @given(cuts=st.lists(st.integers(0, 300), max_size=6), seed=st.integers(0, 1000))
    @settings(max_examples=25, deadline=None)
    def test_sums_of_parts_in_any_order_are_those_of_the_whole(
        self, estimator: AccuracyEstimator, unchanged: Predictions, cuts: list[int], seed: int
    ) -> None:
        order = np.random.default_rng(seed).permutation(300)
        whole = estimator.signals(unchanged[np.arange(300)]).sum(axis=0)
        parts = [part for part in np.split(order, sorted(cuts)) if len(part)]
        assert (sum(estimator.signals(unchanged[part]).sum(axis=0) for part in parts) == whole).all()

    def test_the_reference_has_the_usual_signals(self, estimator: AccuracyEstimator, reference: Reference) -> None:
        rows = reference.predictions
        found = dict(zip(SIGNALS, estimator.signals(rows).mean(axis=0) / UNITS, strict=True))
        usual = dict(zip(SIGNALS, estimator.usual, strict=True))
        assert found["confidence"] == pytest.approx(rows.confidences.mean(), abs=1e-6)
        assert found["unsure"] == pytest.approx((rows.labels != reference.labels).mean(), abs=0.01)
        # The Gaussians were fitted to these rows, so that fewer of them are unusual than of others.
        assert all(found[name] <= usual[name] + 0.01 for name in SIGNALS[3:])
        assert abs(fall(estimator, rows)) < 0.03


class TestEstimate:
    def test_windows_of_test_pictures_are_near_the_truth(
        self, estimator: AccuracyEstimator, unchanged: Predictions, small_dataset: Dataset
    ) -> None:
        right = (unchanged.labels == small_dataset.test.labels).mean()
        found = estimator.estimate(estimator.signals(unchanged).sum(axis=0), len(unchanged.labels))
        assert found.accuracy == pytest.approx(right, abs=0.05)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= right <= found.high
        assert sum(each[3] for each in found.signals) == pytest.approx(estimator.accuracy - found.accuracy)

    @pytest.mark.parametrize(("name", "amount"), [("inversion", 1), ("noise", 1), ("shift", 0.6), ("rotation", 1)])
    def test_ruined_pictures_are_harmful(
        self, name: str, amount: float, estimator: AccuracyEstimator, predictor: Predictor, small_dataset: Dataset
    ) -> None:
        ruined = predictor.predict(corrupt(small_dataset.test.images[:500], name, amount))
        assert fall(estimator, ruined) > HARMFUL

    def test_fewer_rows_give_wider_intervals(self, estimator: AccuracyEstimator, unchanged: Predictions) -> None:
        sums = estimator.signals(unchanged).sum(axis=0)
        widths = []
        for times in (1, 10, 100):
            found = estimator.estimate(times * sums, times * len(unchanged.labels))
            assert found.low is not None
            assert found.high is not None
            widths.append(found.high - found.low)
            assert found.reliable == (max(found.high - found.accuracy, found.accuracy - found.low) <= RELIABLE)
        assert widths == sorted(widths, reverse=True)


class TestCalibration:
    def test_it_is_deterministic_and_depends_on_its_seed(
        self, predictor: Predictor, reference: Reference, small_dataset: Dataset
    ) -> None:
        small = Reference(reference.labels[:300], reference.predictions[np.arange(300)])
        typicality = Typicality.fit(small)

        def calibrated(seed: int) -> bytes:
            images = small_dataset.val.images[:300]
            found = accuracy_calibration.measure(predictor.predict, images, small, typicality, rows=20, seed=seed)
            return found.fit().to_bytes()

        first = calibrated(1)
        assert calibrated(1) == first
        assert calibrated(2) != first

    def test_a_kind_that_is_left_out_has_no_influence(self, estimator: AccuracyEstimator) -> None:
        rng = np.random.default_rng(0)
        signals = rng.normal(size=(60, len(SIGNALS)))
        falls = np.abs(signals @ np.full(len(SIGNALS), 0.01))
        kinds = ("a", "b", "c") * 20
        spoilt = np.where(np.array(kinds) == "c", 1.0, falls)
        fits = [Pools(estimator, kinds, signals, each).fit(without=("c",)) for each in (falls, spoilt)]
        assert (fits[0].weights == fits[1].weights).all()
        assert fits[0].error == fits[1].error

    def test_weights_that_made_the_falls_are_found(self, estimator: AccuracyEstimator) -> None:
        weights = np.linspace(0.1, 0.9, len(SIGNALS))
        signals = np.random.default_rng(0).uniform(0, 0.1, size=(600, len(SIGNALS)))
        found = Pools(estimator, tuple("abcdef") * 100, signals, signals @ weights).fit()
        assert found.weights == pytest.approx(weights, abs=0.02)
        assert found.error < 0.05

    def test_a_model_that_nothing_can_hurt_never_falls(self) -> None:
        def predict(images: np.ndarray) -> Predictions:
            count = len(images)
            return Predictions(
                labels=np.zeros(count, np.int64),
                confidences=np.full(count, 0.9, np.float32),
                probabilities=np.tile(np.array([0.9, 0.1], np.float32), (count, 1)),
                statistics=np.random.default_rng(0).normal(size=(count, len(STATISTICS))).astype(np.float32),
                embeddings=np.random.default_rng(1).normal(size=(count, EMBEDDING_SIZE)).astype(np.float16),
            )

        images = np.zeros((40, 8, 8), np.uint8)
        rows = Reference(np.zeros(40, np.int64), predict(images))
        found = accuracy_calibration.measure(predict, images, rows, Typicality.fit(rows)).fit()
        assert fall(found, predict(images[:20])) == pytest.approx(0, abs=1e-6)


class TestStored:
    def test_it_can_be_sent(self, estimator: AccuracyEstimator, unchanged: Predictions) -> None:
        sent: AccuracyEstimator = pickle.loads(pickle.dumps(estimator))
        assert fall(sent, unchanged) == fall(estimator, unchanged)

    @pytest.mark.parametrize("missing", [ACCURACY, TYPICALITY])
    def test_an_older_package_has_none(self, missing: str, tiny_package: Package, tmp_path: Path) -> None:
        assert tiny_package.folder is not None
        files = {name: (tiny_package.folder / name).read_bytes() for name in package.FILES if name != missing}
        older = package.write(dataclasses.replace(tiny_package, folder=None), tmp_path, files)
        assert AccuracyEstimator.of(older) is None

    @pytest.mark.parametrize("content", [b"no arrays", "fewer signals"])
    def test_what_cannot_be_read_is_named(
        self, content: bytes | str, estimator: AccuracyEstimator, tiny_package: Package, tmp_path: Path
    ) -> None:
        assert tiny_package.folder is not None
        fewer = dataclasses.replace(estimator, weights=estimator.weights[:-1]).to_bytes()
        files = {name: (tiny_package.folder / name).read_bytes() for name in package.FILES}
        files[ACCURACY] = content if isinstance(content, bytes) else fewer
        damaged = package.write(dataclasses.replace(tiny_package, folder=None), tmp_path, files)
        with pytest.raises(DamagedPackage, match=f"{ACCURACY} (cannot be read|has {len(SIGNALS) - 1} signals)"):
            AccuracyEstimator.of(damaged)


def test_changes_that_nothing_was_calibrated_on_are_judged_and_intervals_hold(
    sound_package: Package, whole_dataset: Dataset
) -> None:
    """The network here has random features; the champion's figures are those of the benchmark `severity`."""
    estimator, predictor = AccuracyEstimator.of(sound_package), Predictor(sound_package)
    assert estimator is not None
    rng = np.random.default_rng(0)
    held, decided = [], []
    for name in sorted(set(ODD) - set(RELATED)):
        for _ in range(3):
            rows = rng.choice(10_000, 1000, replace=False)
            found = predictor.predict(np.ascontiguousarray(ODD[name](whole_dataset.test.images[rows])))
            truth = float((found.labels == whole_dataset.test.labels[rows]).mean())
            estimate = estimator.estimate(estimator.signals(found).sum(axis=0), 1000)
            assert estimate.low is not None
            assert estimate.high is not None
            held.append(estimate.low <= truth <= estimate.high)
            lost = estimator.accuracy - truth
            if abs(lost - HARMFUL) > 0.03:
                decided.append((lost > HARMFUL) == (estimator.accuracy - estimate.accuracy > HARMFUL))
    assert np.mean(held) >= 0.8
    assert np.mean(decided) >= 0.8
