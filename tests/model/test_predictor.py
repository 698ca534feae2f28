"""Predictions are the same alone, in a batch and from several threads; what cannot be predicted is refused."""

import dataclasses
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fashion.data.dataset import Dataset
from fashion.images import transform
from fashion.images.statistics import STATISTICS
from fashion.model.package import MODEL, Package
from fashion.model.predictor import EMBEDDING_SIZE, OnnxNetwork, Predictions, Predictor, axes, project


@pytest.fixture(scope="module")
def pictures(small_dataset: Dataset) -> np.ndarray:
    return small_dataset.test.images[:250]


@pytest.fixture(scope="module")
def predictions(predictor: Predictor, pictures: np.ndarray) -> Predictions:
    return predictor.predict(pictures)


def fields(predictions: Predictions) -> dict[str, np.ndarray]:
    return {field.name: getattr(predictions, field.name) for field in dataclasses.fields(predictions)}


def assert_equal(first: Predictions, second: Predictions) -> None:
    for name, values in fields(first).items():
        np.testing.assert_array_equal(values, fields(second)[name], err_msg=name)


def test_predictions_have_the_documented_shapes_and_types(predictions: Predictions, tiny_package: Package) -> None:
    found = {name: (values.shape, values.dtype.name) for name, values in fields(predictions).items()}
    assert found == {
        "labels": ((250,), "int64"),
        "confidences": ((250,), "float32"),
        "probabilities": ((250, len(tiny_package.class_names)), "float32"),
        "statistics": ((250, len(STATISTICS)), "float32"),
        "embeddings": ((250, EMBEDDING_SIZE), "float16"),
    }


def test_probabilities_sum_to_one_and_the_label_is_the_most_probable(predictions: Predictions) -> None:
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, atol=1e-6)
    assert predictions.probabilities.min() >= 0
    np.testing.assert_array_equal(predictions.labels, predictions.probabilities.argmax(axis=1))
    np.testing.assert_array_equal(predictions.confidences, predictions.probabilities.max(axis=1))


def test_predictions_are_right_more_often_than_not(predictions: Predictions, small_dataset: Dataset) -> None:
    assert (predictions.labels == small_dataset.test.labels[:250]).mean() > 0.6


def test_a_batch_is_predicted_as_its_rows_one_by_one(
    predictor: Predictor, pictures: np.ndarray, predictions: Predictions
) -> None:
    alone = [fields(predictor.predict(picture[None])) for picture in pictures]
    together = {name: np.concatenate([one[name] for one in alone]) for name in alone[0]}
    np.testing.assert_array_equal(together["labels"], predictions.labels)
    for name in ("confidences", "probabilities", "statistics"):
        np.testing.assert_allclose(together[name], getattr(predictions, name), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(together["embeddings"], predictions.embeddings, rtol=2e-3, atol=2e-3)


def test_several_threads_get_the_same_predictions_as_one(predictor: Predictor, pictures: np.ndarray) -> None:
    parts = [pictures[start : start + 25] for start in range(0, 250, 25)] * 4
    expected = [predictor.predict(part) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(predictor.predict, parts))
    for one, other in zip(found, expected, strict=True):
        assert_equal(one, other)


def test_a_network_on_two_threads_predicts_the_same(
    tiny_package: Package, pictures: np.ndarray, predictions: Predictions
) -> None:
    found = Predictor(tiny_package, num_threads=2).predict(pictures)
    np.testing.assert_allclose(found.probabilities, predictions.probabilities, rtol=1e-4, atol=1e-6)


def test_statistics_and_temperature_come_with_the_package(
    tiny_package: Package, pictures: np.ndarray, predictions: Predictions
) -> None:
    hot = dataclasses.replace(tiny_package, temperature=1000.0)
    np.testing.assert_allclose(Predictor(hot).predict(pictures).probabilities, 0.1, atol=0.01)
    shifted = dataclasses.replace(tiny_package, mean=(0.9,))
    assert not np.allclose(Predictor(shifted).predict(pictures).probabilities, predictions.probabilities)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (np.zeros((2, 32, 32), np.uint8), r"^images must be 28x28, got \(32, 32\)$"),
        (np.zeros((2, 28, 27), np.uint8), r"^images must be 28x28, got \(28, 27\)$"),
        (np.zeros((28, 28), np.uint8), r"^images must be 28x28, got \(28,\)$"),
        (np.zeros((2, 28, 28), np.float32), "^images must be uint8, got float32$"),
        (np.zeros((2, 28, 28, 3), np.uint8), "one number for each of 3 channels, got 1 and 1$"),
        (np.zeros((0, 28, 28), np.uint8), r"not empty, got shape \(0, 10\)$"),
    ],
)
def test_images_that_do_not_fit_the_model_are_rejected(
    pictures: np.ndarray, message: str, predictor: Predictor
) -> None:
    with pytest.raises(ValueError, match=message):
        predictor.predict(pictures)


def test_a_package_without_a_folder_cannot_predict(tiny_package: Package) -> None:
    with pytest.raises(ValueError, match="write or read it first"):
        Predictor(dataclasses.replace(tiny_package, folder=None))


def test_a_network_is_the_same_from_bytes_and_from_a_file(
    tiny_network: bytes, tiny_package: Package, small_dataset: Dataset, pictures: np.ndarray
) -> None:
    assert tiny_package.folder is not None
    inputs = transform.normalise(pictures, small_dataset.mean, small_dataset.std)
    logits, embeddings = OnnxNetwork(tiny_network)(inputs)
    assert (logits.shape, embeddings.shape) == ((250, 10), (250, 64))
    again, _ = OnnxNetwork(tiny_package.folder / MODEL)(inputs, batch_size=7)
    np.testing.assert_allclose(again, logits, rtol=1e-4, atol=1e-5)


def test_projection_is_onto_the_directions_and_padded_with_zeros(tiny_package: Package) -> None:
    embeddings = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], np.float32)
    directions = ((0.0, 0.0, 1.0), (1.0, 1.0, 0.0))
    two = dataclasses.replace(tiny_package, embedding_mean=(1.0, 1.0, 1.0), embedding_components=directions)
    found = project(embeddings, axes(two))
    assert found.dtype == np.float16
    assert found.shape == (2, EMBEDDING_SIZE)
    np.testing.assert_array_equal(found[:, :2], [[2, 1], [-1, -2]])
    assert not found[:, 2:].any()


def test_predicting_loads_no_training_library() -> None:
    script = (
        "import sys, fashion.model.predictor; "
        "assert not {'torch', 'mlflow', 'scipy', 'matplotlib', 'pandas', 'metaflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
