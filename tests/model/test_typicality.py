"""Which pictures are unlike what was learnt: those of other things, and one in a hundred of the usual ones."""

import dataclasses
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from support.foreign import FOREIGN

from fashion.data.dataset import Dataset
from fashion.model import package
from fashion.model.package import TYPICALITY, DamagedPackage, Package
from fashion.model.predictor import Predictions, Predictor
from fashion.model.reference import Reference
from fashion.model.typicality import ClassGaussians, Typicality


@pytest.fixture(scope="module")
def predictor(sound_package: Package) -> Predictor:
    return Predictor(sound_package)


@pytest.fixture(scope="module")
def typicality(sound_package: Package) -> Typicality:
    found = Typicality.of(sound_package)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def usual(predictor: Predictor, whole_dataset: Dataset) -> Predictions:
    return predictor.predict(whole_dataset.test.images)


@pytest.mark.parametrize("kind", sorted(FOREIGN))
def test_pictures_of_other_things_are_less_usual(
    kind: str, typicality: Typicality, predictor: Predictor, usual: Predictions
) -> None:
    foreign = typicality.distances(predictor.predict(FOREIGN[kind](500, np.random.default_rng(0))))
    distances = np.concatenate([typicality.distances(usual), foreign])
    # The network here has random features; the champion's figures are those of the benchmark `typicality`.
    assert roc_auc_score(np.repeat([0, 1], [len(usual.labels), len(foreign)]), distances) >= 0.9


def test_the_share_of_usual_pictures_that_are_flagged_is_the_one_asked_for(
    typicality: Typicality, usual: Predictions
) -> None:
    shares = typicality.shares(typicality.distances(usual))
    for share in (0.01, 0.05, 0.5):
        assert (shares < share).mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 10_000))


def test_the_distance_is_that_of_the_nearest_class() -> None:
    """With classes so large that their covariances are their own, it is -2 log density up to a constant."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200_000)
    embeddings = rng.normal(size=(len(labels), 16)) * np.where(labels == 0, 1, 3)[:, None] + 10 * labels[:, None]
    rows = _predictions(embeddings.astype(np.float16), rng.normal(size=(len(labels), 8)).astype(np.float32))
    found = Typicality.fit(Reference(labels, rows))
    at = _predictions(
        np.array([[0.0] * 16, [10.0] * 16, [13.0] + [10.0] * 15], np.float16), np.zeros((3, 8), np.float32)
    )
    near, far, farther = found.distances(at)
    assert far - near == pytest.approx(16 * np.log(9), abs=0.3)
    assert farther - far == pytest.approx(1, abs=0.05)


def test_many_rows_of_many_classes_are_measured_in_little_memory() -> None:
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(400, 24)), np.arange(400) % 20
    gaussians = ClassGaussians.fit(rows, labels)
    many = rng.normal(size=(20_000, 24))  # 77 MB at once: 20 classes of 24 columns
    tracemalloc.start()
    found = gaussians.distances(many)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6
    np.testing.assert_allclose(found[::997], gaussians.distances(many[::997]))
    assert gaussians.distances(many[:0]).shape == (0,)


def test_a_class_of_one_row_and_columns_that_never_vary_are_no_matter() -> None:
    rng = np.random.default_rng(0)
    embeddings = np.zeros((300, 16), np.float16)
    embeddings[:, :3] = rng.normal(size=(300, 3))
    rows = _predictions(embeddings, np.repeat(rng.normal(size=(300, 1)), 8, axis=1).astype(np.float32))
    found = Typicality.fit(Reference(np.array([2] * 150 + [0] * 149 + [1]), rows))
    assert np.isfinite(found.distances(rows)).all()
    assert (found.shares(found.distances(rows)) < 0.02).mean() < 0.05
    assert found.shares(found.distances(_predictions(embeddings + np.float16(9), rows.statistics))).max() == 0


def test_a_package_gives_back_what_was_fitted(
    sound_package: Package, typicality: Typicality, usual: Predictions
) -> None:
    fitted = Typicality.fit(Reference.of(sound_package))
    np.testing.assert_array_equal(fitted.distances(usual), typicality.distances(usual))
    assert fitted.to_bytes() == typicality.to_bytes()


def test_an_older_package_cannot_tell(tiny_package: Package, tmp_path: Path) -> None:
    assert tiny_package.folder is not None
    files = {name: (tiny_package.folder / name).read_bytes() for name in package.FILES if name != TYPICALITY}
    older = package.write(dataclasses.replace(tiny_package, folder=None), tmp_path, files)
    assert package.read(tmp_path) == older
    assert Typicality.of(older) is None


def test_a_file_that_cannot_be_read_is_one_sentence(tiny_package: Package, tmp_path: Path) -> None:
    assert tiny_package.folder is not None
    files = {name: (tiny_package.folder / name).read_bytes() for name in package.FILES} | {TYPICALITY: b"no arrays"}
    damaged = package.write(dataclasses.replace(tiny_package, folder=None), tmp_path, files)
    with pytest.raises(DamagedPackage, match=r"typicality\.npz cannot be read"):
        Typicality.of(damaged)


def _predictions(embeddings: np.ndarray, statistics: np.ndarray) -> Predictions:
    count = len(embeddings)
    return Predictions(
        np.zeros(count, np.int64), np.ones(count, np.float32), np.ones((count, 1), np.float32), statistics, embeddings
    )
