"""Whether a window is likely to be less accurate than the reference, by the thresholds of an older package.

Packages hold `accuracy.npz` instead (`fashion.model.accuracy`). Knows no tests of drift.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fashion.model.package import SeverityThresholds
from fashion.model.predictor import Predictions


@dataclass(frozen=True)
class Signals:
    """How a window differs from the reference; of each, larger is worse."""

    confidence_drop: float
    """Mean confidence of the reference minus that of the window."""
    output_distance: float
    """Largest Kolmogorov-Smirnov distance of a class probability, in [0, 1]."""
    outlier_fraction: float
    """Share of rows farther from the reference's embeddings than `SeverityMeter.outlier_distance`."""


SIGNALS = tuple(field.name for field in dataclasses.fields(Signals))
"""Names of the signals."""


class Spread:
    """Mean and covariance of the reference's rows, and the distance of other rows from them."""

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
        """
        Args:
            reference: rows to compare with.
            outlier_distance: Mahalanobis distance above which a row is an outlier; None for the 99th percentile of
                the reference's own distances.
        """
        self._probabilities = np.sort(reference.probabilities, axis=0)
        self.mean_confidence = float(reference.confidences.mean())
        self._spread = Spread(reference.embeddings.astype(np.float64))
        distances = self.distances(reference.embeddings)
        self.outlier_distance = float(np.quantile(distances, 0.99)) if outlier_distance is None else outlier_distance

    def measure(self, window: Predictions) -> Signals:
        """Compare a window with the reference.

        Raises:
            ValueError: the window has no rows.
        """
        if len(window.labels) == 0:
            raise ValueError("a window needs rows, got none")
        return self.signals(
            rows=len(window.labels),
            mean_confidence=float(window.confidences.mean()),
            output_distances=[
                float(stats.ks_2samp(values, reference, method="asymp").statistic)
                for values, reference in zip(window.probabilities.T, self._probabilities.T, strict=True)
            ],
            outliers=int((self.distances(window.embeddings) > self.outlier_distance).sum()),
        )

    def signals(
        self, *, rows: int, mean_confidence: float, output_distances: Iterable[float], outliers: int
    ) -> Signals:
        """The signals of a window that was counted elsewhere.

        Args:
            rows: of the window, at least one.
            mean_confidence: of those rows.
            output_distances: Kolmogorov-Smirnov distance of each class probability from the reference.
            outliers: rows farther from the reference than `outlier_distance`.
        """
        return Signals(
            confidence_drop=self.mean_confidence - mean_confidence,
            output_distance=max(output_distances),
            outlier_fraction=outliers / rows,
        )

    def distances(self, embeddings: NDArray[np.float16]) -> NDArray[np.float64]:
        """Mahalanobis distances `(N,)` of embeddings `(N, D)` from the reference's."""
        return self._spread.distances(embeddings.astype(np.float64))


def is_harmful(signals: Signals, thresholds: SeverityThresholds) -> bool:
    """True if any signal is above its threshold."""
    return any(getattr(signals, name) > getattr(thresholds, name) for name in SIGNALS)
