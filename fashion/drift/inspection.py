"""Walk through a window once: count it for each version, and keep the few rows that are drawn. Knows no logs."""

import dataclasses
import heapq
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fashion.config.drift import DecisionConfig, DriftConfig
from fashion.config.times import moment, seconds
from fashion.drift.decision import ReferenceStats, WindowStats
from fashion.drift.result import DriftResult, not_comparable
from fashion.predictions.batch import Batch, concatenate
from fashion.predictions.record import FOREVER_US, UNLABELLED
from fashion.predictions.windows import Window

SEED = 0
"""Of which rows are drawn: the same window gives the same report."""


@dataclass(frozen=True, eq=False)
class Unusual:
    """A row far from the reference."""

    distance: float
    """As `fashion.drift.decision.ReferenceStats.unusualness`."""
    prediction_id: str
    image_sha256: str
    label: int
    confidence: float
    true_label: int
    """`UNLABELLED` where nobody said."""


@dataclass(frozen=True, eq=False)
class Inspected:
    """One version's part of a window."""

    result: DriftResult
    sample: Batch | None
    """Rows chosen at random, or all where there are few; None without a reference to compare them with."""
    unusual: tuple[Unusual, ...] = ()
    """The rows farthest from the reference, farthest first."""


@dataclass
class _Sample:
    """So many rows, each as likely as any other."""

    size: int
    rng: np.random.Generator
    parts: list[Batch] = field(default_factory=list)
    keys: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def add(self, batch: Batch) -> None:
        """Offer rows. Of all that are offered those with the smallest random keys stay."""
        keys = self.rng.random(len(batch))
        bound = np.partition(self.keys, self.size - 1)[self.size - 1] if len(self.keys) >= self.size else np.inf
        kept = np.flatnonzero(keys < bound)
        self.parts.append(batch[kept.tolist()])
        self.keys = np.concatenate([self.keys, keys[kept]])
        if len(self.keys) > 2 * self.size:
            self._shrink()

    def rows(self) -> Batch | None:
        """What has stayed."""
        if len(self.keys) == 0:
            return None
        self._shrink()
        return self.parts[0]

    def _shrink(self) -> None:
        best = np.sort(np.argsort(self.keys)[: self.size])
        self.parts = [concatenate(self.parts)[best.tolist()]]
        self.keys = self.keys[best]


class _Part:
    """What is known of one version while the window is read."""

    def __init__(self, yardstick: ReferenceStats, *, drawn: int, examples: int) -> None:
        self._yardstick = yardstick
        self._tally = WindowStats(yardstick)
        self._sample = _Sample(drawn, np.random.default_rng(SEED))
        self._examples = examples
        self._unusual: list[tuple[float, str, Unusual]] = []

    def add(self, batch: Batch) -> None:
        # Feedback by number may name a class that this version has not: then nobody has said what the row is.
        is_class = batch.true_labels < len(self._yardstick.class_names)
        batch = dataclasses.replace(batch, true_labels=np.where(is_class, batch.true_labels, UNLABELLED))
        counted = np.flatnonzero(self._tally.add(batch.predictions, batch.true_labels, batch.times_us))
        batch = batch[counted.tolist()] if len(counted) < len(batch) else batch
        self._sample.add(batch)
        if self._examples and len(batch):
            distances = self._yardstick.unusualness(batch.predictions)
            for row in np.argsort(-distances, kind="stable")[: self._examples]:
                found = _unusual(batch, int(row), float(distances[row]))
                self._unusual.append((found.distance, found.prediction_id, found))
            self._unusual = heapq.nlargest(self._examples, self._unusual, key=lambda entry: entry[:2])

    def finish(self, asked: DecisionConfig, model_version: str) -> Inspected:
        result = self._tally.decide(asked, model_version=model_version)
        return Inspected(result, self._sample.rows(), tuple(found for *_, found in self._unusual))


def inspect(
    batches: Iterable[Batch],
    yardstick: Callable[[str], ReferenceStats | None],
    asked: DecisionConfig,
    *,
    drawn: int,
    examples: int,
    on_rows: Callable[[int], None] = lambda _: None,
) -> list[Inspected]:
    """Decide on a window, each version's rows for themselves.

    Args:
        batches: the window.
        yardstick: of a version; None where the version is not known.
        drawn: most rows to keep for drawing.
        examples: unusual rows to keep.
        on_rows: told how many rows were read so far.

    Returns:
        One of each version, that of the latest row last; nothing for an empty window.
    """
    parts: dict[str, _Part] = {}
    strangers: dict[str, tuple[int, int, int]] = {}
    """Rows, and the times of the first and last, of versions that are not known."""
    latest: dict[str, int] = {}
    read = 0
    for batch in batches:
        for version in sorted(set(batch.model_versions)):
            mine = batch.of(version)
            latest[version] = max(latest.get(version, 0), int(mine.times_us.max()))
            if version not in parts and version not in strangers:
                ready = yardstick(version)
                if ready is None:
                    strangers[version] = (0, FOREVER_US, 0)
                else:
                    parts[version] = _Part(ready, drawn=drawn, examples=examples)
            if version in parts:
                parts[version].add(mine)
            else:
                rows, first, last = strangers[version]
                times = mine.times_us
                strangers[version] = (rows + len(mine), min(first, int(times.min())), max(last, int(times.max())))
        read += len(batch)
        on_rows(read)
    return [
        parts[version].finish(asked, version)
        if version in parts
        else Inspected(not_comparable(version, *strangers[version], asked), None)
        for version in sorted(latest, key=lambda version: latest[version])
    ]


def _unusual(batch: Batch, row: int, distance: float) -> Unusual:
    return Unusual(
        distance,
        batch.prediction_ids[row],
        batch.image_sha256[row],
        int(batch.predictions.labels[row]),
        float(batch.predictions.confidences[row]),
        int(batch.true_labels[row]),
    )


def chosen(settings: DriftConfig, clock: Callable[[], int] = time.time_ns) -> Window:
    """The window that a configuration means now."""
    now = clock() // 1000
    if settings.rows is not None:
        return Window(0, FOREVER_US, settings.rows)
    if settings.since is not None:
        return Window(int(moment(settings.since).timestamp() * 1e6), now)
    return Window(now - 1_000_000 * seconds(settings.window), now)
