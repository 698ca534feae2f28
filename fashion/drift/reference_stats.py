"""A model's reference, prepared for statistical tests, and the tests themselves. Knows arrays, no logs and no windows.

The tests of class probabilities follow Rabanser, Günnemann and Lipton, "Failing Loudly" (NeurIPS 2019,
arXiv:1810.11953), who call them BBSDs.
"""

import copy
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fashion.drift.clusters import Clusters, Worth, widen
from fashion.drift.result import FAMILIES, LABELS, Column, FalseAlarms
from fashion.images.statistics import STATISTICS
from fashion.metrics.classification import confusion_matrix, wilson_interval
from fashion.model.accuracy import AccuracyEstimator
from fashion.model.package import DamagedPackage, Package, SeverityThresholds
from fashion.model.prediction_sets import STEPS, USUAL_COVERAGE, PredictionSets
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

    def of_rows(self, rows: NDArray[np.int64]) -> "Distribution":
        """That of some of the rows, by their numbers."""
        ranks = self.ranks[rows]
        return dataclasses.replace(self, ranks=ranks, counts=np.bincount(ranks, minlength=len(self.values)))


class ReferenceStats:
    """A model's reference, prepared to compare windows with."""

    def __init__(
        self,
        reference: Reference,
        thresholds: SeverityThresholds | None,
        class_names: Sequence[str],
        estimator: AccuracyEstimator | None = None,
        accepted: Predictions | None = None,
        *,
        coverage: float = USUAL_COVERAGE,
    ) -> None:
        """
        Args:
            reference: N held-out rows.
            thresholds: bounds of severity of an older package; None where there is an estimator.
            class_names: of the model, in the order of its probabilities.
            estimator: of a window's accuracy; None for an older package.
            accepted: rows that the distribution of a window is compared with in place of the held-out ones. Accuracy
                and the signs of harm are still measured against those.
            coverage: share of true labels that the served prediction sets are to hold, in (0, 1).
        """
        rows = reference.predictions
        compared = rows if accepted is None else accepted
        self.class_names = tuple(class_names)
        self.rows = len(compared.labels)
        """Rows that a window's distribution is compared with."""
        self.is_accepted = accepted is not None
        """True if these are rows of accepted windows, not held-out ones."""
        self.labelled_rows = len(rows.labels)
        """Held-out rows, whose accuracy is known."""
        self.accuracy = float((rows.labels == reference.labels).mean())
        self.confusion = confusion_matrix(reference.labels, rows.labels, len(class_names))
        self.coverage, self.sets = coverage, PredictionSets.fit(reference)
        self.set_steps = np.bincount(self.sets.steps(rows.probabilities, reference.labels), minlength=STEPS)
        self.label_counts = np.bincount(compared.labels, minlength=len(class_names))
        self.thresholds, self.estimator = thresholds, estimator
        self.meter = SeverityMeter(rows, outlier_distance=thresholds.outlier_distance if thresholds else None)
        names = [
            *((name, FAMILIES[0]) for name in STATISTICS),
            *((f"p({name})", FAMILIES[1]) for name in class_names),
        ]
        matrix = np.concatenate([compared.statistics, compared.probabilities], axis=1)
        self.columns = [Distribution.of(*name, values) for name, values in zip(names, matrix.T, strict=True)]
        self._predicted = compared.labels
        self._statistics = Spread(compared.statistics.astype(np.float64))

    @classmethod
    def of(
        cls,
        package: Package,
        reference: Reference | None = None,
        estimator: AccuracyEstimator | None = None,
        accepted: Predictions | None = None,
        *,
        coverage: float = USUAL_COVERAGE,
    ) -> "ReferenceStats":
        """Prepare a package's reference.

        Args:
            package: of the model.
            reference: the package's; None to read it from the package's folder.
            estimator: the package's; None to read it likewise, where the package holds one.
            accepted: rows of windows that were accepted as the new normal; None without any.
            coverage: that the version is served with, in (0, 1).

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
        held_out = reference or Reference.of(package)
        return cls(held_out, package.severity, package.class_names, estimator, accepted, coverage=coverage)

    def of_class(self, label: int) -> "ReferenceStats":
        """The rows of the reference that were predicted as one class, to compare rows of that class with."""
        part, rows = copy.copy(self), np.flatnonzero(self._predicted == label)
        part.rows, part._predicted = len(rows), self._predicted[rows]
        part.label_counts = np.where(np.arange(len(self.label_counts)) == label, self.label_counts, 0)
        part.confusion = np.where(np.arange(len(self.confusion)) == label, self.confusion, 0)
        part.labelled_rows = int(part.confusion.sum())
        part.columns = [column.of_rows(rows) for column in self.columns]
        return part

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

    def p_decline(self, right: NDArray[np.bool_], clusters: Clusters) -> float:
        """As `p_fewer`, of whether the feedback agrees with the predictions."""
        return self.p_fewer(right, clusters, int(np.trace(self.confusion)))

    def p_fewer(self, holds: NDArray[np.bool_], clusters: Clusters, of_reference: int) -> float:
        """Fisher's exact test of whether something holds for fewer rows than of the reference, one-sided.

        Args:
            holds: (N,) for which rows it holds.
            clusters: the same rows by client.
            of_reference: for how many held-out rows it holds.

        Returns:
            The p-value; NaN if a few clients that differ from each other sent the rows.
        """
        (worth,) = clusters.worth([], holds.astype(np.int64))
        if not worth.is_testable:
            return math.nan
        share = float(holds.mean() if worth.weights is None else holds @ worth.weights)
        rows = round(worth.rows)
        without = round(rows * (1 - share))
        table = [[rows - without, without], [of_reference, self.labelled_rows - of_reference]]
        return float(stats.fisher_exact(table, alternative="less").pvalue)

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
        alarms, worth = 0, Worth(None, rows)
        for _ in range(resplits):
            sampled = rng.permutation(self.rows)[:rows]
            columns = []
            for column in self.columns:
                window = np.bincount(column.ranks[sampled], minlength=len(column.values))
                rest = column.counts - window
                distance = float(np.abs(np.cumsum(window) / rows - np.cumsum(rest) / (self.rows - rows)).max())
                columns.append(ks_test(column, distance, worth, self.rows - rows, thresholds[column.family]))
            predicted = np.bincount(self._predicted[sampled], minlength=len(self.label_counts))
            columns.append(chi_square_test(predicted, self.label_counts - predicted, thresholds[FAMILIES[2]], worth))
            alarms += any(column.drifted for column in columns)
        low, high = wilson_interval(alarms, resplits)
        return FalseAlarms(resplits, rows, alarms, low, high)


def ks_distance(column: Distribution, values: NDArray[Any], weights: NDArray[np.float64] | None = None) -> float:
    """The largest distance of two empirical distribution functions, which is at a value of the reference or just below.

    Args:
        column: of the reference.
        values: (N,) of the window.
        weights: (N,) of the values, sum 1; None where all are equal.
    """
    # One slot for each of the reference's K values, and one before, between and after them: 2 K + 1.
    slots = np.searchsorted(column.values, values, "left") + np.searchsorted(column.values, values, "right")
    filled = np.bincount(slots, weights, minlength=2 * len(column.values) + 1)
    reached = np.cumsum(filled) / (len(values) if weights is None else 1)
    expected = np.concatenate([[0], np.cumsum(column.counts)]) / column.counts.sum()
    before, at = reached[:-1:2], reached[1::2]
    return float(max(np.abs(before - expected[:-1]).max(), np.abs(at - expected[1:]).max()))


def ks_test(column: Distribution, distance: float, window: Worth, other_rows: int, threshold: float) -> Column:
    """The Kolmogorov-Smirnov test of one column.

    Args:
        column: of the reference.
        distance: largest distance of the two empirical distribution functions.
        window: what its rows are worth.
        other_rows: of what it is compared with.
        threshold: p-value below which the column drifted.
    """
    # The distribution that scipy's ks_2samp(method="asymp") uses; ties make it conservative.
    rows = max(1, round(window.rows * other_rows / (window.rows + other_rows)))
    p_value = widen(float(stats.kstwo.sf(distance, rows)), window.freedom) if window.is_testable else math.nan
    return Column(column.name, column.family, distance, p_value, threshold)


def chi_square_test(
    window: NDArray[np.float64] | NDArray[np.int64], reference: NDArray[np.int64], threshold: float, worth: Worth
) -> Column:
    """The chi-square test of the predicted labels.

    Args:
        window: `(classes,)` rows by label, or their shares.
        reference: `(classes,)` rows by label.
        threshold: p-value below which the labels drifted.
        worth: what the window's rows are worth; as many as they are without clients.
    """
    shares = np.stack([window / window.sum(), reference / reference.sum()])
    table = np.stack([worth.rows * shares[0], reference])
    table = table[:, table.sum(axis=0) > 0]
    p_value, freedom = 1.0, table.shape[1] - 1
    if not worth.is_testable:
        p_value = math.nan
    elif freedom:
        found = stats.chi2_contingency(table)
        p_value = float(found.pvalue)
        if np.isfinite(worth.freedom):  # the spread was estimated: F in place of chi-square (Thomas and Rao, 1987)
            dimensions = min(worth.dimensions, freedom)
            p_value = float(stats.f.sf(found.statistic / freedom, dimensions, dimensions * worth.freedom))
    return Column(LABELS, FAMILIES[2], float(np.abs(shares[0] - shares[1]).sum() / 2), p_value, threshold)
