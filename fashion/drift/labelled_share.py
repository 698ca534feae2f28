"""Accuracy by feedback where some rows were drawn at random and reviewed: those decide, not the rows people chose."""

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fashion.config.drift import DecisionConfig
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.result import FeedbackAccuracy
from fashion.drift.reviews import Reviews
from fashion.predictions import random_share
from fashion.predictions.batch import Batch
from fashion.predictions.record import REVIEW, UNLABELLED

CHOSEN = "people chose which rows to judge, and may judge wrong answers more often than right ones"
"""Note on accuracy that rests on whichever rows have feedback."""


def by_share(
    feedback: FeedbackAccuracy | None,
    sample: Batch | None,
    reference: ReferenceStats,
    settings: DecisionConfig,
    reviews: Reviews,
) -> FeedbackAccuracy | None:
    """Accuracy and the test of a decline by the rows that the review page drew, where they are enough.

    Args:
        feedback: by all rows with feedback; None where there are none.
        sample: of the window, drawn without looking at the answers.
        reference: what accuracy is compared with.
        settings: the error rate, and the rows that are enough.
        reviews: of the log. Rows on pictures that nobody can label are left out: they would end the random sample.

    Returns:
        The same with a note on which rows it rests on.
    """
    if feedback is None:
        return None
    if sample is None or not sample.sources:
        return dataclasses.replace(feedback, note=CHOSEN)
    truth = _reviewed(sample, reviews, len(reference.class_names))
    order = np.array([random_share.draw_order(each) for each in sample.prediction_ids], np.uint64)
    reviewed, waits = truth != UNLABELLED, np.array([each not in reviews.skipped for each in sample.image_sha256])
    rows = np.flatnonzero(reviewed | waits)
    if len(random_share.drawn(order[rows], sample.times_us[rows], reviewed[rows])) < settings.min_labels:
        pictures = [sample.image_sha256[row] for row in rows.tolist()]
        stored = random_share.shown(
            order[rows], sample.times_us[rows], reviewed[rows], lambda row: reviews.is_stored(pictures[row])
        )
        rows = rows[stored]
    return _decide_by(feedback, sample[rows.tolist()], truth[rows], order[rows], reference, settings)


def _decide_by(
    feedback: FeedbackAccuracy,
    sample: Batch,
    truth: NDArray[np.int64],
    order: NDArray[np.uint64],
    reference: ReferenceStats,
    settings: DecisionConfig,
) -> FeedbackAccuracy:
    """The same for rows that somebody can label, with their (N,) classes by reviews and their draw order."""
    reviewed, right = truth != UNLABELLED, sample.predictions.labels == truth
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


def _reviewed(sample: Batch, reviews: Reviews, num_classes: int) -> NDArray[np.int64]:
    """(N,) class of each row's picture by a review of it, on whichever row; UNLABELLED without one."""
    found = []
    of_pictures = zip(sample.models, sample.image_sha256, strict=True)
    own = zip(sample.sources or [None] * len(sample), sample.true_labels.tolist(), strict=True)
    for (source, label), (model, sha256) in zip(own, of_pictures, strict=True):
        found.append(label if source == REVIEW else reviews.labels.get((model.name, sha256), UNLABELLED))
    labels = np.array(found, np.int64)
    return np.where(labels < num_classes, labels, UNLABELLED)
