"""Feedback that arrives late: on predictions of before the window, in which nobody would look at it any more.

A label counts once, in the window in which its row was predicted or, if that is over, in the one in which it arrives.
Logs return counts of them, without pictures and clients: one picture that was judged late many times counts as many
rows, and one client's late labels count as independent.
"""

from collections.abc import Callable
from typing import NamedTuple

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
    found = LateLabels({}, {})
    for model, label, true_label, rows in source.late_feedback(window, window.since_us - MAX_AGE_DAYS * DAY_US):
        stats = reference_stats(model)
        if stats is None or max(label, true_label) >= len(stats.class_names):
            continue
        if model not in found.part:
            found.part[model] = VersionRows(WindowCounts.empty(stats), Sample(0), 0)
            found.rows[model] = 0
        counts = found.part[model].counts
        assert counts is not None
        counts.late[true_label, label] += rows
        found.rows[model] += rows
    return found
