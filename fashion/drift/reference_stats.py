"""A model's reference, prepared for statistical tests, and the tests themselves. Knows arrays, no logs and no windows.

The tests of class probabilities follow Rabanser, Günnemann and Lipton, "Failing Loudly" (NeurIPS 2019,
arXiv:1810.11953), who call them BBSDs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fashion.drift.result import FAMILIES, LABELS, Column, FalseAlarms
from fashion.images.statistics import STATISTICS
from fashion.metrics.classification import confusion_matrix, wilson_interval
from fashion.model.accuracy import AccuracyEstimator
from fashion.model.package import DamagedPackage, Package, SeverityThresholds
from fashion.model.prediction_sets import STEPS, PredictionSets
from fashion.model.predictor import Predictions
from fashion.model.reference import Reference
from fashion.model.severity import SeverityMeter, Spread
from fashion.model.typicality import features


@dataclass(frozen=True, eq=False)
class Distribution:
    """One column of the reference as its distinct values."""

    name: str
    family: str
    values: NDArray[Any]
    """(K,) ascending."""
    counts: NDArray[np.int64]
    """(K,) rows with each value."""
    ranks: NDArray[np.int64]
    """(N,) index into `values` of each row."""

    @classmethod
    def of(cls, name: str, family: str, values: NDArray[Any]) -> "Distribution":
        """Count the distinct values of a column.

        Args:
            name: of the column.
            family: the group of tests that it belongs to.
            values: (N,).
        """
        distinct, ranks, counts = np.unique(values, return_inverse=True, return_counts=True)
        return cls(name, family, distinct, counts, ranks)


class ReferenceStats:
    """A model's reference, prepared to compare windows with."""

    def __init__(
        self,
        reference: Reference,
        thresholds: SeverityThresholds | None,
        class_names: Sequence[str],
        estimator: AccuracyEstimator | None = None,
    ) -> None:
        """
        Args:
            reference: N held-out rows.
            thresholds: bounds of severity of an older package; None where there is an estimator.
            class_names: of the model, in the order of its probabilities.
            estimator: of a window's accuracy; None for an older package.
        """
        rows = reference.predictions
        self.class_names = tuple(class_names)
        self.rows = len(rows.labels)
        self.accuracy = float((rows.labels == reference.labels).mean())
        self.confusion = confusion_matrix(reference.labels, rows.labels, len(class_names))
        self.sets = PredictionSets.fit(reference)
        self.set_steps = np.bincount(self.sets.steps(rows.probabilities, reference.labels), minlength=STEPS)
        self.label_counts = np.bincount(rows.labels, minlength=len(class_names))
        self.thresholds, self.estimator = thresholds, estimator
        self.meter = SeverityMeter(rows, outlier_distance=thresholds.outlier_distance if thresholds else None)
        names = [
            *((name, FAMILIES[0]) for name in STATISTICS),
            *((f"p({name})", FAMILIES[1]) for name in class_names),
        ]
        matrix = np.concatenate([rows.statistics, rows.probabilities], axis=1)
        self.columns = [Distribution.of(*name, values) for name, values in zip(names, matrix.T, strict=True)]
        self._predicted = rows.labels
        self._statistics = Spread(rows.statistics.astype(np.float64))

    @classmethod
    def of(
        cls, package: Package, reference: Reference | None = None, estimator: AccuracyEstimator | None = None
    ) -> "ReferenceStats":
        """Prepare a package's reference.

        Args:
            package: of the model.
            reference: the package's; None to read it from the package's folder.
            estimator: the package's; None to read it likewise, where the package holds one.

        Raises:
            fashion.model.package.DamagedPackage: a file cannot be read, or the package holds neither what accuracy is
                estimated by nor severity thresholds.
        """
        estimator = estimator or AccuracyEstimator.of(package)
        if estimator is None and package.severity is None:
            raise DamagedPackage(
                f"{package.folder} holds nothing to estimate accuracy by, nor severity thresholds: train this version "
                "again"
            )
        return cls(reference or Reference.of(package), package.severity, package.class_names, estimator)

    def distances(self, window: Predictions) -> NDArray[np.float64]:
        """How far each of N rows is from the reference, `(N,)`: by its image statistics and embedding together."""
        if self.estimator is not None:
            return self.estimator.pictures.distances(features(window))
        return np.hypot(
            self.meter.distances(window.embeddings), self._statistics.distances(window.statistics.astype(np.float64))
        )

    def threshold(self, family: str, alpha: float) -> float:
        """The share of alpha that one column of a family has."""
        return alpha / len(FAMILIES) / max(1, sum(column.family == family for column in self.columns))

    def false_alarms(self, rows: int, alpha: float, resplits: int, seed: int = 0) -> FalseAlarms:
        """Compare windows sampled from the reference with the rest of it, and count those called drift.

        Args:
            rows: of each window; at most half of the reference is used.
            alpha: of the decision.
            resplits: number of windows.
            seed: of the sampling.
        """
        rows = min(rows, self.rows // 2)
        rng = np.random.default_rng(seed)
        thresholds = {family: self.threshold(family, alpha) for family in FAMILIES}
        alarms = 0
        for _ in range(resplits):
            sampled = rng.permutation(self.rows)[:rows]
            columns = []
            for column in self.columns:
                window = np.bincount(column.ranks[sampled], minlength=len(column.values))
                rest = column.counts - window
                distance = np.abs(np.cumsum(window) / rows - np.cumsum(rest) / (self.rows - rows)).max()
                columns.append(ks_test(column, distance, rows, self.rows - rows, thresholds[column.family]))
            predicted = np.bincount(self._predicted[sampled], minlength=len(self.label_counts))
            columns.append(chi_square_test(predicted, self.label_counts - predicted, thresholds[FAMILIES[2]]))
            alarms += any(column.drifted for column in columns)
        low, high = wilson_interval(alarms, resplits)
        return FalseAlarms(resplits, rows, alarms, low, high)


def ks_test(column: Distribution, distance: float, rows: int, other_rows: int, threshold: float) -> Column:
    """The Kolmogorov-Smirnov test of one column.

    Args:
        column: of the reference.
        distance: largest distance of the two empirical distribution functions.
        rows: of the window.
        other_rows: of what it is compared with.
        threshold: p-value below which the column drifted.
    """
    # The distribution that scipy's ks_2samp(method="asymp") uses; ties make it conservative.
    p_value = float(stats.kstwo.sf(distance, max(1, round(rows * other_rows / (rows + other_rows)))))
    return Column(column.name, column.family, float(distance), p_value, threshold)


def chi_square_test(window: NDArray[np.int64], reference: NDArray[np.int64], threshold: float) -> Column:
    """The chi-square test of the predicted labels.

    Args:
        window: `(classes,)` rows by label.
        reference: `(classes,)` rows by label.
        threshold: p-value below which the labels drifted.
    """
    table = np.stack([window, reference])
    table = table[:, table.sum(axis=0) > 0]
    p_value = float(stats.chi2_contingency(table).pvalue) if table.shape[1] > 1 else 1.0
    shares = table / table.sum(axis=1, keepdims=True)
    return Column(LABELS, FAMILIES[2], float(np.abs(shares[0] - shares[1]).sum() / 2), p_value, threshold)
