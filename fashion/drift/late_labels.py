"""Feedback that arrives late: on predictions of before the window, in which nobody would look at it any more.

A label counts once, in the window in which its row was predicted or, if that is over, in the one in which it arrives.
There it counts as the window's own labels do: each distinct picture once, and the pictures of a client together.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fashion.drift.decision import WindowCounts
from fashion.drift.distinct import Origins
from fashion.drift.judged_pictures import late_rows
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.window_part import Sample, VersionRows, WindowPart
from fashion.predictions.record import ModelId, pages
from fashion.predictions.windows import BATCH_ROWS, LateFeedback, Source, Window

MAX_AGE_DAYS = 30
"""Older predictions are not looked at: in a shared log each row that is read is paid for."""
DAY_US = 86_400_000_000


class LateLabels(NamedTuple):
    """Feedback on earlier predictions."""

    part: WindowPart
    """To be added to the parts of the window, as the last: feedback, and no rows."""
    rows: dict[ModelId, int]
    """Rows with such feedback, by model."""


def count(source: Source, window: Window, reference_stats: Callable[[ModelId], ReferenceStats | None]) -> LateLabels:
    """Count the feedback that arrived in a window on predictions of before it, by model, in constant memory.

    Args:
        source: the log.
        window: of time; one of a number of rows has no late feedback.
        reference_stats: returns a model's reference, or None where there is none: its feedback is not counted.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be read.
    """
    part: WindowPart = {}
    rows = Counter[ModelId]()
    if window.rows is not None:
        return LateLabels(part, rows)
    for page in pages(source.late_feedback(window, window.since_us - MAX_AGE_DAYS * DAY_US), BATCH_ROWS):
        for model in {each.model for each in page}:
            stats = reference_stats(model)
            if stats is None:
                continue
            classes = len(stats.class_names)
            found = [each for each in page if each.model == model and max(each.label, each.true_label) < classes]
            if found:
                counts = part.setdefault(model, VersionRows(WindowCounts.empty(stats), Sample(0), 0)).counts
                assert counts is not None
                _add(counts, found)
                rows[model] += len(found)
    return LateLabels(part, rows)


def _add(counts: WindowCounts, found: Sequence[LateFeedback]) -> None:
    origins = Origins.of(
        [each.prediction_id for each in found],
        [each.image_sha256 for each in found],
        [each.client for each in found],
    )
    labels = np.array([each.label for each in found], np.int64)
    counts.late.add(late_rows(labels, np.array([each.true_label for each in found], np.int64), origins))
