"""Decide on a window that is read once, whole or in parts that are counted elsewhere. Knows no logs."""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from fashion.config.drift import DecisionConfig, DriftConfig
from fashion.config.times import moment, seconds
from fashion.drift.decision import WindowCounts
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.reviews import Reviews
from fashion.drift.window_part import Inspection, Sample, VersionRows, WindowPart
from fashion.predictions.batch import Batch
from fashion.predictions.record import FOREVER_US, ModelId
from fashion.predictions.windows import Window


class WindowDecision(NamedTuple):
    """What was decided on a window."""

    inspections: list[Inspection]
    """One for each model with a reference, that of the latest row last."""
    unjudged: dict[ModelId, int]
    """Rows without a reference, by model: their number."""


def inspect(
    batches: Iterable[Batch],
    reference_stats: Callable[[ModelId], ReferenceStats | None],
    settings: DecisionConfig,
    *,
    max_plot_rows: int,
    max_examples: int,
    on_rows: Callable[[int], None] = lambda _: None,
) -> WindowDecision:
    """Decide on a window in one pass. The arguments are those of `count` and `decide`."""
    part = count(batches, reference_stats, max_plot_rows=max_plot_rows, max_examples=max_examples, on_rows=on_rows)
    return decide([part], reference_stats, settings)


def count(
    batches: Iterable[Batch],
    reference_stats: Callable[[ModelId], ReferenceStats | None],
    *,
    max_plot_rows: int,
    max_examples: int,
    on_rows: Callable[[int], None] = lambda _: None,
) -> WindowPart:
    """Count a window or a part of one.

    Args:
        batches: its rows; those that this project itself sent, to try a new bento, are left out.
        reference_stats: returns what a model's rows are compared with, or None where there is no reference.
        max_plot_rows: size of each model's sample.
        max_examples: unusual rows of each model.
        on_rows: called with the number of rows read so far.

    Returns:
        What `decide` needs to know, by model. It can be pickled, and holds no reference.
    """
    part: WindowPart = {}
    read = 0
    for everything in batches:
        batch = everything.of_others()
        for model in sorted(set(batch.models), key=lambda each: each.order):
            stats = reference_stats(model)
            if model not in part:
                counts = None if stats is None else WindowCounts.empty(stats)
                part[model] = VersionRows(counts, Sample(max_plot_rows), max_examples)
            part[model].add(batch.of(model), stats)
        read += len(everything)
        on_rows(read)
    return part


def decide(
    parts: Iterable[WindowPart],
    reference_stats: Callable[[ModelId], ReferenceStats | None],
    settings: DecisionConfig,
    reviews: Reviews | None = None,
) -> WindowDecision:
    """Decide on a window, on the rows of each model separately. Equal for all divisions of the window into parts.

    Args:
        parts: what `count` returned of each; they are used up.
        reference_stats: returns what a model's rows are compared with, or None where there is no reference.
        settings: of the decision.
        reviews: of the log; by default those on the very rows alone.
    """
    whole: WindowPart = {}
    for part in parts:
        for model, rows in part.items():
            if model in whole:
                whole[model].merge(rows)
            else:
                whole[model] = rows
    inspections, unjudged = [], {}
    for model in sorted(whole, key=lambda each: (whole[each].until_us, each.order)):
        stats = reference_stats(model)
        if stats is None:
            unjudged[model] = whole[model].rows
        else:
            inspections.append(whole[model].decide(model, stats, settings, reviews or Reviews()))
    return WindowDecision(inspections, unjudged)


def select_window(settings: DriftConfig, clock: Callable[[], int] = time.time_ns) -> Window:
    """The window that a configuration means at this time.

    Args:
        settings: `rows`, `since` or `window`, and `until`.
        clock: returns nanoseconds since 1970.
    """
    until = None if settings.until is None else int(moment(settings.until, "until").timestamp() * 1e6)
    if settings.rows is not None:
        return Window(0, FOREVER_US if until is None else until, settings.rows)
    end = clock() // 1000 if until is None else until
    if settings.since is not None:
        return Window(int(moment(settings.since).timestamp() * 1e6), end)
    return Window(end - 1_000_000 * seconds(settings.window), end)
