"""Decide whether a window of predictions differs from its model's reference, and whether that is likely to matter.

Three families of tests share the error rate alpha: Kolmogorov-Smirnov tests of the image statistics, the same of
the class probabilities, and a chi-square test of the predicted labels. Each family has a third of alpha, divided
among its columns (Bonferroni), so that a window without drift is called drift at most that often.

A window is counted, not stored: `WindowStats` takes any number of rows in constant memory, and its tests are exact.
Knows arrays, no logs.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fashion.config.drift import DecisionConfig
from fashion.drift.reference_stats import ReferenceStats, chi_square_test, ks_test
from fashion.drift.result import (
    FAMILIES,
    Column,
    Decision,
    DriftResult,
    Estimate,
    FeedbackAccuracy,
    Severity,
)
from fashion.metrics.classification import wilson_interval
from fashion.model.predictor import Predictions
from fashion.model.severity import SIGNALS, is_harmful

SMALL_CHANGE = 0.02
"""Change of the mean confidence up to which the accuracy estimated from it is reliable: with `convnet`
no shift of tests/support/shifts.py within it was estimated a point off, one beyond it 72 points (benchmark
drift_power)."""
SIGNAL_WORDS = {
    "confidence_drop": "mean confidence is lower by",
    "output_distance": "the distribution of a class probability moved by",
    "outlier_fraction": "the share of rows unlike the reference is",
}
"""The signals of severity in a sentence."""


class WindowStats:
    """Counts of a window's rows, added a batch at a time."""

    def __init__(self, reference_stats: ReferenceStats) -> None:
        self.rows = self.unreadable = self.outliers = 0
        self.since_us, self.until_us = 0, 0
        self._reference = reference_stats
        self._sum_of_confidences = 0.0
        num_classes = len(reference_stats.class_names)
        self._label_counts = np.zeros(num_classes, np.int64)
        self._confusion = np.zeros((num_classes, num_classes), np.int64)
        # One slot for each distinct value of the reference, and one before, between and after them: the distance of
        # two empirical distributions is largest at one of the reference's values or just before it.
        self._slots = [np.zeros(2 * len(column.values) + 1, np.int64) for column in reference_stats.columns]

    @property
    def mean_confidence(self) -> float:
        """NaN without rows."""
        return self._sum_of_confidences / self.rows if self.rows else math.nan

    def add(
        self, window: Predictions, true_labels: NDArray[np.int64], times_us: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Count rows.

        Args:
            window: N rows.
            true_labels: (N,) classes; `UNLABELLED` where there is no feedback.
            times_us: (N,) microseconds since 1970, in any order.

        Returns:
            (N,) True for each row that was counted: all but those with NaN, infinity or an unknown class.
        """
        if window.probabilities.shape[1] != len(self._label_counts):
            self.unreadable += len(window.labels)
            return np.zeros(len(window.labels), np.bool_)
        matrix = np.concatenate([window.statistics, window.probabilities], axis=1)
        distances = self._reference.meter.distances(window.embeddings)
        good: NDArray[np.bool_] = np.isfinite(matrix).all(axis=1) & np.isfinite(distances)
        good &= np.isfinite(window.confidences)
        good &= (window.labels >= 0) & (window.labels < len(self._label_counts))
        self.unreadable += int((~good).sum())
        if not good.any():
            return good
        for column, slots, values in zip(self._reference.columns, self._slots, matrix[good].T, strict=True):
            left = np.searchsorted(column.values, values, "left")
            slots += np.bincount(left + np.searchsorted(column.values, values, "right"), minlength=len(slots))
        self.rows += int(good.sum())
        self.outliers += int((distances[good] > self._reference.meter.outlier_distance).sum())
        self._sum_of_confidences += float(window.confidences[good].sum(dtype=np.float64))
        self._label_counts += np.bincount(window.labels[good], minlength=len(self._label_counts))
        labelled = good & (true_labels >= 0) & (true_labels < len(self._label_counts))
        np.add.at(self._confusion, (true_labels[labelled], window.labels[labelled]), 1)
        first, last = int(times_us[good].min()), int(times_us[good].max())
        self.since_us = min(self.since_us or first, first)
        self.until_us = max(self.until_us, last)
        return good

    def decide(self, settings: DecisionConfig, *, model_version: str, seed: int = 0) -> DriftResult:
        """Compare the counted rows with the reference.

        Args:
            settings: error rate, and the rows needed for a decision.
            model_version: for the result.
            seed: of the windows that false alarms are measured on.
        """
        reference, enough = self._reference, self.rows >= settings.min_rows
        columns = tuple(self._columns(settings.alpha)) if enough else ()
        drifted = [column for column in columns if column.drifted]
        severity = self._severity(columns, changed=bool(drifted)) if enough else None
        decision: Decision = "insufficient_data" if not enough else "drift" if drifted else "no_drift"
        false_alarms = None
        if enough and settings.resplits:
            false_alarms = reference.false_alarms(self.rows, settings.alpha, settings.resplits, seed)
        return DriftResult(
            decision=decision,
            reason=_reason(self.rows, settings.min_rows, drifted, severity),
            since_us=self.since_us,
            until_us=self.until_us,
            rows=self.rows,
            model_version=model_version,
            alpha=settings.alpha,
            min_rows=settings.min_rows,
            p_values=_family_p_values(columns) if enough else {},
            columns=columns,
            severity=severity,
            false_alarms=false_alarms,
            reference_rows=reference.rows,
            reference_accuracy=reference.accuracy,
            mean_confidence=self.mean_confidence,
            estimated=self._estimate(severity) if enough else None,
            feedback=self._feedback(settings),
            unreadable=self.unreadable,
        )

    def _columns(self, alpha: float) -> Iterator[Column]:
        reference = self._reference
        for column, slots in zip(reference.columns, self._slots, strict=True):
            reached = np.cumsum(slots) / self.rows  # before and at each value of the reference, and after the last
            expected = np.concatenate([[0], np.cumsum(column.counts)]) / reference.rows
            before, at = reached[:-1:2], reached[1::2]
            distance = max(np.abs(before - expected[:-1]).max(), np.abs(at - expected[1:]).max())
            yield ks_test(column, distance, self.rows, reference.rows, reference.threshold(column.family, alpha))
        yield chi_square_test(self._label_counts, reference.label_counts, reference.threshold(FAMILIES[2], alpha))

    def _severity(self, columns: Sequence[Column], *, changed: bool) -> Severity:
        thresholds = self._reference.thresholds
        signals = self._reference.meter.signals(
            rows=self.rows,
            mean_confidence=self.mean_confidence,
            output_distances=[column.distance for column in columns if column.family == FAMILIES[1]],
            outliers=self.outliers,
        )
        harmful = changed and is_harmful(signals, thresholds)
        return Severity("harmful" if harmful else "harmless" if changed else "none", signals, thresholds)

    def _estimate(self, severity: Severity | None) -> Estimate:
        change = self.mean_confidence - self._reference.meter.mean_confidence
        reliable = (severity is None or severity.level != "harmful") and abs(change) <= SMALL_CHANGE
        return Estimate(min(1.0, max(0.0, self._reference.accuracy + change)), reliable)

    def _feedback(self, settings: DecisionConfig) -> FeedbackAccuracy | None:
        total = int(self._confusion.sum())
        if total == 0:
            return None
        right, reference = int(np.trace(self._confusion)), self._reference
        reference_right = int(np.trace(reference.confusion))
        table = [[right, total - right], [reference_right, reference.rows - reference_right]]
        p_decline = float(stats.fisher_exact(table, alternative="less").pvalue)
        low, high = wilson_interval(right, total)
        return FeedbackAccuracy(
            rows=total,
            accuracy=right / total,
            low=low,
            high=high,
            p_decline=p_decline,
            declined=p_decline < settings.alpha if total >= settings.min_labels else None,
            confusion=_as_tuples(self._confusion),
            reference_confusion=_as_tuples(reference.confusion),
        )


def _family_p_values(columns: Sequence[Column]) -> dict[str, float]:
    """The smallest p-value of each family, corrected for the number of its columns."""
    p_values = {}
    for family in FAMILIES:
        of_family = [column.p_value for column in columns if column.family == family]
        p_values[family] = min(1.0, len(of_family) * min(of_family))
    return p_values


def _reason(rows: int, min_rows: int, drifted: Sequence[Column], severity: Severity | None) -> str:
    if severity is None:
        return f"{rows:,} rows are too few to judge: {min_rows:,} are needed"
    if not drifted:
        return f"{rows:,} rows look like the reference: no test is below its threshold"
    strongest = sorted(drifted, key=lambda column: (column.p_value, -column.distance))[:3]
    names = ", ".join(column.name for column in strongest)
    more = len(drifted) - len(strongest)
    what = f"{names}{f' and {more} more' if more else ''} differ{'s' if len(drifted) == 1 else ''}"
    if severity.level != "harmful":
        return f"{what} from the reference, but no signal says that accuracy suffers"
    beyond = [
        f"{SIGNAL_WORDS[name]} {getattr(severity.signals, name):.2f} "
        f"(harmless up to {getattr(severity.thresholds, name):.2f})"
        for name in SIGNALS
        if getattr(severity.signals, name) > getattr(severity.thresholds, name)
    ]
    return f"{what} from the reference, and accuracy is likely to suffer: {'; '.join(beyond)}"


def _as_tuples(matrix: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(count) for count in row) for row in matrix)
