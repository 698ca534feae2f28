"""Decide whether a window of predictions differs from its model's reference, and whether that is likely to matter.

Three families of tests share the error rate alpha: Kolmogorov-Smirnov tests of the image statistics, the same of
the class probabilities, and a chi-square test of the predicted labels. Each family has a third of alpha, divided
among its columns (Bonferroni), so that a window without drift is called drift at most that often.

A window is counted, not stored: `WindowStats` takes any number of rows in constant memory, and its tests are exact.
Knows arrays, no logs.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fashion.config.drift import DecisionConfig
from fashion.drift.reference_stats import ReferenceStats, chi_square_test, ks_test
from fashion.drift.result import (
    FAMILIES,
    Column,
    Coverage,
    Decision,
    DriftResult,
    FeedbackAccuracy,
    Severity,
)
from fashion.metrics.classification import wilson_interval
from fashion.model.accuracy import HARMFUL, SIGNALS, Estimate
from fashion.model.prediction_sets import STEPS
from fashion.model.predictor import Predictions
from fashion.model.severity import SIGNALS as OLD_SIGNALS
from fashion.model.severity import is_harmful
from fashion.predictions.record import FOREVER_US

SMALL_CHANGE = 0.02
"""With older packages: change of the mean confidence up to which the accuracy estimated from it is reliable."""
WORTH_SAYING = 0.03
"""Estimated fall of accuracy from which on a reason tells of it, harmful or not."""
CONFIDENCE_UNITS = 2**40
"""Parts into which a confidence is divided to be summed: finer than float32 tells confidences apart, and 8 million
rows of a batch stay below 2**63."""
SIGNAL_WORDS = {
    "confidence_drop": "mean confidence is lower by",
    "output_distance": "the distribution of a class probability moved by",
    "outlier_fraction": "the share of rows unlike the reference is",
}
"""The signals of older packages in a sentence."""


@dataclass
class WindowCounts:
    """Sums over a window's rows. Those of its parts, added up in any order, are those of the whole, bit for bit."""

    label_counts: NDArray[np.int64]
    """(classes,) rows by predicted label."""
    signals: NDArray[np.int64]
    """(K,) sums of `fashion.model.accuracy.SIGNALS`; zeros where there is no estimator of accuracy."""
    set_steps: NDArray[np.int64]
    """(STEPS,) rows with feedback by `PredictionSets.steps` of their true label."""
    confusion: NDArray[np.int64]
    """(classes, classes) rows with feedback, by true and predicted label."""
    slots: list[NDArray[np.int64]]
    """For each column of the reference, one slot for each of its K distinct values, and one before, between and after
    them (2 K + 1): the distance of two empirical distributions is largest at one of the values or just before it."""
    rows: int = 0
    unreadable: int = 0
    """Rows with NaN, infinity or an unknown class, which are in no other sum."""
    outliers: int = 0
    """Rows beyond `SeverityMeter.outlier_distance`; 0 where there is an estimator of accuracy."""
    confidence: int = 0
    """Sum of the confidences, in units of 1 / CONFIDENCE_UNITS: sums of floats depend on their order."""
    since_us: int = FOREVER_US
    """Microseconds since 1970, UTC, of the earliest row."""
    until_us: int = 0
    """Likewise of the latest row."""

    @classmethod
    def empty(cls, reference: ReferenceStats) -> "WindowCounts":
        """The counts of no rows.

        Args:
            reference: whose classes and columns the rows will have.
        """
        classes = len(reference.class_names)
        slots = [np.zeros(2 * len(column.values) + 1, np.int64) for column in reference.columns]
        signals = np.zeros(len(SIGNALS), np.int64)
        steps, confusion = np.zeros(STEPS, np.int64), np.zeros((classes, classes), np.int64)
        return cls(np.zeros(classes, np.int64), signals, steps, confusion, slots)

    def add(self, other: "WindowCounts") -> None:
        """Add the rows of another part of the window."""
        self.label_counts += other.label_counts
        self.signals += other.signals
        self.set_steps += other.set_steps
        self.confusion += other.confusion
        for mine, theirs in zip(self.slots, other.slots, strict=True):
            mine += theirs
        self.rows += other.rows
        self.unreadable += other.unreadable
        self.outliers += other.outliers
        self.confidence += other.confidence
        self.since_us = min(self.since_us, other.since_us)
        self.until_us = max(self.until_us, other.until_us)


