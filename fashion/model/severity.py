"""How bad a window of predictions looks beside the reference, without labels. Knows no tests of drift.

Those ask whether anything changed at all; this asks whether it is likely to hurt.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fashion.images.corruptions import CORRUPTIONS, corrupt
from fashion.images.transform import Images
from fashion.model.package import SeverityThresholds
from fashion.model.predictor import Predictions
from fashion.model.reference import Reference

HARMFUL = 0.05
"""Fall of accuracy from which a window counts as harmful."""
AMOUNTS = (0.1, 0.3, 0.6)
"""Degrees of each corruption in calibration: from hardly visible to plain."""
CLEAN_WINDOWS = 20
QUANTILE = 0.98
"""Share of harmless windows that each signal stays below in calibration."""


@dataclass(frozen=True)
class Signals:
    """What of a window differs from the reference, each larger the worse."""

    confidence_drop: float
    output_distance: float
    outlier_fraction: float


SIGNALS = tuple(field.name for field in dataclasses.fields(Signals))


class Spread:
    """Where rows of reference lie, and how far others are from there."""

    def __init__(self, rows: NDArray[np.float64]) -> None:
        self._mean = rows.mean(axis=0)
        covariance = np.cov(rows, rowvar=False) + 1e-6 * np.eye(rows.shape[1])
        self._precision = np.linalg.inv(covariance)

    def distances(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mahalanobis distances `(N,)` of rows `(N, D)`."""
        centred = rows - self._mean
        distances: NDArray[np.float64] = np.sqrt(np.einsum("nd,de,ne->n", centred, self._precision, centred))
        return distances


class SeverityMeter:
    """Measures windows against one reference."""

    def __init__(self, reference: Predictions, *, outlier_distance: float | None = None) -> None:
        """With `outlier_distance` None, it is the reference's own 99th percentile."""
        self._probabilities = np.sort(reference.probabilities, axis=0)
        self._confidence = float(reference.confidences.mean())
        self._spread = Spread(reference.embeddings.astype(np.float64))
        distances = self.distances(reference.embeddings)
        self.outlier_distance = float(np.quantile(distances, 0.99)) if outlier_distance is None else outlier_distance

    def measure(self, window: Predictions) -> Signals:
        """Compare a window of at least one row with the reference."""
        if len(window.labels) == 0:
            raise ValueError("a window needs rows, got none")
        outliers = self.distances(window.embeddings) > self.outlier_distance
        distances = [
            stats.ks_2samp(now, before, method="asymp").statistic
            for now, before in zip(window.probabilities.T, self._probabilities.T, strict=True)
        ]
        return Signals(
            confidence_drop=self._confidence - float(window.confidences.mean()),
            output_distance=float(max(distances)),
            outlier_fraction=float(outliers.mean()),
        )

    def distances(self, embeddings: NDArray[np.float16]) -> NDArray[np.float64]:
        """Mahalanobis distances `(N,)` of embeddings `(N, D)` from the reference's."""
        return self._spread.distances(embeddings.astype(np.float64))


def is_harmful(signals: Signals, thresholds: SeverityThresholds) -> bool:
    """Whether any signal is beyond its threshold."""
    return any(getattr(signals, name) > getattr(thresholds, name) for name in SIGNALS)


def calibrate(
    predict: Callable[[Images], Predictions],
    images: Images,
    reference: Reference,
    *,
    window: int = 500,
    seed: int = 0,
) -> SeverityThresholds:
    """Find, for one model, the thresholds that tell harmful windows from harmless ones.

    Windows of held-out images are corrupted in every way and degree; a window whose accuracy falls by more
    than `HARMFUL` is a harmful one. Each threshold is the `QUANTILE` of its signal over the harmless windows, so
    false alarms are bounded by choice and detection is what is measured.

    Args:
        images: held-out images, the rows of `reference`.
        window: rows a window has; at most half of the reference.
    """
    rng = np.random.default_rng(seed)
    window = min(window, len(images) // 2)
    ruler = SeverityMeter(reference.predictions)
    expected = float((reference.predictions.labels == reference.labels).mean())
    signals, drops = [], []
    for rows, corrupted in _windows(images, window, rng):
        predictions = reference.predictions[rows] if corrupted is None else predict(corrupted)
        signals.append(ruler.measure(predictions))
        drops.append(expected - float((predictions.labels == reference.labels[rows]).mean()))
    harmful = np.array(drops) > HARMFUL
    table = np.array([[s.confidence_drop, s.output_distance, s.outlier_fraction] for s in signals])
    bounds = np.quantile(table[~harmful], QUANTILE, axis=0)
    flagged = (table > bounds).any(axis=1)
    return SeverityThresholds(
        confidence_drop=float(bounds[0]),
        output_distance=float(bounds[1]),
        outlier_fraction=float(bounds[2]),
        outlier_distance=ruler.outlier_distance,
        window=window,
        detected=float(flagged[harmful].mean()) if harmful.any() else 1.0,
        false_alarms=float(flagged[~harmful].mean()),
    )


def _windows(
    images: Images, window: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.int64], Images | None]]:
    """Rows and their corrupted images; None where the images are as they were."""
    for _ in range(CLEAN_WINDOWS):
        yield rng.choice(len(images), window, replace=False), None
    for name in sorted(CORRUPTIONS):
        for amount in AMOUNTS:
            rows = rng.choice(len(images), window, replace=False)
            yield rows, corrupt(images[rows], name, amount, seed=int(rng.integers(2**31)))
