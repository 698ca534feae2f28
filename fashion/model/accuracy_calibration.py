"""Fit the estimate of a window's accuracy to pictures that were corrupted in many ways. Knows no windows of traffic."""

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fashion.images.corruptions import CORRUPTIONS, corrupt
from fashion.images.transform import Images
from fashion.model.accuracy import BEYOND, FLOOR, SIGNALS, UNITS, AccuracyEstimator, means
from fashion.model.predictor import Predictions
from fashion.model.reference import Reference
from fashion.model.typicality import Rows, Typicality

AMOUNTS = (0.05, 0.1, 0.2, 0.35, 0.6, 1.0)
"""Strengths of each corruption: from hardly visible to ruined."""
POOL_ROWS = 300
"""Held-out pictures under each corruption and strength."""
RIDGE = 0.05
"""Penalty of a weight, as a share of what the data say of it."""
ERROR_QUANTILE = 0.95
"""Share of the pools that the error of the estimate is within, each left out with its kind of corruption."""


@dataclass(frozen=True, eq=False)
class Pools:
    """P sets of held-out pictures under one corruption each, compared with the same pictures as they were."""

    estimator: AccuracyEstimator
    """Without weights: it finds signals."""
    kinds: tuple[str, ...]
    """(P,) the corruption of each."""
    signals: Rows
    """(P, K) change of the signals."""
    falls: Rows
    """(P,) fall of accuracy."""

    def fit(self, *, without: Collection[str] = ()) -> AccuracyEstimator:
        """Fit the estimate.

        Args:
            without: kinds of corruption to leave out.
        """
        kinds = np.array(self.kinds)
        used = ~np.isin(kinds, list(without))
        kinds, signals, falls = kinds[used], self.signals[used], self.falls[used]
        estimates = np.empty(len(falls))
        for kind in np.unique(kinds):
            left_out = kinds == kind
            estimates[left_out] = signals[left_out] @ _weights(signals[~left_out], falls[~left_out])
        errors = np.abs(falls - estimates) / (FLOOR + np.abs(estimates))
        error = float(np.quantile(errors, ERROR_QUANTILE))
        return dataclasses.replace(self.estimator, weights=_weights(signals, falls), error=error)


def measure(
    predict: Callable[[Images], Predictions],
    images: Images,
    reference: Reference,
    typicality: Typicality,
    *,
    rows: int = POOL_ROWS,
    seed: int = 0,
) -> Pools:
    """Corrupt held-out pictures in every way and strength, and measure what becomes of the accuracy and the signals.

    Args:
        predict: the model.
        images: (N, H, W) or (N, H, W, C) uint8, the held-out images of the rows of `reference`.
        reference: predictions of the images as they are.
        typicality: of the reference.
        rows: images under each corruption and strength; at most N.
        seed: of the sampling and the corruptions.
    """
    rng = np.random.default_rng(seed)
    estimator = without_weights(reference, typicality)
    right = reference.predictions.labels == reference.labels
    rows = min(rows, len(images))
    kinds, signals, falls = [], [], []
    for kind in sorted(CORRUPTIONS):
        for amount in AMOUNTS:
            chosen = rng.choice(len(images), rows, replace=False)
            corrupted = predict(corrupt(images[chosen], kind, amount, seed=int(rng.integers(2**31))))
            changes = estimator.signals(corrupted) - estimator.signals(reference.predictions[chosen])
            kinds.append(kind)
            signals.append(means(changes.sum(axis=0), rows))
            falls.append(float(right[chosen].mean() - (corrupted.labels == reference.labels[chosen]).mean()))
    return Pools(estimator, tuple(kinds), np.array(signals), np.array(falls))


def without_weights(reference: Reference, typicality: Typicality) -> AccuracyEstimator:
    """An estimator that finds the signals of rows and draws nothing from them.

    Args:
        reference: held-out rows.
        typicality: of the reference.
    """
    confidences = reference.predictions.confidences
    accuracy = float((reference.predictions.labels == reference.labels).mean())
    embeddings = Typicality.fit(reference, statistics=False)
    estimator = AccuracyEstimator(
        pictures=typicality.classes,
        embeddings=embeddings.classes,
        bounds=np.stack([each.distances_beyond(BEYOND) for each in (embeddings, typicality)]),
        unsure=float(np.quantile(confidences, 1 - accuracy)),
        accuracy=accuracy,
        usual=np.zeros(len(SIGNALS)),
        weights=np.zeros(len(SIGNALS)),
        error=0.0,
    )
    usual = means(estimator.signals(reference.predictions).sum(axis=0), len(confidences))
    usual[UNITS == 1] = [1 - accuracy, *BEYOND, *BEYOND]  # of rows that the Gaussians were not fitted to
    return dataclasses.replace(estimator, usual=usual)


def _weights(signals: Rows, falls: NDArray[np.float64]) -> Rows:
    """Ridge regression without an intercept: a window without changed signals has not fallen.

    A mixture of clean and corrupted rows has the same share of both, signals and fall; errors are weighted as if
    they grow with the fall, so that pools far above the bound of harm do not decide what is near it.
    """
    importance = 1 / (FLOOR + np.abs(falls))
    scale = np.sqrt(np.average(signals**2, axis=0, weights=importance)) + 1e-9
    scaled = signals / scale
    gram = (scaled * importance[:, None]).T @ scaled
    ridge = RIDGE * importance.mean() * np.eye(len(scale))
    weights: Rows = np.linalg.solve(gram + ridge, (scaled * importance[:, None]).T @ falls) / scale
    return weights