class WindowStats:
    """A window's rows, counted a batch at a time, and the decision on them."""

    def __init__(self, reference_stats: ReferenceStats, counts: WindowCounts | None = None) -> None:
        """
        Args:
            reference_stats: what the rows are compared with.
            counts: of rows that were counted before, which this goes on counting; None for none.
        """
        self._reference = reference_stats
        self.counts = WindowCounts.empty(reference_stats) if counts is None else counts

    @property
    def mean_confidence(self) -> float:
        """NaN without rows."""
        counts = self.counts
        return counts.confidence / counts.rows / CONFIDENCE_UNITS if counts.rows else math.nan

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
        counts, classes = self.counts, len(self.counts.label_counts)
        if window.probabilities.shape[1] != classes:
            counts.unreadable += len(window.labels)
            return np.zeros(len(window.labels), np.bool_)
        matrix = np.concatenate([window.statistics, window.probabilities], axis=1)
        good: NDArray[np.bool_] = np.isfinite(matrix).all(axis=1) & np.isfinite(window.embeddings).all(axis=1)
        good &= np.isfinite(window.confidences)
        good &= (window.labels >= 0) & (window.labels < classes)
        counts.unreadable += int((~good).sum())
        if not good.any():
            return good
        for column, slots, values in zip(self._reference.columns, counts.slots, matrix[good].T, strict=True):
            left = np.searchsorted(column.values, values, "left")
            slots += np.bincount(left + np.searchsorted(column.values, values, "right"), minlength=len(slots))
        counts.rows += int(good.sum())
        if self._reference.estimator is not None:
            counts.signals += self._reference.estimator.signals(window[good]).sum(axis=0)
        else:
            distances = self._reference.meter.distances(window.embeddings[good])
            counts.outliers += int((distances > self._reference.meter.outlier_distance).sum())
        counts.confidence += int(np.rint(window.confidences[good].astype(np.float64) * CONFIDENCE_UNITS).sum())
        counts.label_counts += np.bincount(window.labels[good], minlength=classes)
        labelled = good & (true_labels >= 0) & (true_labels < classes)
        np.add.at(counts.confusion, (true_labels[labelled], window.labels[labelled]), 1)
        steps = self._reference.sets.steps(window.probabilities[labelled], true_labels[labelled])
        counts.set_steps += np.bincount(steps, minlength=STEPS)
        counts.since_us = min(counts.since_us, int(times_us[good].min()))
        counts.until_us = max(counts.until_us, int(times_us[good].max()))
        return good

    def decide(self, settings: DecisionConfig, *, model_version: str, seed: int = 0) -> DriftResult:
        """Compare the counted rows with the reference.

        Args:
            settings: error rate, and the rows needed for a decision.
            model_version: for the result.
            seed: of the windows that false alarms are measured on.
        """
        reference, counts = self._reference, self.counts
        enough = counts.rows >= settings.min_rows
        columns = tuple(self._columns(settings.alpha)) if enough else ()
        drifted = [column for column in columns if column.drifted]
        estimate = self._estimate() if enough else None
        severity = self._severity(columns, estimate, changed=bool(drifted)) if estimate else None
        if estimate and severity and severity.thresholds and severity.level == "harmful":
            estimate = dataclasses.replace(estimate, reliable=False)
        decision: Decision = "insufficient_data" if not enough else "drift" if drifted else "no_drift"
        false_alarms = None
        if enough and settings.resplits:
            false_alarms = reference.false_alarms(counts.rows, settings.alpha, settings.resplits, seed)
        return DriftResult(
            decision=decision,
            reason=_reason(counts.rows, settings.min_rows, drifted, severity, estimate, reference.accuracy),
            since_us=counts.since_us if counts.rows else 0,
            until_us=counts.until_us,
            rows=counts.rows,
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
            estimated=estimate,
            feedback=self._feedback(settings),
            unreadable=counts.unreadable,
            coverage=self._coverage(settings),
        )

    def _columns(self, alpha: float) -> Iterator[Column]:
        reference, counts = self._reference, self.counts
        for column, slots in zip(reference.columns, counts.slots, strict=True):
            reached = np.cumsum(slots) / counts.rows  # before and at each value of the reference, and after the last
            expected = np.concatenate([[0], np.cumsum(column.counts)]) / reference.rows
            before, at = reached[:-1:2], reached[1::2]
            distance = max(np.abs(before - expected[:-1]).max(), np.abs(at - expected[1:]).max())
            yield ks_test(column, distance, counts.rows, reference.rows, reference.threshold(column.family, alpha))
        threshold = reference.threshold(FAMILIES[2], alpha)
        yield chi_square_test(counts.label_counts, reference.label_counts, threshold)

    def _severity(self, columns: Sequence[Column], estimate: Estimate, *, changed: bool) -> Severity:
        thresholds = self._reference.thresholds
        if self._reference.estimator is not None or thresholds is None:
            harmful = changed and self._reference.accuracy - estimate.accuracy > HARMFUL
            return Severity("harmful" if harmful else "harmless" if changed else "none")
        signals = self._reference.meter.signals(
            rows=self.counts.rows,
            mean_confidence=self.mean_confidence,
            output_distances=[column.distance for column in columns if column.family == FAMILIES[1]],
            outliers=self.counts.outliers,
        )
        harmful = changed and is_harmful(signals, thresholds)
        return Severity("harmful" if harmful else "harmless" if changed else "none", signals, thresholds)

    def _estimate(self) -> Estimate:
        if self._reference.estimator is not None:
            return self._reference.estimator.estimate(self.counts.signals, self.counts.rows)
        # Difference of confidences, Guillory et al. 2021 (arXiv:2107.03315).
        change = self.mean_confidence - self._reference.meter.mean_confidence
        return Estimate(min(1.0, max(0.0, self._reference.accuracy + change)), abs(change) <= SMALL_CHANGE)

    def _feedback(self, settings: DecisionConfig) -> FeedbackAccuracy | None:
        total = int(self.counts.confusion.sum())
        if total == 0:
            return None
        right, reference = int(np.trace(self.counts.confusion)), self._reference
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
            confusion=_as_tuples(self.counts.confusion),
            reference_confusion=_as_tuples(reference.confusion),
        )

    def _coverage(self, settings: DecisionConfig) -> Coverage | None:
        total = int(self.counts.set_steps.sum())
        if total == 0:
            return None
        below = round(settings.coverage * STEPS)
        held = int(self.counts.set_steps[:below].sum())
        expected = int(self._reference.set_steps[:below].sum())
        table = [[held, total - held], [expected, self._reference.rows - expected]]
        p_fall = float(stats.fisher_exact(table, alternative="less").pvalue)
        fallen = p_fall < settings.alpha if total >= settings.min_labels else None
        return Coverage(settings.coverage, total, held / total, *wilson_interval(held, total), p_fall, fallen)


