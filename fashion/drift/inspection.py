"""Read a window once: count the rows of each version, and keep a sample and the most unusual ones. Knows no logs."""

import dataclasses
import heapq
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fashion.config.drift import DecisionConfig, DriftConfig
from fashion.config.times import moment, seconds
from fashion.drift.decision import WindowStats
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.result import DriftResult, unknown_version
from fashion.predictions.batch import Batch, concatenate
from fashion.predictions.record import FOREVER_US, UNLABELLED
from fashion.predictions.windows import Window

SEED = 0
"""Of the sample: the same window gives the same report."""


@dataclass(frozen=True, eq=False)
class UnusualRow:
    """A row far from the reference."""

    distance: float
    """From `fashion.drift.reference_stats.ReferenceStats.distances`."""
    prediction_id: str
    image_sha256: str
    label: int
    """The predicted class."""
    confidence: float
    true_label: int
    """`UNLABELLED` without feedback."""


@dataclass(frozen=True, eq=False)
class Inspection:
    """One version's part of a window."""

    result: DriftResult
    sample: Batch | None
    """Rows sampled at random, or all where there are few; None without a reference to compare them with."""
    unusual_rows: tuple[UnusualRow, ...] = ()
    """The rows farthest from the reference, farthest first."""


def inspect(
    batches: Iterable[Batch],
    reference_stats: Callable[[str], ReferenceStats | None],
    settings: DecisionConfig,
    *,
    max_plot_rows: int,
    max_examples: int,
    on_rows: Callable[[int], None] = lambda _: None,
) -> list[Inspection]:
    """Decide on a window, on the rows of each version separately.

    Args:
        batches: the window.
        reference_stats: returns what a version is compared with, or None for an unknown version; called once for each.
        settings: of the decision.
        max_plot_rows: size of each version's sample.
        max_examples: unusual rows of each version.
        on_rows: called with the number of rows read so far.

    Returns:
        One inspection for each version, that of the latest row last; none for an empty window.
    """
    parts: dict[str, _KnownVersion | _UnknownVersion] = {}
    latest: dict[str, int] = {}
    read = 0
    for batch in batches:
        for version in sorted(set(batch.model_versions)):
            rows = batch.of(version)
            latest[version] = max(latest.get(version, 0), int(rows.times_us.max()))
            if version not in parts:
                stats = reference_stats(version)
                parts[version] = (
                    _UnknownVersion()
                    if stats is None
                    else _KnownVersion(stats, max_plot_rows=max_plot_rows, max_examples=max_examples)
                )
            parts[version].add(rows)
        read += len(batch)
        on_rows(read)
    return [parts[version].finish(settings, version) for version in sorted(latest, key=lambda version: latest[version])]


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


@dataclass
class _Sample:
    """At most `size` rows, each as likely as any other."""

    size: int
    rng: np.random.Generator
    parts: list[Batch] = field(default_factory=list)
    keys: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def add(self, batch: Batch) -> None:
        """Offer rows: those with the smallest random keys of all stay."""
        keys = self.rng.random(len(batch))
        bound = np.partition(self.keys, self.size - 1)[self.size - 1] if len(self.keys) >= self.size else np.inf
        smaller = np.flatnonzero(keys < bound)
        self.parts.append(batch[smaller.tolist()])
        self.keys = np.concatenate([self.keys, keys[smaller]])
        if len(self.keys) > 2 * self.size:
            self._shrink()

    def rows(self) -> Batch | None:
        """The sample; None if no rows were offered."""
        if len(self.keys) == 0:
            return None
        self._shrink()
        return self.parts[0]

    def _shrink(self) -> None:
        smallest = np.sort(np.argsort(self.keys)[: self.size])
        self.parts = [concatenate(self.parts)[smallest.tolist()]]
        self.keys = self.keys[smallest]


class _KnownVersion:
    """The rows of a version that has a reference."""

    def __init__(self, reference_stats: ReferenceStats, *, max_plot_rows: int, max_examples: int) -> None:
        self._reference = reference_stats
        self._stats = WindowStats(reference_stats)
        self._sample = _Sample(max_plot_rows, np.random.default_rng(SEED))
        self._max_examples = max_examples
        self._unusual: list[UnusualRow] = []

    def add(self, batch: Batch) -> None:
        # Feedback may name a class, by number, that this version does not have: such a row has no usable feedback.
        is_class = batch.true_labels < len(self._reference.class_names)
        batch = dataclasses.replace(batch, true_labels=np.where(is_class, batch.true_labels, UNLABELLED))
        counted = np.flatnonzero(self._stats.add(batch.predictions, batch.true_labels, batch.times_us))
        batch = batch[counted.tolist()] if len(counted) < len(batch) else batch
        self._sample.add(batch)
        if self._max_examples and len(batch):
            distances = self._reference.distances(batch.predictions)
            farthest = np.argsort(-distances, kind="stable")[: self._max_examples]
            rows = self._unusual + [_unusual_row(batch, int(row), float(distances[row])) for row in farthest]
            self._unusual = heapq.nlargest(self._max_examples, rows, key=lambda row: (row.distance, row.prediction_id))

    def finish(self, settings: DecisionConfig, model_version: str) -> Inspection:
        result = self._stats.decide(settings, model_version=model_version)
        return Inspection(result, self._sample.rows(), tuple(self._unusual))


class _UnknownVersion:
    """The rows of a version that the registry does not hold: their number and time span."""

    def __init__(self) -> None:
        self.rows, self.since_us, self.until_us = 0, FOREVER_US, 0

    def add(self, batch: Batch) -> None:
        self.rows += len(batch)
        self.since_us = min(self.since_us, int(batch.times_us.min()))
        self.until_us = max(self.until_us, int(batch.times_us.max()))

    def finish(self, settings: DecisionConfig, model_version: str) -> Inspection:
        result = unknown_version(model_version, self.rows, self.since_us, self.until_us, settings)
        return Inspection(result, None)


def _unusual_row(batch: Batch, row: int, distance: float) -> UnusualRow:
    return UnusualRow(
        distance,
        batch.prediction_ids[row],
        batch.image_sha256[row],
        int(batch.predictions.labels[row]),
        float(batch.predictions.confidences[row]),
        int(batch.true_labels[row]),
    )
