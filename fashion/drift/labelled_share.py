"""Accuracy by feedback where some rows were drawn at random and reviewed: those decide, not the rows people chose."""

import dataclasses

import numpy as np
from scipy import stats

from fashion.config.drift import DecisionConfig
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.result import FeedbackAccuracy
from fashion.predictions import random_share
from fashion.predictions.batch import Batch
from fashion.predictions.record import REVIEW, UNLABELLED

CHOSEN = "people chose which rows to judge, and may judge wrong answers more often than right ones"
"""Note on accuracy that rests on whichever rows have feedback."""


def by_share(
    feedback: FeedbackAccuracy | None, sample: Batch | None, reference: ReferenceStats, settings: DecisionConfig
) -> FeedbackAccuracy | None:
    """Accuracy and the test of a decline by the rows that the review page drew, where they are enough.

    Args:
        feedback: by all rows with feedback; None where there are none.
        sample: of the window, drawn without looking at the answers.
        reference: what accuracy is compared with.
        settings: the error rate, and the rows that are enough.

    Returns:
        The same with a note on which rows it rests on.
    """
    if feedback is None:
        return None
    if sample is None or not sample.sources:
        return dataclasses.replace(feedback, note=CHOSEN)
    reviewed = np.array([source == REVIEW for source in sample.sources]) & (sample.true_labels != UNLABELLED)
    right = sample.predictions.labels == sample.true_labels
    order = np.array([random_share.draw_order(each) for each in sample.prediction_ids], np.uint64)
    drawn = random_share.drawn(order, sample.times_us, reviewed)
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
        note=f"{len(drawn):,} rows drawn at random and reviewed decide, not the {feedback.rows:,} with any feedback",
    )
