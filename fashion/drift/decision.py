"""Decide whether a window of predictions differs from its model's reference, and whether that is likely to matter.

Each distinct picture counts once: retries, caches and galleries repeat pictures, and tests take rows for independent.
A window is counted in constant memory, in any number of parts. Knows arrays, no logs.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fashion.config.drift import DecisionConfig
from fashion.drift.clusters import Clusters
from fashion.drift.comparison import MIN_WORTH, Comparison, compare, family_p_values
from fashion.drift.distinct import MAX_CLIENTS, DistinctKeys, DistinctPictures, Origins, Rows, num_pictures
from fashion.drift.judged_pictures import JudgedPictures
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.result import (
    Column,
    Coverage,
    Decision,
    DriftResult,
    FeedbackAccuracy,
    Severity,
    Slice,
    Traffic,
)
from fashion.drift.slices import find_slices
from fashion.metrics.classification import confusion_matrix, wilson_interval
from fashion.model.accuracy import HARMFUL, Estimate
from fashion.model.prediction_sets import STEPS
from fashion.model.predictor import Predictions
from fashion.model.severity import SIGNALS as OLD_SIGNALS
from fashion.model.severity import is_harmful
from fashion.predictions.hashing import hash_few
from fashion.predictions.record import FOREVER_US

SMALL_CHANGE = 0.02
"""With older packages: change of the mean confidence up to which the accuracy estimated from it is reliable."""
WORTH_SAYING = 0.03
"""Estimated fall of accuracy from which on a reason tells of it, harmful or not."""
SIGNAL_WORDS = {
    "confidence_drop": "mean confidence is lower by",
    "output_distance": "the distribution of a class probability moved by",
    "outlier_fraction": "the share of rows unlike the reference is",
}
"""The signals of older packages in a sentence."""


@dataclass
class WindowCounts:
    """What is known of a window's rows. Those of its parts, added up in any order, are those of the whole, exactly."""

    pictures: DistinctPictures
    """A row for each distinct picture."""
    labelled: DistinctPictures
    """A row for each distinct picture with feedback: few of many have it, and none of them may be lost to a sample."""
    clients: DistinctKeys
    late: DistinctPictures
    """A row for each distinct picture of before the window whose feedback arrived in it; see `late_rows`."""
    rows: int = 0
    """All rows but the unreadable ones."""
    untagged: int = 0
    """Of these, rows without a client."""
    unreadable: int = 0
    """Rows with NaN, infinity or an unknown class, which are counted nowhere else."""
    since_us: int = FOREVER_US
    """Microseconds since 1970, UTC, of the earliest row."""
    until_us: int = 0
    """Likewise of the latest row."""

    @classmethod
    def empty(cls, reference: ReferenceStats) -> "WindowCounts":
        """The counts of no rows.

        Args:
            reference: whose classes the rows will have.
        """
        size = num_pictures(len(reference.class_names))
        return cls(DistinctPictures(size), DistinctPictures(size), DistinctKeys(MAX_CLIENTS), DistinctPictures(size))

    def add(self, other: "WindowCounts") -> None:
        """Add the rows of another part of the window."""
        self.pictures.merge(other.pictures)
        self.labelled.merge(other.labelled)
        self.clients.add(other.clients.keys)
        self.late.merge(other.late)
        self.rows += other.rows
        self.untagged += other.untagged
        self.unreadable += other.unreadable
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

    def add(
        self,
        window: Predictions,
        true_labels: NDArray[np.int64],
        times_us: NDArray[np.int64],
        origins: Origins | None = None,
    ) -> NDArray[np.bool_]:
        """Count rows.

        Args:
            window: N rows.
            true_labels: (N,) classes; `UNLABELLED` where there is no feedback.
            times_us: (N,) microseconds since 1970, in any order.
            origins: pictures and clients of the rows; None if each row is a picture of its own, from nobody.

        Returns:
            (N,) True for each row that was counted: all but those with NaN, infinity or an unknown class.
        """
        counts, classes = self.counts, len(self._reference.class_names)
        if origins is None:
            origins = Origins.unknown(len(window.labels), counts.rows + counts.unreadable)
        good = readable(window, classes)
        counts.unreadable += int((~good).sum())
        if not good.any():
            return good
        rows = Rows(window, true_labels, times_us, origins)[good]
        counts.rows += len(rows)
        counts.pictures.add(rows)
        counts.labelled.add(rows[(rows.true_labels >= 0) & (rows.true_labels < classes)])
        counts.untagged += int((rows.origins.clients == "").sum())
        counts.clients.add(hash_few([each for each in set(rows.origins.clients) if each]))
        counts.since_us = min(counts.since_us, int(rows.times_us.min()))
        counts.until_us = max(counts.until_us, int(rows.times_us.max()))
        return good

    def decide(self, settings: DecisionConfig, *, model_version: str, seed: int = 0) -> DriftResult:
        """Compare the counted rows with the reference.

        Args:
            settings: error rate, and the rows needed for a decision.
            model_version: for the result.
            seed: of the windows that false alarms are measured on.
        """
        reference, counts = self._reference, self.counts
        pictures = counts.pictures.rows()
        compared = 0 if pictures is None else len(pictures)
        alpha, found, slices = settings.run_alpha, None, tuple[Slice, ...]()
        if pictures is not None and compared >= settings.min_rows:
            found = compare(pictures, reference, alpha)
            slices = find_slices(pictures, counts.labelled.rows(), reference, alpha=alpha)
        traffic = _describe(counts, compared, found)
        result = DriftResult(
            decision="insufficient_data",
            reason=_too_few(counts.rows, traffic, settings.min_rows, found, slices),
            since_us=counts.since_us if counts.rows else 0,
            until_us=counts.until_us,
            rows=counts.rows,
            model_version=model_version,
            alpha=alpha,
            min_rows=settings.min_rows,
            p_values={},
            columns=(),
            severity=None,
            false_alarms=None,
            reference_rows=reference.labelled_rows,
            reference_accuracy=reference.accuracy,
            mean_confidence=math.nan if pictures is None else _mean_confidence(pictures.predictions),
            estimated=None,
            feedback=self._feedback(settings),
            unreadable=counts.unreadable,
            traffic=traffic if counts.rows else None,
            slices=slices,
            false_alarms_per_year=None if settings.runs_per_year is None else alpha * settings.runs_per_year,
            coverage=self._coverage(settings),
        )
        if pictures is None or found is None or not found.is_conclusive:
            return result
        drifted = found.drifted
        decision: Decision = "drift" if drifted else "no_drift"
        estimate = self._estimate(pictures.predictions)
        severity = self._severity(pictures.predictions, estimate, changed=bool(drifted))
        if severity.thresholds and severity.level == "harmful":
            estimate = dataclasses.replace(estimate, reliable=False)
        false_alarms = None
        if settings.resplits:
            false_alarms = reference.false_alarms(compared, alpha, settings.resplits, seed)
        return dataclasses.replace(
            result,
            decision=decision,
            reason=_reason(counts.rows, traffic, drifted, severity, estimate, reference.accuracy),
            p_values=family_p_values(found.columns),
            columns=found.columns,
            severity=severity,
            false_alarms=false_alarms,
            estimated=estimate,
        )

    def _severity(self, pictures: Predictions, estimate: Estimate, *, changed: bool) -> Severity:
        thresholds = self._reference.thresholds
        estimator = self._reference.estimator
        if estimator is not None or thresholds is None:
            bound = HARMFUL if estimator is None else estimator.called_harmful
            harmful = changed and self._reference.accuracy - estimate.accuracy > bound
            return Severity("harmful" if harmful else "harmless" if changed else "none")
        # Against the held-out rows, where the thresholds were learnt: the columns may be compared with accepted ones.
        signals = self._reference.meter.measure(pictures)
        harmful = changed and is_harmful(signals, thresholds)
        return Severity("harmful" if harmful else "harmless" if changed else "none", signals, thresholds)

    def _estimate(self, pictures: Predictions) -> Estimate:
        estimator = self._reference.estimator
        if estimator is not None:
            return estimator.estimate(estimator.sums(pictures))
        # Difference of confidences, Guillory et al. 2021 (arXiv:2107.03315).
        change = _mean_confidence(pictures) - self._reference.meter.mean_confidence
        return Estimate(min(1.0, max(0.0, self._reference.accuracy + change)), abs(change) <= SMALL_CHANGE)

    def _feedback(self, settings: DecisionConfig) -> FeedbackAccuracy | None:
        judged, reference = JudgedPictures.of(self.counts.labelled, self.counts.late), self._reference
        if judged is None:
            return None
        right = judged.labels == judged.true_labels
        p_decline = reference.p_decline(right, Clusters(judged.clients))
        low, high = wilson_interval(int(right.sum()), len(right))
        enough = len(right) >= settings.min_labels and not math.isnan(p_decline)
        return FeedbackAccuracy(
            rows=len(right),
            accuracy=float(right.mean()),
            low=low,
            high=high,
            p_decline=p_decline,
            declined=p_decline < settings.run_alpha if enough else None,
            confusion=_as_tuples(confusion_matrix(judged.true_labels, judged.labels, len(reference.class_names))),
            reference_confusion=_as_tuples(reference.confusion),
            late=int(judged.is_late.sum()),
        )

    def _coverage(self, settings: DecisionConfig) -> Coverage | None:
        rows, reference = self.counts.labelled.rows(), self._reference
        if rows is None:
            return None
        below, total = round(reference.coverage * STEPS), len(rows)
        held = reference.sets.steps(rows.predictions.probabilities, rows.true_labels) < below
        expected = int(reference.set_steps[:below].sum())
        p_fall = reference.p_fewer(held, Clusters(rows.origins.clients), expected)
        enough = total >= settings.min_labels and not math.isnan(p_fall)
        low, high = wilson_interval(int(held.sum()), total)
        fallen = p_fall < settings.run_alpha if enough else None
        return Coverage(reference.coverage, total, float(held.mean()), low, high, p_fall, fallen)


