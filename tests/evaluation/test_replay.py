"""Logged pictures, scored again: by the same model, by a shadow, and with pictures that are missing or damaged."""

from pathlib import Path

import numpy as np
import pytest
from support.log_rows import MODEL_NAME, record

from fashion.data.dataset import Dataset
from fashion.evaluation.replay import compare_shadow, replay_log
from fashion.images import image_store
from fashion.model.package import Package
from fashion.model.predictor import Predictor
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import Feedback, PredictionRecord, new_prediction_id
from fashion.storage.address import open_store
from fashion.storage.blobs import Store

ROWS = 250
"""More than two batches."""


@pytest.fixture
def log(tmp_path: Path) -> PredictionLog:
    return PredictionLog(tmp_path / "predictions.db")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "images"))


@pytest.fixture
def answered(log: PredictionLog, store: Store, tiny_package: Package, small_dataset: Dataset) -> list[PredictionRecord]:
    """Predictions of the package itself, logged with their pictures."""
    images = small_dataset.test.images[:ROWS]
    predicted = Predictor(tiny_package).predict(images)
    rows = [
        record(
            label=int(predicted.labels[row]),
            confidence=float(predicted.confidences[row]),
            probabilities=(0.1,) * 10,
            image_sha256=image_store.digest(images[row]),
        )
        for row in range(ROWS)
    ]
    for image in images:
        image_store.put(store, image, image_store.digest(image))
    log.append(rows)
    return rows


def test_the_same_model_agrees_with_itself(
    log: PredictionLog, store: Store, tiny_package: Package, answered: list[PredictionRecord]
) -> None:
    counts: list[int] = []
    replayed = replay_log(log, store, tiny_package, ROWS, name=MODEL_NAME, on_rows=counts.append)
    assert (replayed.comparison.rows, replayed.comparison.agreed) == (ROWS, ROWS)
    assert (replayed.missing, replayed.other_shape) == (0, 0)
    assert counts == [100, 200, 250]
    assert replayed.comparison.served_confidence == pytest.approx(replayed.comparison.other_confidence, rel=1e-5)


@pytest.mark.fault("damaged stored pictures")
def test_pictures_that_are_missing_damaged_or_of_another_size_are_counted(
    log: PredictionLog, store: Store, tiny_package: Package, answered: list[PredictionRecord], tmp_path: Path
) -> None:
    files = sorted(path for path in (tmp_path / "images").rglob("*") if path.is_file())
    files[0].unlink()
    files[1].write_bytes(b"no picture")
    large = np.zeros((40, 40), np.uint8)
    image_store.put(store, large, image_store.digest(large))
    log.append([record(probabilities=(0.1,) * 10, image_sha256=image_store.digest(large))])
    replayed = replay_log(log, store, tiny_package, ROWS + 1, name=MODEL_NAME)
    assert (replayed.missing, replayed.other_shape) == (2, 1)
    assert replayed.comparison.rows == ROWS - 2


def test_an_empty_log_gives_no_rows(log: PredictionLog, store: Store, tiny_package: Package) -> None:
    assert replay_log(log, store, tiny_package, 10, name=MODEL_NAME).comparison.rows == 0
    assert compare_shadow(log, 10, name=MODEL_NAME) == {}


def test_a_shadow_is_compared_by_pair_of_versions(log: PredictionLog) -> None:
    for version, label in (("1", 1), ("1", 1), ("2", 0)):
        prediction_id = new_prediction_id()
        one = {"prediction_id": prediction_id, "label": 1, "model_version": version}
        log.append([record(**one)])
        log.append([record(**one | {"role": "shadow", "model_version": "3", "label": label})])
        log.append_feedback([Feedback(prediction_id, 1, "ann", 1)])
    other = new_prediction_id()  # of another model, of the same version and with other labels
    for role in ("champion", "shadow"):
        log.append([record(prediction_id=other, role=role, model_name="bags", model_version="1", label=0)])
    found = compare_shadow(log, 10, name=MODEL_NAME)
    by_version = {(served.version, other.version): each for (served, other), each in found.items()}
    assert {versions: (each.rows, each.agreed) for versions, each in by_version.items()} == {
        ("1", "3"): (2, 2),
        ("2", "3"): (1, 0),
    }
    assert by_version["2", "3"].served_right == [True]
    assert by_version["2", "3"].other_right == [False]
