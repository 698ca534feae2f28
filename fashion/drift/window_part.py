"""What is counted of a part of a window: pictures, a sample and the most unusual rows, by model. Knows no logs.

Parts of a window merge to what the whole window would have given, bit for bit, in whichever order they come.
"""

import dataclasses
import heapq
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fashion.config.drift import DecisionConfig
from fashion.drift.decision import WindowCounts, WindowStats
from fashion.drift.distinct import Keys, Origins, smallest_pictures
from fashion.drift.labelled_share import Share, by_share, sets_by_share
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.result import DriftResult
from fashion.drift.reviews import Reviews
from fashion.predictions.batch import Batch, concatenate
from fashion.predictions.record import FOREVER_US, UNLABELLED, ModelId

MAX_DRAWN = 10_000
"""Rows first in the order of the draw that are kept: many more than people review."""


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
    """One model's part of a window."""

    result: DriftResult
    sample: Batch | None
    """Rows sampled at random, or all where there are few; None for an empty window."""
    unusual_rows: tuple[UnusualRow, ...] = ()
    """The rows farthest from the reference, farthest first; one of each picture."""


@dataclass
class Sample:
    """Rows of at most `size` distinct pictures, each picture as likely as any other.

    Hashes decide: a row is in the sample or not, however the window is divided and ordered.
    """

    size: int
    parts: list[Batch] = field(default_factory=list)
    pictures: Keys = field(default_factory=lambda: np.empty(0, np.uint64))
    """Key of each row's picture."""
    keys: Keys = field(default_factory=lambda: np.empty(0, np.uint64))
    """Key of each row."""
    bound: int = 2**64 - 1
    """Pictures with a larger key are not in the sample."""

    def add(self, batch: Batch, pictures: Keys, keys: Keys) -> None:
        """Offer rows: those of the pictures with the smallest keys stay, one for each.

        Args:
            batch: N rows.
            pictures: (N,) key of each row's picture.
            keys: (N,) key of each row.
        """
        smaller = np.flatnonzero(pictures <= np.uint64(self.bound))
        if len(smaller) == 0:
            return
        self.parts.append(batch[smaller.tolist()])
        self.pictures = np.concatenate([self.pictures, pictures[smaller]])
        self.keys = np.concatenate([self.keys, keys[smaller]])
        if len(self.keys) > 2 * self.size:
            self._shrink()

    def merge(self, other: "Sample") -> None:
        """Offer the rows of another sample."""
        rows = other.rows()
        if rows is not None:
            self.add(rows, other.pictures, other.keys)

    def rows(self) -> Batch | None:
        """The sample by time; None if no rows were offered."""
        if len(self.keys) == 0:
            return None
        self._shrink()
        return self.parts[0]

    def _shrink(self) -> None:
        rows = concatenate(self.parts)
        smallest = smallest_pictures(self.pictures, self.keys, self.size)
        if len(smallest) == self.size:
            self.bound = int(self.pictures[smallest[-1]])
        by_time = sorted(smallest.tolist(), key=lambda row: (rows.times_us[row], rows.prediction_ids[row]))
        self.parts, self.pictures, self.keys = [rows[by_time]], self.pictures[by_time], self.keys[by_time]