def readable(window: Predictions, classes: int) -> NDArray[np.bool_]:
    """Which rows can be counted.

    Args:
        window: N rows.
        classes: of the model.

    Returns:
        (N,) True for each row without NaN and infinity, whose class is one of the model's.
    """
    if window.probabilities.shape[1] != classes:
        return np.zeros(len(window.labels), np.bool_)
    good: NDArray[np.bool_] = np.isfinite(window.confidences) & (window.labels >= 0) & (window.labels < classes)
    for matrix in (window.statistics, window.probabilities, window.embeddings):
        good &= np.isfinite(matrix).all(axis=1)
    return good


def _describe(counts: WindowCounts, compared: int, found: Comparison | None) -> Traffic:
    return Traffic(
        pictures=min(counts.pictures.count, counts.rows),  # an estimate may be larger
        clients=counts.clients.count,
        untagged=counts.untagged,
        compared=compared,
        worth=compared if found is None else found.worth,
    )


def _mean_confidence(pictures: Predictions) -> float:
    return float(pictures.confidences.astype(np.float64).mean())


def _too_few(rows: int, traffic: Traffic, min_rows: int, found: Comparison | None, slices: Sequence[Slice]) -> str:
    """Why there is no decision."""
    if found is not None:
        changed = [each.name for each in slices if each.kind == "client" and each.changed][:3]
        more = f". Clients that differ most from the reference: {', '.join(changed)}" if changed else ""
        what = f"{traffic.compared:,} pictures of {traffic.clients:,} clients are not enough to decide"
        if found.worth == 0:
            return f"{what}: the clients are few and differ from each other{more}"
        return (
            f"{what}: a client's are like each other, so that they are worth only {found.worth:,.0f} independent ones, "
            f"and {MIN_WORTH} are needed{more}"
        )
    if traffic.pictures == rows:
        return f"{rows:,} rows are too few to judge: {min_rows:,} are needed"
    return f"{rows:,} rows show only {traffic.pictures:,} distinct pictures, too few to judge: {min_rows:,} are needed"


def _reason(
    rows: int,
    traffic: Traffic,
    drifted: Sequence[Column],
    severity: Severity,
    estimate: Estimate,
    accuracy: float,
) -> str:
    if not drifted:
        what = f"{rows:,} rows"
        if traffic.pictures != rows:
            about = "about " if traffic.compared < traffic.pictures else ""
            what = f"{about}{traffic.pictures:,} distinct pictures in {rows:,} rows"
        return f"{what} look like the reference: no test is below its threshold"
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
