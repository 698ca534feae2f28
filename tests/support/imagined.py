"""Random predictions of a model that does not exist, and the decision on them."""

import dataclasses

import numpy as np

from fashion.config.drift import DecisionConfig
from fashion.drift.decision import WindowStats
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.result import DriftResult
from fashion.model import accuracy_calibration
from fashion.model.accuracy import SIGNALS, AccuracyEstimator, Linear
from fashion.model.package import SeverityThresholds
from fashion.model.predictor import Predictions
from fashion.model.reference import Reference
from fashion.model.typicality import Typicality
from fashion.predictions.record import UNLABELLED

CLASSES = ("cat", "dog", "bird")


HARMLESS = SeverityThresholds(
    confidence_drop=0.1,
    output_distance=0.4,
    outlier_fraction=0.05,
    outlier_distance=8.0,
    window=500,
    detected=1.0,
    false_alarms=0.0,
)


SETTINGS = DecisionConfig(alpha=0.01, min_rows=50, min_labels=20, resplits=0)


def estimator(reference: Reference) -> AccuracyEstimator:
    """An estimate of accuracy that follows the mean confidence."""
    found = accuracy_calibration.without_rule(reference, Typicality.fit(reference))
    weights = np.array([-1.0, *[0.0] * (len(SIGNALS) - 1)])
    return dataclasses.replace(found, rule=Linear(weights), error=0.5)


def sample_predictions(count: int, *, seed: int, sharpness: float = 3.0, shift: float = 0.0) -> Predictions:
    """Random predictions.

    Args:
        count: rows.
        seed: equal seeds give equal rows.
        sharpness: the larger, the more confident.
        shift: added to every image statistic.
    """
    rng = np.random.default_rng(seed)
    scores = sharpness * rng.normal(size=(count, len(CLASSES)))
    probabilities = (np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)).astype(np.float32)
    labels = probabilities.argmax(axis=1)
    # Few distinct values: ties are where a distribution that is counted could go wrong.
    values = np.round(rng.normal(shift, 1, (count, 8)), 1).astype(np.float32)
    embeddings = rng.normal(size=(count, 16)).astype(np.float16)
    return Predictions(labels, probabilities[np.arange(count), labels], probabilities, values, embeddings)


def decide(
    reference_stats: ReferenceStats,
    window: Predictions,
    true_labels: np.ndarray | None = None,
    settings: DecisionConfig = SETTINGS,
    *,
    batches: int = 1,
) -> DriftResult:
    """The decision on a window that is counted in a number of batches."""
    window_stats = WindowStats(reference_stats)
    truth = np.full(len(window.labels), UNLABELLED) if true_labels is None else true_labels
    for rows in np.array_split(np.arange(len(window.labels)), batches):
        window_stats.add(window[rows], truth[rows], 1000 + rows)
    return window_stats.decide(settings, model_version="7")
