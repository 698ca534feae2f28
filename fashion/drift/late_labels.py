"""Feedback that arrives late: on predictions of before the window, in which nobody would look at it any more.

A label counts once, in the window in which its row was predicted or, if that is over, in the one in which it arrives.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fashion.drift.decision import WindowCounts
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.window_part import Sample, VersionRows, WindowPart
from fashion.predictions.record import ModelId
from fashion.predictions.windows import Source, Window

MAX_AGE_DAYS = 30
"""Older predictions are not looked at: in a shared log each row that is read is paid for."""
DAY_US = 86_400_000_000


class LateLabels(NamedTuple):
    """Feedback on earlier predictions."""

    part: WindowPart
    """To be added to the parts of the window: feedback, and no rows."""
    rows: dict[ModelId, int]
    """Rows with such feedback, by model."""


def count(source: Source, window: Window, reference_stats: Callable[[ModelId], ReferenceStats | None]) -> LateLabels:
    """Count the feedback that arrived in a window on predictions of before it, by model.

    Args:
        source: the log.
        window: of time; one of a number of rows has no late feedback.
        reference_stats: returns a model's reference, or None where there is none: its feedback is not counted.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be read.
    """
    if window.rows is not None:
        return LateLabels({}, {})
    oldest = window.since_us - MAX_AGE_DAYS * DAY_US
    pairs: defaultdict[ModelId, list[tuple[int, int]]] = defaultdict(list)
    for row in source.labelled(since_us=oldest, feedback_since_us=window.since_us):
        latest = row.feedback[-1]
        if row.record.time_us < window.since_us <= latest.time_us < window.until_us:
            pairs[row.record.model].append((latest.true_label, row.record.label))
    found = LateLabels({}, {})
    for model, rows in pairs.items():
        stats = reference_stats(model)
        if stats is None:
            continue
        counts = WindowCounts.empty(stats)
        usable = [pair for pair in rows if max(pair) < len(stats.class_names)]
        true, predicted = np.array(usable, np.int64).reshape(-1, 2).T
        np.add.at(counts.confusion, (true, predicted), 1)
        found.part[model] = VersionRows(counts, Sample(0), 0)
        found.rows[model] = len(true)
    return found
