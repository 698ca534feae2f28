"""Feedback where some rows were drawn at random and reviewed: those decide, not the rows that people chose."""

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fashion.config.drift import DecisionConfig
from fashion.drift.clusters import Clusters
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.result import Coverage, FeedbackAccuracy
from fashion.drift.reviews import Reviews
from fashion.metrics.classification import wilson_interval
from fashion.model.prediction_sets import STEPS
from fashion.predictions import random_share
from fashion.predictions.batch import Batch
from fashion.predictions.hashing import hash_texts
from fashion.predictions.record import REVIEW, UNLABELLED

CHOSEN = "people chose which rows to judge, and may judge wrong answers more often than right ones"
"""Note on accuracy that rests on whichever rows have feedback."""


class Share(NamedTuple):
    """N rows that somebody can label, and which of them were drawn at random and reviewed."""

    rows: Batch
    truth: NDArray[np.int64]
    """(N,) classes by reviews; UNLABELLED without one."""
    order: NDArray[np.uint64]
    """(N,) of `random_share.draw_order`."""
    drawn: NDArray[np.int64]
    """Indices of the drawn ones."""

    @classmethod
    def of(cls, sample: Batch | None, num_classes: int, min_labels: int, reviews: Reviews) -> "Share | None":
        """Find the drawn rows; None where nothing is known of who labelled what.

        Args:
            sample: rows first in the order of the draw, one of each picture.
            num_classes: of the model.
            min_labels: reviewed rows that are enough.
            reviews: of the log. Rows on pictures that nobody can label are left out: they would end the random sample.
        """
        if sample is None or not sample.sources:
            return None
        truth, order = _reviewed(sample, reviews, num_classes), hash_texts(sample.prediction_ids)
        reviewed, waits = truth != UNLABELLED, np.array([each not in reviews.skipped for each in sample.image_sha256])
        rows = np.flatnonzero(reviewed | waits)
        if len(random_share.drawn(order[rows], sample.times_us[rows], reviewed[rows])) < min_labels:
            pictures = [sample.image_sha256[row] for row in rows.tolist()]
            stored = random_share.shown(
                order[rows], sample.times_us[rows], reviewed[rows], lambda row: reviews.is_stored(pictures[row])
            )
            rows = rows[stored]
        drawn = random_share.drawn(order[rows], sample.times_us[rows], reviewed[rows])
        return cls(sample[rows.tolist()], truth[rows], order[rows], drawn)


def by_share(
    feedback: FeedbackAccuracy | None, share: Share | None, reference: ReferenceStats, settings: DecisionConfig
) -> FeedbackAccuracy | None:
    """Accuracy and the test of a decline by the rows that the review page drew, where they are enough.

    Args:
        feedback: by all rows with feedback; None where there are none.
        share: the drawn rows.
        reference: what accuracy is compared with.
        settings: the error rate, and the rows that are enough.

    Returns:
        The same with a note on which rows it rests on.
    """
    if feedback is None:
        return None
    if share is None:
        return dataclasses.replace(feedback, note=CHOSEN)
    sample, drawn = share.rows, share.drawn
    right = sample.predictions.labels == share.truth
    labels = [bool(each) if truth != UNLABELLED else None for each, truth in zip(right, share.truth, strict=True)]
    found = random_share.estimate(share.order, sample.times_us, sample.predictions.confidences, labels)
    if found is None or len(drawn) < settings.min_labels:
        return dataclasses.replace(feedback, note=CHOSEN)
    p_decline = reference.p_decline(right[drawn], Clusters(np.full(len(drawn), "", object)))
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
    coverage: Coverage | None, share: Share | None, reference: ReferenceStats, settings: DecisionConfig
) -> Coverage | None:
    """How often prediction sets hold the true label, by the same rows. The arguments are those of `by_share`."""
    if coverage is None:
        return None
    if share is None or len(share.drawn) < settings.min_labels:
        return dataclasses.replace(coverage, note=CHOSEN)
    drawn, below = share.drawn, round(reference.coverage * STEPS)
    total = len(drawn)
    held = reference.sets.steps(share.rows.predictions.probabilities[drawn], share.truth[drawn]) < below
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


def _note(drawn: int, rows: int) -> str:
    return f"{drawn:,} rows drawn at random and reviewed decide, not the {rows:,} with any feedback"


def _reviewed(sample: Batch, reviews: Reviews, num_classes: int) -> NDArray[np.int64]:
    """(N,) class of each row's picture by a review of it, on whichever row; UNLABELLED without one."""
    found = []
    of_pictures = zip(sample.models, sample.image_sha256, strict=True)
    own = zip(sample.sources or [None] * len(sample), sample.true_labels.tolist(), strict=True)
    for (source, label), (model, sha256) in zip(own, of_pictures, strict=True):
        found.append(label if source == REVIEW else reviews.labels.get((model.name, sha256), UNLABELLED))
    labels = np.array(found, np.int64)
    return np.where(labels < num_classes, labels, UNLABELLED)
