"""Decide on a window that is read once, whole or in parts that are counted elsewhere. Knows no logs."""

import time
from collections.abc import Callable, Iterable

from fashion.config.drift import DecisionConfig, DriftConfig
from fashion.config.times import moment, seconds
from fashion.drift.decision import WindowCounts
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.window_part import Inspection, Sample, VersionRows, WindowPart
from fashion.predictions.batch import Batch
from fashion.predictions.record import FOREVER_US
from fashion.predictions.windows import Window


def inspect(
    batches: Iterable[Batch],
    reference_stats: Callable[[str], ReferenceStats | None],
    settings: DecisionConfig,
    *,
    max_plot_rows: int,
    max_examples: int,
    on_rows: Callable[[int], None] = lambda _: None,
) -> list[Inspection]:
    """Decide on a window in one pass. The arguments are those of `count` and `decide`."""
    part = count(batches, reference_stats, max_plot_rows=max_plot_rows, max_examples=max_examples, on_rows=on_rows)
    return decide([part], reference_stats, settings)


def count(
    batches: Iterable[Batch],
    reference_stats: Callable[[str], ReferenceStats | None],
    *,
    max_plot_rows: int,
    max_examples: int,
    on_rows: Callable[[int], None] = lambda _: None,
) -> WindowPart:
    """Count a window or a part of one.

    Args:
        batches: its rows.
        reference_stats: returns what a version is compared with, or None for an unknown version.
        max_plot_rows: size of each version's sample.
        max_examples: unusual rows of each version.
        on_rows: called with the number of rows read so far.

    Returns:
        What `decide` needs to know, by version. It can be pickled, and holds no reference.
    """
    part: WindowPart = {}
    read = 0
    for batch in batches:
        for version in sorted(set(batch.model_versions)):
            stats = reference_stats(version)
            if version not in part:
                counts = None if stats is None else WindowCounts.empty(stats)
                part[version] = VersionRows(counts, Sample(max_plot_rows), max_examples)
            part[version].add(batch.of(version), stats)
        read += len(batch)
        on_rows(read)
    return part


def decide(
    parts: Iterable[WindowPart], reference_stats: Callable[[str], ReferenceStats | None], settings: DecisionConfig
) -> list[Inspection]:
    """Decide on a window, on the rows of each version separately. Equal for all divisions of the window into parts.

    Args:
        parts: what `count` returned of each; they are used up.
        reference_stats: returns what a version is compared with, or None for an unknown version.
        settings: of the decision.

    Returns:
        One inspection for each version, that of the latest row last; none for an empty window.
    """
    whole: WindowPart = {}
    for part in parts:
        for version, rows in part.items():
            if version in whole:
                whole[version].merge(rows)
            else:
                whole[version] = rows
    latest = sorted(whole, key=lambda version: (whole[version].until_us, version))
    return [whole[version].decide(version, reference_stats(version), settings) for version in latest]


def select_window(settings: DriftConfig, clock: Callable[[], int] = time.time_ns) -> Window:
    """The window that a configuration means at this time.

    Args:
        settings: `rows`, `since` or `window`.
        clock: returns nanoseconds since 1970.
    """
    now = clock() // 1000
    if settings.rows is not None:
        return Window(0, FOREVER_US, settings.rows)
    if settings.since is not None:
        return Window(int(moment(settings.since).timestamp() * 1e6), now)
    return Window(now - 1_000_000 * seconds(settings.window), now)
