"""The distinct pictures of a window, each once, and how many there are: bottom-k samples. Knows no tests and no logs.

Of the rows of one picture, the one with the smallest row key stands for it; of the pictures, those with the smallest
picture keys are kept (Cohen and Kaplan, "Summarizing data using bottom-k sketches", PODC 2007). Keys are hashes, so
what is kept is every picture where they are few and a uniform sample of them where they are many, the same however
the rows are ordered and divided.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.model.predictor import Predictions
from fashion.predictions.hashing import hash_texts

MAX_PICTURES = 65_536
"""Distinct pictures that are kept. A two-sample test is as sharp as n m / (n + m) rows make it: against a reference of
6,000, more pictures would add less than a tenth to that."""
MAX_PROBABILITIES = 2**24
"""Probabilities that are kept, 64 MiB of them: a bound on the pictures of a model with many classes."""
MAX_CLIENTS = 4096
"""Clients that are counted exactly; of more, their number is estimated to 2 %."""

Keys = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Origins:
    """Where each of N rows comes from."""

    pictures: Keys
    """(N,) equal for rows of the same picture."""
    rows: Keys
    """(N,) different for all rows."""
    clients: NDArray[Any]
    """(N,) text: tag of the sender, empty where the row has none."""

    @classmethod
    def of(cls, prediction_ids: Sequence[str], image_sha256: Sequence[str], clients: Sequence[str | None]) -> "Origins":
        """Hash what the log says of N rows. A row without a picture's hash counts as a picture of its own."""
        rows = hash_texts(prediction_ids)
        has_picture = np.array([bool(each) for each in image_sha256], np.bool_)
        pictures = rows if not has_picture.any() else np.where(has_picture, hash_texts(image_sha256), rows)
        return cls(pictures, rows, np.array([each or "" for each in clients], object))

    @classmethod
    def unknown(cls, count: int, start: int) -> "Origins":
        """Rows of which nothing is known: each is a picture of its own, from nobody.

        Args:
            count: N.
            start: number of the first; each number is used once.
        """
        keys = hash_texts([str(number) for number in range(start, start + count)])
        return cls(keys, keys, np.full(count, "", object))

    def __getitem__(self, rows: Any) -> "Origins":
        return Origins(self.pictures[rows], self.rows[rows], self.clients[rows])


@dataclass(frozen=True, eq=False)
class Rows:
    """N rows of the log, as far as decisions need them."""

    predictions: Predictions
    true_labels: NDArray[np.int64]
    """(N,) UNLABELLED where there is no feedback."""
    times_us: NDArray[np.int64]
    """(N,) microseconds since 1970, UTC."""
    origins: Origins

    def __len__(self) -> int:
        return len(self.times_us)

    def __getitem__(self, rows: Any) -> "Rows":
        return Rows(self.predictions[rows], self.true_labels[rows], self.times_us[rows], self.origins[rows])


@dataclass
class DistinctKeys:
    """The smallest of the distinct keys that were added."""

    size: int
    keys: Keys = field(default_factory=lambda: np.empty(0, np.uint64))

    def add(self, keys: Keys) -> None:
        """Add keys, of which any may repeat."""
        # One more than `size` shows that there were more.
        self.keys = np.unique(np.concatenate([self.keys, keys]))[: self.size + 1]

    @property
    def count(self) -> int:
        """Number of distinct keys: exact up to `size`, estimated beyond."""
        return len(self.keys) if len(self.keys) <= self.size else _estimate_count(self.keys[: self.size])


@dataclass
class DistinctPictures:
    """One row for each picture, of at most `size` pictures."""

    size: int
    parts: list[Rows] = field(default_factory=list)
    bound: int = 2**64 - 1
    """Pictures with a larger key are not kept."""
    is_sample: bool = False
    """True if there were more than `size` pictures."""

    def add(self, rows: Rows) -> None:
        """Offer rows."""
        kept = np.flatnonzero(rows.origins.pictures <= np.uint64(self.bound))
        self.is_sample |= len(kept) < len(rows)  # the bound is that of `size` pictures: these are more
        if len(kept):
            self.parts.append(rows[kept] if len(kept) < len(rows) else rows)
            if sum(map(len, self.parts)) > 2 * self.size:
                self._shrink()

    def merge(self, other: "DistinctPictures") -> None:
        """Offer the rows of another part of the window."""
        self.is_sample |= other.is_sample
        self.bound = min(self.bound, other.bound)
        for part in other.parts:
            self.add(part)

    def rows(self) -> Rows | None:
        """One row for each picture, in the order of the picture keys; None without rows."""
        self._shrink()
        return self.parts[0] if self.parts else None

    @property
    def count(self) -> int:
        """Number of distinct pictures: exact up to `size`, estimated beyond."""
        rows = self.rows()
        if rows is None:
            return 0
        return _estimate_count(rows.origins.pictures) if self.is_sample else len(rows)

    def _shrink(self) -> None:
        if not self.parts:
            return
        rows = concatenate(self.parts)
        # One more than `size` shows that there were more.
        first = smallest_pictures(rows.origins.pictures, rows.origins.rows, self.size + 1)
        self.is_sample |= len(first) > self.size
        first = first[: self.size]
        if len(first) == self.size:
            self.bound = min(self.bound, int(rows.origins.pictures[first[-1]]))
        self.parts = [rows[first]]


def smallest_pictures(pictures: Keys, rows: Keys, size: int) -> NDArray[np.int64]:
    """The row that stands for each of the pictures with the smallest keys, in their order.

    Args:
        pictures: (N,) key of each row's picture.
        rows: (N,) key of each row: that with the smallest stands for its picture.
        size: pictures at most.
    """
    order = np.lexsort((rows, pictures))
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = pictures[order[1:]] != pictures[order[:-1]]
    return order[is_first][:size]


def num_pictures(num_classes: int) -> int:
    """How many pictures are kept of a model with this many classes."""
    return max(1000, min(MAX_PICTURES, MAX_PROBABILITIES // num_classes))


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Join rows of the same number of classes."""
    if len(parts) == 1:
        return parts[0]
    predictions = [part.predictions for part in parts]
    origins = [part.origins for part in parts]
    return Rows(
        Predictions(*(np.concatenate(columns) for columns in zip(*map(_columns, predictions), strict=True))),
        np.concatenate([part.true_labels for part in parts]),
        np.concatenate([part.times_us for part in parts]),
        Origins(*(np.concatenate(columns) for columns in zip(*map(_columns, origins), strict=True))),
    )


def _columns(arrays: Predictions | Origins) -> list[NDArray[Any]]:
    return list(vars(arrays).values())


def _estimate_count(smallest: Keys) -> int:
    """How many distinct keys there are, of which these are the smallest, ascending (Bar-Yossef et al. 2002)."""
    return round((len(smallest) - 1) / (float(smallest[-1]) / 2**64))
