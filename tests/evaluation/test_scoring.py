"""Every number of an evaluation against scikit-learn or a computation of its own, and what is packed from it."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sklearn_metrics

from fashion.config.schema import DataConfig
from fashion.data.checks import check_dataset
from fashion.data.dataset import Dataset, Split
from fashion.evaluation import scoring
from fashion.evaluation.scoring import Evaluation
from fashion.images import transform
from fashion.images.statistics import STATISTICS
from fashion.metrics import calibration
from fashion.model import package
from fashion.model.package import ACCURACY, FILES, REFERENCE, WEIGHTS, Package
from fashion.model.predictor import EMBEDDING_SIZE, OnnxNetwork, Predictions, Predictor
from fashion.model.reference import Reference

COPIES = 40
"""Test rows that are copies of training rows in the data set evaluated here."""


@pytest.fixture(scope="module")
def leaky(small_dataset: Dataset) -> Dataset:
    """A data set of which some test rows are also in training."""
    test = Split(small_dataset.test.images.copy(), small_dataset.test.labels.copy())
    test.images[:COPIES], test.labels[:COPIES] = (
        small_dataset.train.images[:COPIES],
        small_dataset.train.labels[:COPIES],
    )
    return dataclasses.replace(small_dataset, test=test)


@pytest.fixture(scope="module")
def found(tiny_network: bytes, leaky: Dataset, data_config: DataConfig) -> Evaluation:
    return scoring.evaluate(
        {"onnx": tiny_network, "weights": b"w", "rows": 7, "max_difference": 0.25, "label_agreement": 1.0},
        leaky,
        check_dataset(leaky, data_config),
        data=data_config,
        architecture={"name": "tiny", "kwargs": {"width": 64}},
        training={"best_epoch": 3},
        lineage={"mlflow_run_id": "abc"},
    )


@pytest.fixture(scope="module")
def packed(found: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Package:
    return package.write(found.package, tmp_path_factory.mktemp("evaluated"), found.files)


def value(found: Evaluation, name: str) -> float:
    return found.package.metrics[name].value


# Scores


def test_scores_agree_with_scikit_learn(found: Evaluation, leaky: Dataset) -> None:
    labels, guesses = leaky.test.labels, found.test.labels
    probabilities = found.test.probabilities.astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    brier = sklearn_metrics.brier_score_loss(labels, probabilities, labels=range(10), scale_by_half=False)
    assert value(found, "test/accuracy") == pytest.approx(sklearn_metrics.accuracy_score(labels, guesses))
    assert value(found, "test/recall_macro") == pytest.approx(sklearn_metrics.balanced_accuracy_score(labels, guesses))
    assert value(found, "test/f1_macro") == pytest.approx(sklearn_metrics.f1_score(labels, guesses, average="macro"))
    assert value(found, "test/loss") == pytest.approx(sklearn_metrics.log_loss(labels, probabilities), rel=1e-5)
    assert value(found, "test/brier") == pytest.approx(brier, rel=1e-5)


def test_scores_by_class_agree_with_scikit_learn(found: Evaluation, leaky: Dataset) -> None:
    expected = sklearn_metrics.precision_recall_fscore_support(leaky.test.labels, found.test.labels)
    computed = [[getattr(score, key) for score in found.scores] for key in ("precision", "recall", "f1", "support")]
    np.testing.assert_allclose(computed, expected)
    assert [score.name for score in found.scores] == list(leaky.class_names)


def test_accuracies_lie_within_their_intervals(found: Evaluation) -> None:
    for name in ("val/accuracy", "test/accuracy", "test/accuracy_deduplicated"):
        metric = found.package.metrics[name]
        assert metric.low is not None
        assert metric.high is not None
        assert 0 < metric.low < metric.value < metric.high < 1
        assert metric.high - metric.low < 0.07  # of 1,000 rows


def test_the_deduplicated_score_leaves_out_exactly_the_copies(
    found: Evaluation, leaky: Dataset, data_config: DataConfig
) -> None:
    flagged = check_dataset(leaky, data_config).test_in_training
    assert np.flatnonzero(flagged).tolist() == list(range(COPIES))
    right = found.test.labels == leaky.test.labels
    assert value(found, "test/accuracy_deduplicated") == pytest.approx(right[COPIES:].mean())
    assert value(found, "test/accuracy") == pytest.approx(right.mean())
    assert right[:COPIES].mean() != right[COPIES:].mean()


def test_latency_is_positive_and_in_order(found: Evaluation) -> None:
    assert 0 < value(found, "latency_ms/p50") <= value(found, "latency_ms/p95")


def test_the_summary_holds_accuracy_and_calibration_error(found: Evaluation) -> None:
    assert found.summary.startswith(f"test accuracy {value(found, 'test/accuracy'):.2%} (")
    assert f"without duplicates {value(found, 'test/accuracy_deduplicated'):.2%}" in found.summary
    assert f"calibration error {value(found, 'test/ece'):.2%}" in found.summary


# Calibration


def test_the_temperature_improves_likelihood_on_validation_and_calibration_on_test(
    found: Evaluation, tiny_network: bytes, leaky: Dataset
) -> None:
    logits, _ = OnnxNetwork(tiny_network)(transform.normalise(leaky.val.images, leaky.mean, leaky.std))

    def loss(temperature: float) -> float:
        return calibration.negative_log_likelihood(calibration.softmax(logits, temperature), leaky.val.labels)

    fitted = found.package.temperature
    assert loss(fitted) < loss(1.0) - 0.01
    assert loss(fitted) <= min(loss(fitted * 1.05), loss(fitted / 1.05))
    assert value(found, "test/ece") < value(found, "test/ece_uncalibrated") / 2


# The package


def test_the_package_predicts_what_was_scored(found: Evaluation, packed: Package, leaky: Dataset) -> None:
    assert_equal(Predictor(packed).predict(leaky.test.images), found.test)


def test_the_package_says_where_it_came_from(found: Evaluation, leaky: Dataset) -> None:
    packed = found.package
    assert {key: packed.data[key] for key in ("name", "digest")} == {"name": leaky.name, "digest": leaky.digest}
    assert packed.data["words"]["subject"] == "pictures of clothes"
    assert packed.architecture == {"name": "tiny", "kwargs": {"width": 64}}
    assert packed.training == {"best_epoch": 3}
    assert packed.lineage == {"mlflow_run_id": "abc"}
    checked = {"rows": 7, "max_difference": 0.25, "label_agreement": 1.0, "precision": "float32"}
    assert packed.export_check == checked
    assert (packed.class_names, packed.mean, packed.std) == (leaky.class_names, leaky.mean, leaky.std)
    assert set(found.files) == set(FILES)
    assert found.files[WEIGHTS] == b"w"


def test_calibration_is_deterministic_and_ignores_test_rows(found: Evaluation, tiny_package: Package) -> None:
    # The two data sets differ in their test rows alone.
    for field in ("temperature", "embedding_mean", "embedding_components"):
        assert getattr(found.package, field) == getattr(tiny_package, field), field
    assert tiny_package.folder is not None
    for name in (REFERENCE, ACCURACY):
        assert (tiny_package.folder / name).read_bytes() == found.files[name]


def test_logged_embeddings_are_principal_components_of_validation(packed: Package, leaky: Dataset) -> None:
    components = np.array(packed.embedding_components)
    np.testing.assert_allclose(components @ components.T, np.eye(EMBEDDING_SIZE), atol=1e-5)
    projected = Predictor(packed).predict(leaky.val.images).embeddings.astype(np.float64)
    np.testing.assert_allclose(projected.mean(axis=0), 0, atol=1e-2)
    correlation = np.corrcoef(projected, rowvar=False)
    np.testing.assert_allclose(correlation, np.eye(EMBEDDING_SIZE), atol=1e-2)
    spread = projected.std(axis=0)
    assert np.all(spread[:-1] >= spread[1:] - 1e-3)


# The reference


def test_the_reference_is_the_validation_split_bit_for_bit(found: Evaluation, packed: Package, leaky: Dataset) -> None:
    reference = Reference.from_parquet(found.files[REFERENCE])
    np.testing.assert_array_equal(reference.labels, leaky.val.labels)
    assert_equal(reference.predictions, Predictor(packed).predict(leaky.val.images))


def test_a_reference_of_odd_values_comes_back_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    odd = np.array([0, -0.0, 1, np.nan, np.inf, -np.inf, 1e-38, 3.4e38], np.float32)
    predictions = Predictions(
        labels=np.array([2, 0, 1]),
        confidences=odd[:3],
        probabilities=rng.random((3, 5), np.float32),
        statistics=np.stack([odd, rng.permutation(odd), odd]),
        embeddings=rng.integers(0, 2**16, (3, EMBEDDING_SIZE), np.uint16).view(np.float16),
    )
    written = Reference(np.array([0, 2**40, -1]), predictions).to_parquet()
    found = Reference.from_parquet(written)
    assert found.labels.tolist() == [0, 2**40, -1]
    assert_equal(found.predictions, predictions)


def test_a_reference_names_its_columns(found: Evaluation, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    (tmp_path / REFERENCE).write_bytes(found.files[REFERENCE])
    table = pq.read_table(tmp_path / REFERENCE)
    named = ["label", "predicted", "confidence", "probabilities", "embedding", *STATISTICS]
    assert table.column_names == named
    assert table.num_rows == 1000


def assert_equal(first: Predictions, second: Predictions) -> None:
    """Same types, shapes and bits."""
    for field in dataclasses.fields(Predictions):
        one, other = getattr(first, field.name), getattr(second, field.name)
        assert (one.dtype, one.shape) == (other.dtype, other.shape), field.name
        assert np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes(), field.name


# Figures


def test_figures_are_png_and_each_has_a_caption(found: Evaluation) -> None:
    assert set(found.figures) == set(scoring.CAPTIONS)
    for content in found.figures.values():
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) >= 300
            assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 10  # something is drawn
