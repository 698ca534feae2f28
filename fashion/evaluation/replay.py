"""Two models on logged pictures: the champion and its shadow, or a version that scores them again. Prints nothing."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fashion.evaluation.comparison import Comparison, Pair
from fashion.images import image_store
from fashion.images.transform import Images
from fashion.model.package import Package
from fashion.model.predictor import Predictor
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import LoggedPrediction, ModelId, UnknownPrediction, pages
from fashion.storage.blobs import BlobNotFound, Store

BATCH_ROWS = 100
"""Pictures scored at once."""


@dataclass(frozen=True)
class Replay:
    """Logged pictures, scored again by another version."""

    comparison: Comparison
    missing: int
    """Pictures that are not stored, or are damaged."""
    other_shape: int
    """Pictures whose size or channels the version does not take."""


def compare_shadow(log: PredictionLog, rows: int, *, name: str) -> dict[tuple[ModelId, ModelId], Comparison]:
    """Compare what was served with what a shadow said of the same pictures.

    Args:
        log: where both are.
        rows: latest predictions of shadows to look at.
        name: of the registered model; predictions of others are left out.

    Returns:
        A comparison for each pair: (served, shadow).

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be read.
    """
    comparisons: dict[tuple[ModelId, ModelId], Comparison] = {}
    for shadow in log.latest(rows, role="shadow", model_name=name):
        try:
            served = log.get(shadow.record.prediction_id)
        except UnknownPrediction:  # pruned just now
            continue
        if served.record.model_name != name:
            continue
        models = (served.record.model, shadow.record.model)
        pair = _pair(served, shadow.record.label, shadow.record.confidence)
        comparisons.setdefault(models, Comparison()).add([pair])
    return comparisons


def replay_log(
    log: PredictionLog,
    images: Store,
    package: Package,
    rows: int,
    *,
    name: str,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Replay:
    """Score logged pictures with a model package, and compare it with what was served.

    Args:
        log: predictions.
        images: store of the pictures that were predicted.
        package: the model that scores.
        rows: latest predictions to look at.
        name: of the registered model that `package` is a version of; predictions of others are left out.
        on_rows: called with the number of rows scored, after each batch.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be read.
        fashion.storage.blobs.StoreUnavailable: the store cannot be read.
    """
    predictor = Predictor(package)
    shape = (package.size, package.size, *([package.channels] if package.channels > 1 else []))
    comparison, missing, other_shape = Comparison(), 0, 0
    for page in pages(log.latest(rows, role="champion", model_name=name), BATCH_ROWS):
        pictures: list[Images] = []
        served: list[LoggedPrediction] = []
        for logged in page:
            try:
                picture = image_store.get(images, logged.record.image_sha256)
            except (BlobNotFound, image_store.DamagedImage):
                missing += 1
                continue
            if picture.shape != shape:
                other_shape += 1
                continue
            pictures.append(picture)
            served.append(logged)
        if not served:
            continue
        scored = predictor.predict(np.stack(pictures))
        comparison.add(
            _pair(logged, int(scored.labels[row]), float(scored.confidences[row])) for row, logged in enumerate(served)
        )
        on_rows(comparison.rows)
    return Replay(comparison, missing, other_shape)


def _pair(served: LoggedPrediction, label: int, confidence: float) -> Pair:
    record = served.record
    return Pair(record.label, record.confidence, label, confidence, served.true_label)
