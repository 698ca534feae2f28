"""The distinct pictures that feedback is on: rows of the window, and rows of before whose feedback arrived in it.

Knows no tests and no logs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.drift.distinct import DistinctPictures, Origins, Rows, smallest_pictures
from fashion.model.predictor import Predictions


@dataclass(frozen=True, eq=False)
class JudgedPictures:
    """N distinct pictures, each once."""

    labels: NDArray[np.int64]
    """(N,) predicted classes."""
    true_labels: NDArray[np.int64]
    """(N,) classes."""
    clients: NDArray[Any]
    """(N,) text: tag of the sender, empty where the row has none."""
    is_late: NDArray[np.bool_]
    """(N,) True for rows of before the window."""

    @classmethod
    def of(cls, window: DistinctPictures, late: DistinctPictures) -> "JudgedPictures | None":
        """Join both samples; None without a row.

        A picture that is in both counts once. Where one is a sample of its pictures, so is what is returned: the other
        one's pictures are left out by the same keys, for else they would count for more than theirs.

        Args:
            window: rows of the window with feedback.
            late: rows of before it.
        """
        found = [(rows, sample) for sample in (window, late) if (rows := sample.rows()) is not None]
        if not found:
            return None
        pictures = np.concatenate([rows.origins.pictures for rows, _ in found])
        keys = np.concatenate([rows.origins.rows for rows, _ in found])
        first = smallest_pictures(pictures, keys, len(pictures))
        bound = min([sample.bound for _, sample in found if sample.is_sample], default=2**64 - 1)
        first = first[pictures[first] <= np.uint64(bound)]
        return cls(
            np.concatenate([rows.predictions.labels for rows, _ in found])[first],
            np.concatenate([rows.true_labels for rows, _ in found])[first],
            np.concatenate([rows.origins.clients for rows, _ in found])[first],
            np.concatenate([np.full(len(rows), sample is late) for rows, sample in found])[first],
        )


def late_rows(labels: NDArray[np.int64], true_labels: NDArray[np.int64], origins: Origins) -> Rows:
    """Rows of which nothing else is known: their other predictions have no columns, and they have no times.

    Args:
        labels: (N,) predicted classes.
        true_labels: (N,) classes.
        origins: of the N rows.
    """
    count = len(labels)
    none = np.empty((count, 0), np.float32)
    predictions = Predictions(labels, np.zeros(count, np.float32), none, none, none.astype(np.float16))
    return Rows(predictions, true_labels, np.zeros(count, np.int64), origins)
