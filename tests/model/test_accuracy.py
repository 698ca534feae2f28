"""Accuracy without labels: sums that can be divided, weights that see corruptions, intervals that hold."""

import dataclasses
import io
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
from fashion.model.accuracy import HARMFUL, OF_ROWS, RELIABLE, SIGNALS, UNITS, AccuracyEstimator, Linear
from fashion.model.accuracy_calibration import MANY_ROWS, Pool, Pools
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
    return estimator.fall(estimator.sums(rows))


class TestSignals:
    @given(cuts=st.lists(st.integers(0, 300), max_size=6), seed=st.integers(0, 1000))
    @settings(max_examples=25, deadline=None)
    def test_sums_of_parts_in_any_order_are_those_of_the_whole(
        self, estimator: AccuracyEstimator, unchanged: Predictions, cuts: list[int], seed: int
    ) -> None:
        order = np.random.default_rng(seed).permutation(300)
        whole = estimator.sums(unchanged[np.arange(300)])
        parts = [part for part in np.split(order, sorted(cuts)) if len(part)]
        assert (sum(estimator.sums(unchanged[part]) for part in parts) == whole).all()

    def test_the_reference_has_the_usual_signals(self, estimator: AccuracyEstimator, reference: Reference) -> None:
        rows = reference.predictions
        found = dict(zip(SIGNALS[:OF_ROWS], estimator.signals(rows).mean(axis=0) / UNITS, strict=True))
        usual = dict(zip(SIGNALS[:OF_ROWS], estimator.usual, strict=True))
        assert found["confidence"] == pytest.approx(rows.confidences.mean(), abs=1e-6)
        assert found["unsure"] == pytest.approx((rows.labels != reference.labels).mean(), abs=0.01)
        # The Gaussians were fitted to these rows, so that fewer of them are unusual than of others.
        assert all(found[name] <= usual[name] + 0.01 for name in SIGNALS[3:OF_ROWS])
        assert estimator.changes(estimator.sums(rows))[-1] == 0  # the classes are as they were
        assert abs(fall(estimator, rows)) < 0.03


class TestEstimate:
    def test_windows_of_test_pictures_are_near_the_truth(
        self, estimator: AccuracyEstimator, unchanged: Predictions, small_dataset: Dataset
    ) -> None:
        right = (unchanged.labels == small_dataset.test.labels).mean()
        found = estimator.estimate(estimator.sums(unchanged))
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
        sums = estimator.sums(unchanged)
        widths = []
        for times in (1, 10, 100):
            found = estimator.estimate(times * sums)
            assert found.low is not None
            assert found.high is not None
            widths.append(found.high - found.low)
            assert found.reliable == (max(found.high - found.accuracy, found.accuracy - found.low) <= RELIABLE)
        assert widths == sorted(widths, reverse=True)


SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8)


def two_classes(estimator: AccuracyEstimator) -> AccuracyEstimator:
    """An estimator of two classes, whose every signal is usually 0."""
    return dataclasses.replace(
        estimator, usual=np.zeros(OF_ROWS), classes=np.full(2, 0.5), accuracy=1.0, rule=Linear(np.zeros(OF_ROWS + 1))
    )


def made_up(kind: str, share: float, seed: int, rows: int = 1000) -> Pool:
    """Rows of two classes, of which a share is unusual and wrong."""
    rng = np.random.default_rng(seed)
    labels, wrong = rng.integers(2, size=rows), rng.random(rows) < share
    signals = np.zeros((rows, OF_ROWS), np.int64)
    signals[:, 3] = wrong
    return Pool(kind, signals, np.where(wrong, 1 - labels, labels), labels)


def all_made_up() -> list[Pool]:
    return [made_up(kind, share, seed) for seed, (kind, share) in enumerate(zip("abcabc", SHARES, strict=True))]


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
        pools = all_made_up()
        spoilt = [dataclasses.replace(pool, labels=1 - pool.labels) if pool.kind == "c" else pool for pool in pools]
        fits = [
            Pools(two_classes(estimator), made_up("", 0.0, 9, rows=MANY_ROWS), tuple(each), 0)
            for each in (pools, spoilt)
        ]
        left_out, other = (each.fit(without=("c",)).to_bytes() for each in fits)
        assert left_out == other
        assert fits[0].fit().to_bytes() != fits[1].fit().to_bytes()

    def test_what_made_the_falls_is_found(self, estimator: AccuracyEstimator) -> None:
        """The rows that are wrong are those that the network finds unusual."""
        found = Pools(two_classes(estimator), made_up("", 0.0, 9, rows=MANY_ROWS), tuple(all_made_up()), 0).fit()
        for share in (0.02, 0.1, 0.3):
            pool = made_up("d", share, 10)
            sums = np.append(pool.signals.sum(axis=0), np.bincount(pool.predicted, minlength=2))
            assert found.fall(sums) == pytest.approx(share, abs=0.02)

    def test_another_mix_of_classes_is_no_fall(self, estimator: AccuracyEstimator) -> None:
        found = Pools(two_classes(estimator), made_up("", 0.0, 9, rows=MANY_ROWS), tuple(all_made_up()), 0).fit()
        for zeros in (0, 500, 1000):
            assert abs(found.fall(np.array([*[0] * OF_ROWS, zeros, 1000 - zeros]))) < 0.02

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

    def test_a_package_with_weights_is_still_read(
        self, estimator: AccuracyEstimator, unchanged: Predictions, tiny_package: Package, tmp_path: Path
    ) -> None:
        """As it was written before there were trees: one weight for each signal of rows, and no classes."""
        assert tiny_package.folder is not None
        with np.load(io.BytesIO(estimator.to_bytes())) as arrays:
            fields = {name: arrays[name] for name in arrays.files if not name.startswith("rule.") and name != "classes"}
        weights = np.zeros(OF_ROWS)
        weights[2] = 0.5
        buffer = io.BytesIO()
        np.savez(buffer, **fields, weights=weights)
        files = {name: (tiny_package.folder / name).read_bytes() for name in package.FILES} | {
            ACCURACY: buffer.getvalue()
        }
        older = AccuracyEstimator.of(package.write(dataclasses.replace(tiny_package, folder=None), tmp_path, files))
        assert older is not None
        unsure = (unchanged.confidences < estimator.unsure).mean() - estimator.usual[2]
        assert fall(older, unchanged) == pytest.approx(0.5 * unsure)

    @pytest.mark.parametrize("content", [b"no arrays", "fewer signals"])
    def test_what_cannot_be_read_is_named(
        self, content: bytes | str, estimator: AccuracyEstimator, tiny_package: Package, tmp_path: Path
    ) -> None:
        assert tiny_package.folder is not None
        fewer = dataclasses.replace(estimator, usual=estimator.usual[:-1]).to_bytes()
        files = {name: (tiny_package.folder / name).read_bytes() for name in package.FILES}
        files[ACCURACY] = content if isinstance(content, bytes) else fewer
        damaged = package.write(dataclasses.replace(tiny_package, folder=None), tmp_path, files)
        with pytest.raises(DamagedPackage, match=f"{ACCURACY} (cannot be read|has {OF_ROWS - 1} signals)"):
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
            estimate = estimator.estimate(estimator.sums(found))
            assert estimate.low is not None
            assert estimate.high is not None
            held.append(estimate.low <= truth <= estimate.high)
            lost = estimator.accuracy - truth
            if abs(lost - HARMFUL) > 0.03:
                decided.append((lost > HARMFUL) == (estimator.accuracy - estimate.accuracy > estimator.called_harmful))
    assert np.mean(held) >= 0.8
    assert np.mean(decided) >= 0.8