@dataclass
class VersionRows:
    """What is counted of the rows of one version of a model."""

    counts: WindowCounts | None
    """None where the version is unknown: there is no reference to count by."""
    sample: Sample
    max_examples: int
    rows: int = 0
    """All rows, those that cannot be counted too."""
    since_us: int = FOREVER_US
    """Microseconds since 1970, UTC, of the earliest row."""
    until_us: int = 0
    """Likewise of the latest row."""
    unusual: list[UnusualRow] = field(default_factory=list)
    drawn: Sample = field(default_factory=lambda: Sample(MAX_DRAWN))
    """Rows first in the order in which the review page draws them. `sample` is of the size of a plot, which must not
    choose the rows that accuracy rests on."""

    def add(self, batch: Batch, reference: ReferenceStats | None) -> None:
        """Count rows of this version.

        Args:
            batch: the rows.
            reference: of the version; None where it is unknown.
        """
        self._extend(len(batch), int(batch.times_us.min()), int(batch.times_us.max()))
        if reference is None or self.counts is None:
            return
        # Feedback may name a class, by number, that this version does not have: such a row has no usable feedback.
        is_class = batch.true_labels < len(reference.class_names)
        batch = dataclasses.replace(batch, true_labels=np.where(is_class, batch.true_labels, UNLABELLED))
        stats = WindowStats(reference, self.counts)
        origins = Origins.of(batch.prediction_ids, batch.image_sha256, batch.clients or [None] * len(batch))
        counted = np.flatnonzero(stats.add(batch.predictions, batch.true_labels, batch.times_us, origins))
        batch = batch[counted.tolist()] if len(counted) < len(batch) else batch
        self.sample.add(batch, origins.pictures[counted], origins.rows[counted])
        self.drawn.add(batch, origins.rows[counted], origins.rows[counted])
        if self.max_examples and len(batch):
            self._keep_unusual(_most_unusual(batch, reference.distances(batch.predictions), self.max_examples))

    def merge(self, other: "VersionRows") -> None:
        """Add the rows of another part of the window."""
        self._extend(other.rows, other.since_us, other.until_us)
        if self.counts is not None and other.counts is not None:
            self.counts.add(other.counts)
        self.sample.merge(other.sample)
        self.drawn.merge(other.drawn)
        self._keep_unusual(other.unusual)

    def decide(
        self, model: ModelId, reference: ReferenceStats, settings: DecisionConfig, reviews: Reviews
    ) -> Inspection:
        """Decide on the rows.

        Args:
            model: what they are of.
            reference: of the model.
            settings: of the decision.
            reviews: of the log.
        """
        result = WindowStats(reference, self.counts).decide(settings, model_version=model.version)
        drawn = self.drawn.rows()
        drawn = None if drawn is None else _first_of_each_picture(drawn)
        share = Share.of(drawn, len(reference.class_names), settings.min_labels, reviews)
        named = dataclasses.replace(
            result,
            model_name=model.name or "",
            model_digest=model.digest or "",
            feedback=by_share(result.feedback, share, reference, settings),
            coverage=sets_by_share(result.coverage, share, reference, settings),
        )
        return Inspection(named, self.sample.rows(), tuple(self.unusual))

    def _extend(self, rows: int, since_us: int, until_us: int) -> None:
        self.rows += rows
        self.since_us, self.until_us = min(self.since_us, since_us), max(self.until_us, until_us)

    def _keep_unusual(self, rows: list[UnusualRow]) -> None:
        by_picture = {row.image_sha256: row for row in sorted([*self.unusual, *rows], key=_rank)}
        self.unusual = heapq.nlargest(self.max_examples, by_picture.values(), key=_rank)


WindowPart = dict[ModelId, VersionRows]
"""What is counted of a part of a window, by model."""


def _first_of_each_picture(batch: Batch) -> Batch:
    """Of each picture the row that is first in the order of the draw, by time."""
    origins = Origins.of(batch.prediction_ids, batch.image_sha256, batch.clients or [None] * len(batch))
    first = smallest_pictures(origins.pictures, origins.rows, len(batch))
    return batch[np.sort(first).tolist()]


def _rank(row: UnusualRow) -> tuple[float, str]:
    return row.distance, row.prediction_id


def _most_unusual(batch: Batch, distances: NDArray[np.float64], most: int) -> list[UnusualRow]:
    """The rows of the farthest pictures, and all that are as far as the last of them."""
    rows: list[int] = []
    pictures: set[str] = set()
    for row in np.argsort(-distances, kind="stable").tolist():
        if len(pictures) >= most and distances[row] < distances[rows[-1]]:
            break
        rows.append(row)
        pictures.add(batch.image_sha256[row])
    return [_unusual_row(batch, row, float(distances[row])) for row in rows]


def _unusual_row(batch: Batch, row: int, distance: float) -> UnusualRow:
    return UnusualRow(
        distance,
        batch.prediction_ids[row],
        batch.image_sha256[row],
        int(batch.predictions.labels[row]),
        float(batch.predictions.confidences[row]),
        int(batch.true_labels[row]),
    )
