"""Feedback where some rows were drawn at random and reviewed: those decide, not the rows that people chose."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fashion.config.drift import DecisionConfig
from fashion.drift.clusters import Clusters
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.result import Coverage, FeedbackAccuracy
from fashion.metrics.classification import wilson_interval
from fashion.model.prediction_sets import STEPS
from fashion.predictions import random_share
from fashion.predictions.batch import Batch
from fashion.predictions.hashing import hash_texts
from fashion.predictions.record import REVIEW, UNLABELLED

CHOSEN = "people chose which rows to judge, and may judge wrong answers more often than right ones"
"""Note on accuracy that rests on whichever rows have feedback."""


def by_share(
    feedback: FeedbackAccuracy | None, sample: Batch | None, reference: ReferenceStats, settings: DecisionConfig
) -> FeedbackAccuracy | None:
    """Accuracy and the test of a decline by the rows that the review page drew, where they are enough.

    Args:
        feedback: by all rows with feedback; None where there are none.
        sample: rows first in the order of the draw, one of each picture.
        reference: what accuracy is compared with.
        settings: the error rate, and the rows that are enough.

    Returns:
        The same with a note on which rows it rests on.
    """
    if feedback is None:
        return None
    if sample is None or not sample.sources:
        return dataclasses.replace(feedback, note=CHOSEN)
    right = sample.predictions.labels == sample.true_labels
    reviewed, order, drawn = _drawn(sample, sample.sources)
    labels = [bool(is_right) if known else None for is_right, known in zip(right, reviewed, strict=True)]
    found = random_share.estimate(order, sample.times_us, sample.predictions.confidences, labels)
    if found is None or len(drawn) < settings.min_labels:
        return dataclasses.replace(feedback, note=CHOSEN)
    correct, of_reference = int(right[drawn].sum()), int(np.trace(reference.confusion))
    table = [[correct, len(drawn) - correct], [of_reference, reference.labelled_rows - of_reference]]
    p_decline = float(stats.fisher_exact(table, alternative="less").pvalue)
    return dataclasses.replace(
        feedback,
        rows=len(drawn),
        accuracy=found.accuracy,
        low=found.low,
        high=found.high,
        p_decline=p_decline,
        declined=p_decline < settings.run_alpha,
        note=_note(len(drawn), feedback.rows),
        late=0,
    )


def sets_by_share(
    coverage: Coverage | None, sample: Batch | None, reference: ReferenceStats, settings: DecisionConfig
) -> Coverage | None:
    """How often prediction sets hold the true label, by the same rows.

    Args:
        coverage: by all rows with feedback; None where there are none.
        sample: as in `by_share`.
        reference: what it is compared with.
        settings: the error rate, and the rows that are enough.

    Returns:
        The same with a note on which rows it rests on.
    """
    if coverage is None:
        return None
    if sample is None or not sample.sources:
        return dataclasses.replace(coverage, note=CHOSEN)
    _, _, drawn = _drawn(sample, sample.sources)
    total, below = len(drawn), round(settings.coverage * STEPS)
    if total < settings.min_labels:
        return dataclasses.replace(coverage, note=CHOSEN)
    held = reference.sets.steps(sample.predictions.probabilities[drawn], sample.true_labels[drawn]) < below
    p_fall = reference.p_fewer(held, Clusters(np.full(total, "", object)), int(reference.set_steps[:below].sum()))
    low, high = wilson_interval(int(held.sum()), total)
    return dataclasses.replace(
        coverage,
        rows=total,
        held=float(held.mean()),
        low=low,
        high=high,
        p_fall=p_fall,
        fallen=p_fall < settings.run_alpha,
        note=_note(total, coverage.rows),
    )


def _drawn(
    sample: Batch, sources: Sequence[str | None]
) -> tuple[NDArray[np.bool_], NDArray[np.uint64], NDArray[np.int64]]:
    """(N,) which rows were reviewed, (N,) their order in the draw, and the indices of the drawn ones."""
    reviewed = np.array([source == REVIEW for source in sources]) & (sample.true_labels != UNLABELLED)
    order = hash_texts(sample.prediction_ids)
    return reviewed, order, random_share.drawn(order, sample.times_us, reviewed)


def _note(drawn: int, rows: int) -> str:
    return f"{drawn:,} rows drawn at random and reviewed decide, not the {rows:,} with any feedback"
