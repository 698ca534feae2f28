"""Does a window of predictions differ from its model's reference, and does it matter. Knows arrays, no logs.

Three families of tests share the error rate alpha: Kolmogorov-Smirnov tests of the image statistics, the same of
the class probabilities, and a chi-square test of the predicted labels. Each family has a third of alpha, divided
among its columns (Bonferroni), so that a window without drift is called drift at most that often. Tests of the
probabilities follow Rabanser, Günnemann and Lipton, "Failing Loudly" (NeurIPS 2019, arXiv:1810.11953), who call
them BBSDs.

A window is counted, never held: a `Tally` takes any number of rows in constant memory, and its tests are exact.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fashion.config.drift import DecisionConfig
from fashion.drift.result import (
    FAMILIES,
    LABELS,
    Column,
    Decision,
    DriftResult,
    Estimate,
    FalseAlarms,
    FeedbackAccuracy,
    Severity,
)
from fashion.images.statistics import STATISTICS
from fashion.metrics.classification import confusion_matrix, wilson_interval
from fashion.model import severity
from fashion.model.package import DamagedPackage, Package, SeverityThresholds
from fashion.model.predictor import Predictions
from fashion.model.reference import Reference
from fashion.model.severity import SeverityMeter, Signals, Spread

SMALL_CHANGE = 0.02
"""Change of the mean confidence up to which the accuracy that is estimated from it can be relied on: with `convnet`
no shift of `tests/shifts.py` within it was estimated a point off, and one beyond it 72 (the benchmark drift_power)."""


@dataclass(frozen=True)
class _Distribution:
    """A column of the reference, as the distinct values it has."""

    name: str
    family: str
    values: NDArray[Any]
    """(K,) ascending."""
    counts: NDArray[np.int64]
    """(K,) rows that have each."""
    ranks: NDArray[np.int64]
    """(N,) which of the values each row has."""


class ReferenceStats:
    """A model's reference, made ready to compare windows with."""

    def __init__(self, reference: Reference, thresholds: SeverityThresholds, class_names: Sequence[str]) -> None:
        rows = reference.predictions
        self.class_names = tuple(class_names)
        self.rows = len(rows.labels)
        self.accuracy = float((rows.labels == reference.labels).mean())
        self.confidence = float(rows.confidences.mean())
        self.confusion = confusion_matrix(reference.labels, rows.labels, len(class_names))
        self.labels = np.bincount(rows.labels, minlength=len(class_names))
        self.thresholds = thresholds
        self.ruler = SeverityMeter(rows, outlier_distance=thresholds.outlier_distance)
        names = [
            *((name, FAMILIES[0]) for name in STATISTICS),
            *((f"p({name})", FAMILIES[1]) for name in class_names),
        ]
        matrix = np.concatenate([rows.statistics, rows.probabilities], axis=1)
        self.columns = [_distribution(*name, values) for name, values in zip(names, matrix.T, strict=True)]
        self._predicted = rows.labels
        self._statistics = Spread(rows.statistics.astype(np.float64))

    @classmethod
    def of(cls, package: Package) -> "ReferenceStats":
        """The yardstick of a package that lies in a folder.

        Raises:
            fashion.model.package.DamagedPackage: its reference cannot be read, or its severity was never calibrated.
        """
        if package.severity is None:
            raise DamagedPackage(f"{package.folder} holds no thresholds of severity: train this version again")
        return cls(Reference.of(package), package.severity, package.class_names)

    def unusualness(self, window: Predictions) -> NDArray[np.float64]:
        """How far each of N rows lies from the reference, (N,): in its statistics and in its embedding together."""
        return np.hypot(
            self.ruler.distances(window.embeddings), self._statistics.distances(window.statistics.astype(np.float64))
        )

    def threshold(self, family: str, alpha: float) -> float:
        """The share of alpha that one column of a family has."""
        return alpha / len(FAMILIES) / max(1, sum(column.family == family for column in self.columns))

    def false_alarms(self, rows: int, alpha: float, resplits: int, seed: int = 0) -> FalseAlarms:
        """Draw windows from the reference, compare each with the rest of it, and count what is called drift."""
        rows = min(rows, self.rows // 2)
        rng = np.random.default_rng(seed)
        thresholds = {family: self.threshold(family, alpha) for family in FAMILIES}
        alarms = 0
        for _ in range(resplits):
            chosen = rng.permutation(self.rows)[:rows]
            found = []
            for column in self.columns:
                window = np.bincount(column.ranks[chosen], minlength=len(column.values))
                rest = column.counts - window
                distance = np.abs(np.cumsum(window) / rows - np.cumsum(rest) / (self.rows - rows)).max()
                found.append(_ks(column, distance, rows, self.rows - rows, thresholds[column.family]))
            predicted = np.bincount(self._predicted[chosen], minlength=len(self.labels))
            found.append(_chi_square(predicted, self.labels - predicted, thresholds[FAMILIES[2]]))
            alarms += any(column.drifted for column in found)
        low, high = wilson_interval(alarms, resplits)
        return FalseAlarms(resplits, rows, alarms, low, high)


class WindowStats:
    """Counts of a window, a batch at a time."""

    def __init__(self, yardstick: ReferenceStats) -> None:
        self.rows = self.unreadable = self.outliers = 0
        self.since_us, self.until_us = 0, 0
        self._yardstick = yardstick
        self._confidence = 0.0
        num_classes = len(yardstick.class_names)
        self._labels = np.zeros(num_classes, np.int64)
        self._confusion = np.zeros((num_classes, num_classes), np.int64)
        # A slot for each distinct value of the reference, and one before, between and after them: enough to know
        # the window's distribution wherever the distance to the reference's can be largest.
        self._slots = [np.zeros(2 * len(column.values) + 1, np.int64) for column in yardstick.columns]

    def add(
        self, window: Predictions, true_labels: NDArray[np.int64], times_us: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Count rows, and tell which were counted, (N,) bool: not those with a number that is none.

        Args:
            window: N rows.
            true_labels: (N,), `UNLABELLED` where there is no feedback.
            times_us: (N,) in any order.
        """
        if window.probabilities.shape[1] != len(self._labels):
            self.unreadable += len(window.labels)
            return np.zeros(len(window.labels), np.bool_)
        matrix = np.concatenate([window.statistics, window.probabilities], axis=1)
        distances = self._yardstick.ruler.distances(window.embeddings)
        good: NDArray[np.bool_] = np.isfinite(matrix).all(axis=1) & np.isfinite(distances)
        good &= np.isfinite(window.confidences)
        good &= (window.labels >= 0) & (window.labels < len(self._labels))
        self.unreadable += int((~good).sum())
        if not good.any():
            return good
        for column, slots, values in zip(self._yardstick.columns, self._slots, matrix[good].T, strict=True):
            left = np.searchsorted(column.values, values, "left")
            slots += np.bincount(left + np.searchsorted(column.values, values, "right"), minlength=len(slots))
        self.rows += int(good.sum())
        self.outliers += int((distances[good] > self._yardstick.ruler.outlier_distance).sum())
        self._confidence += float(window.confidences[good].sum(dtype=np.float64))
        self._labels += np.bincount(window.labels[good], minlength=len(self._labels))
        judged = good & (true_labels >= 0) & (true_labels < len(self._labels))
        np.add.at(self._confusion, (true_labels[judged], window.labels[judged]), 1)
        first, last = int(times_us[good].min()), int(times_us[good].max())
        self.since_us = min(self.since_us or first, first)
        self.until_us = max(self.until_us, last)
        return good

    def decide(self, asked: DecisionConfig, *, model_version: str, seed: int = 0) -> DriftResult:
        """Compare what was counted with the reference."""
        yardstick, enough = self._yardstick, self.rows >= asked.min_rows
        columns = tuple(self._columns(asked.alpha)) if enough else ()
        p_values = {}
        for family in FAMILIES if enough else ():
            mine = [column.p_value for column in columns if column.family == family]
            p_values[family] = min(1.0, len(mine) * min(mine))
        drifted = [column for column in columns if column.drifted]
        found = self._severity(columns, changed=bool(drifted)) if enough else None
        confidence = self._confidence / self.rows if self.rows else math.nan
        decision: Decision = "insufficient_data" if not enough else "drift" if drifted else "no_drift"
        return DriftResult(
            decision=decision,
            reason=self._reason(asked, drifted, found),
            since_us=self.since_us,
            until_us=self.until_us,
            rows=self.rows,
            model_version=model_version,
            alpha=asked.alpha,
            min_rows=asked.min_rows,
            p_values=p_values,
            columns=columns,
            severity=found,
            false_alarms=(
                yardstick.false_alarms(self.rows, asked.alpha, asked.resplits, seed)
                if enough and asked.resplits
                else None
            ),
            reference_rows=yardstick.rows,
            reference_accuracy=yardstick.accuracy,
            mean_confidence=confidence,
            estimated=self._estimate(confidence, found) if enough else None,
            feedback=self._judged(asked),
            unreadable=self.unreadable,
        )

    def _columns(self, alpha: float) -> Iterator[Column]:
        yardstick = self._yardstick
        for column, slots in zip(yardstick.columns, self._slots, strict=True):
            reached = np.cumsum(slots) / self.rows  # before and at each value of the reference, and after the last
            reference = np.concatenate([[0], np.cumsum(column.counts)]) / yardstick.rows
            before, at = reached[:-1:2], reached[1::2]
            distance = max(np.abs(before - reference[:-1]).max(), np.abs(at - reference[1:]).max())
            yield _ks(column, distance, self.rows, yardstick.rows, yardstick.threshold(column.family, alpha))
        yield _chi_square(self._labels, yardstick.labels, yardstick.threshold(FAMILIES[2], alpha))

    def _severity(self, columns: Sequence[Column], *, changed: bool) -> Severity:
        signals = Signals(
            confidence_drop=self._yardstick.confidence - self._confidence / self.rows,
            output_distance=max(column.distance for column in columns if column.family == FAMILIES[1]),
            outlier_fraction=self.outliers / self.rows,
        )
        thresholds = self._yardstick.thresholds
        harmful = changed and severity.is_harmful(signals, thresholds)
        return Severity("harmful" if harmful else "harmless" if changed else "none", signals, thresholds)

    def _estimate(self, confidence: float, found: Severity | None) -> Estimate:
        change = confidence - self._yardstick.confidence
        reliable = (found is None or found.level != "harmful") and abs(change) <= SMALL_CHANGE
        return Estimate(min(1.0, max(0.0, self._yardstick.accuracy + change)), reliable)

    def _judged(self, asked: DecisionConfig) -> FeedbackAccuracy | None:
        total = int(self._confusion.sum())
        if total == 0:
            return None
        right, yardstick = int(np.trace(self._confusion)), self._yardstick
        known = int(np.trace(yardstick.confusion))
        table = [[right, total - right], [known, yardstick.rows - known]]
        p_decline = float(stats.fisher_exact(table, alternative="less").pvalue)
        return FeedbackAccuracy(
            total,
            right / total,
            *wilson_interval(right, total),
            p_decline,
            p_decline < asked.alpha if total >= asked.min_labels else None,
            _counts(self._confusion),
            _counts(yardstick.confusion),
        )

    def _reason(self, asked: DecisionConfig, drifted: Sequence[Column], found: Severity | None) -> str:
        if found is None:
            return f"{self.rows:,} rows are too few to judge: {asked.min_rows:,} are needed"
        if not drifted:
            return f"{self.rows:,} rows look like the reference: no test is below its threshold"
        strongest = sorted(drifted, key=lambda column: (column.p_value, -column.distance))[:3]
        names = ", ".join(column.name for column in strongest)
        more = len(drifted) - len(strongest)
        what = f"{names}{f' and {more} more' if more else ''} differ{'s' if len(drifted) == 1 else ''}"
        if found.level != "harmful":
            return f"{what} from the reference, but nothing says that accuracy suffers"
        beyond = [
            f"{WORDS[name]} {getattr(found.signals, name):.2f} (harmless up to {getattr(found.thresholds, name):.2f})"
            for name in severity.SIGNALS
            if getattr(found.signals, name) > getattr(found.thresholds, name)
        ]
        return f"{what} from the reference, and accuracy is likely to suffer: {'; '.join(beyond)}"


def _counts(matrix: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(count) for count in row) for row in matrix)


def _distribution(name: str, family: str, values: NDArray[Any]) -> _Distribution:
    distinct, ranks, counts = np.unique(values, return_inverse=True, return_counts=True)
    return _Distribution(name, family, distinct, counts, ranks)


def _ks(column: _Distribution, distance: float, rows: int, others: int, threshold: float) -> Column:
    # The distribution that scipy's ks_2samp(method="asymp") uses; ties make it cautious.
    p_value = float(stats.kstwo.sf(distance, max(1, round(rows * others / (rows + others)))))
    return Column(column.name, column.family, float(distance), p_value, threshold)


def _chi_square(window: NDArray[np.int64], reference: NDArray[np.int64], threshold: float) -> Column:
    table = np.stack([window, reference])
    table = table[:, table.sum(axis=0) > 0]
    p_value = float(stats.chi2_contingency(table).pvalue) if table.shape[1] > 1 else 1.0
    shares = table / table.sum(axis=1, keepdims=True)
    return Column(LABELS, FAMILIES[2], float(np.abs(shares[0] - shares[1]).sum() / 2), p_value, threshold)


WORDS = {
    "confidence_drop": "mean confidence is lower by",
    "output_distance": "a class probability is apart by",
    "outlier_fraction": "share of rows unlike any before is",
}
"""The signals of severity, for a person."""