def _family_p_values(columns: Sequence[Column]) -> dict[str, float]:
    """The smallest p-value of each family, corrected for the number of its columns."""
    p_values = {}
    for family in FAMILIES:
        of_family = [column.p_value for column in columns if column.family == family]
        p_values[family] = min(1.0, len(of_family) * min(of_family))
    return p_values


def _reason(
    rows: int,
    min_rows: int,
    drifted: Sequence[Column],
    severity: Severity | None,
    estimate: Estimate | None,
    accuracy: float,
) -> str:
    if severity is None or estimate is None:
        return f"{rows:,} rows are too few to judge: {min_rows:,} are needed"
    if not drifted:
        return f"{rows:,} rows look like the reference: no test is below its threshold"
    strongest = sorted(drifted, key=lambda column: (column.p_value, -column.distance))[:3]
    names = ", ".join(column.name for column in strongest)
    more = len(drifted) - len(strongest)
    what = f"{names}{f' and {more} more' if more else ''} differ{'s' if len(drifted) == 1 else ''} from the reference"
    between = "" if estimate.low is None else f", {estimate.low:.1%} to {estimate.high:.1%}"
    estimated = f"without labels it is estimated to be {estimate.accuracy:.1%}{between}; it was {accuracy:.1%}"
    if severity.level != "harmful":
        if accuracy - estimate.accuracy >= WORTH_SAYING:
            return f"{what}, and accuracy may have fallen: {estimated}"
        return f"{what}, but no signal says that accuracy suffers"
    if severity.signals is None or severity.thresholds is None:
        return f"{what}, and accuracy is likely to suffer: {estimated}"
    beyond = [
        f"{SIGNAL_WORDS[name]} {getattr(severity.signals, name):.2f} "
        f"(harmless up to {getattr(severity.thresholds, name):.2f})"
        for name in OLD_SIGNALS
        if getattr(severity.signals, name) > getattr(severity.thresholds, name)
    ]
    return f"{what}, and accuracy is likely to suffer: {'; '.join(beyond)}"


def _as_tuples(matrix: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(count) for count in row) for row in matrix)
