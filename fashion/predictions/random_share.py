"""Accuracy from labels that people gave to rows of their choice and to rows drawn at random. Knows arrays, no log.

People judge wrong answers more often than right ones, so accuracy on the rows that they chose says little of the
others. Here the order in which rows are drawn is a hash of their ids, which knows nothing of the answers. The rows of
the smallest hashes are a random sample once every one of them is judged, whatever else was judged, and for whatever
reason: there is nothing to write down of how a row was chosen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.metrics.classification import wilson_interval
from fashion.predictions.hashing import hash_text

LOOKED_FOR = 1000
"""Pictures that are looked for at most."""


def draw_order(prediction_id: str) -> int:
    """Where a row stands in the order of the draw: 64 bits, evenly distributed."""
    return hash_text(prediction_id)


def drawn(order: NDArray[np.uint64], times_us: NDArray[np.int64], judged: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Indices of the judged rows that are a random sample of all rows up to the latest judged one.

    Args:
        order: (N,) of `draw_order`.
        times_us: (N,) when each row was predicted; rows later than every judged one have not been offered yet.
        judged: (N,) True for rows that were reviewed.
    """
    if not judged.any():
        return np.empty(0, np.int64)
    offered = np.flatnonzero(times_us <= times_us[judged].max())
    by_order = offered[np.argsort(order[offered], kind="stable")]
    waiting = np.flatnonzero(~judged[by_order])
    found: NDArray[np.int64] = by_order[: waiting[0]] if len(waiting) else by_order
    return found


def shown(
    order: NDArray[np.uint64],
    times_us: NDArray[np.int64],
    judged: NDArray[np.bool_],
    is_stored: Callable[[int], bool],
    *,
    most: int = LOOKED_FOR,
) -> NDArray[np.int64]:
    """Indices of the rows without those whose pictures are not stored, as far as they would end the random sample.

    Judged rows are looked for too: labels from a file may be on any rows, and if only the others were left out, those
    rows would pass for drawn at random.

    Args:
        order: (N,) of `draw_order`.
        times_us: (N,) when each row was predicted.
        judged: (N,) True for rows that were reviewed.
        is_stored: whether a row's picture is, by its index.
        most: how many are asked about.
    """
    left_out = np.zeros(len(order), np.bool_)
    if judged.any():
        offered = np.flatnonzero(times_us <= times_us[judged].max())
        for row in offered[np.argsort(order[offered], kind="stable")][:most].tolist():
            left_out[row] = not is_stored(row)
            if not left_out[row] and not judged[row]:
                break
    return np.flatnonzero(~left_out)


@dataclass(frozen=True)
class ShareAccuracy:
    """Accuracy of all rows, by those that were drawn at random and those that were judged without exception."""

    accuracy: float
    """In [0, 1]."""
    low: float
    """Lower bound of the 95 % interval."""
    high: float
    """Upper bound of the 95 % interval."""
    drawn: int
    """Rows of the random sample."""
    census: int
    """Rows of the least sure answers, all of which were judged."""
    rows: int
    """Rows that this is the accuracy of."""


def estimate(
    order: NDArray[np.uint64],
    times_us: NDArray[np.int64],
    confidences: NDArray[np.floating[Any]],
    right: Sequence[bool | None],
) -> ShareAccuracy | None:
    """Estimate the accuracy of N rows; None where no row was drawn.

    Two strata: of the least sure answers as many as were judged without exception, whose accuracy is known, and all
    others, of which the random sample stands for each N / n of them (Horvitz and Thompson, JASA 47, 1952). The interval
    is Wilson's for the second, shrunk for the part of it that was judged (the finite population correction).

    Args:
        order: (N,) of `draw_order`.
        times_us: (N,) when each row was predicted.
        confidences: (N,) of the answers.
        right: (N,) whether the answer was right, by a review; None where there is none.
    """
    judged = np.array([each is not None for each in right], np.bool_)
    is_right = np.array([bool(each) for each in right], np.bool_)
    sample = drawn(order, times_us, judged)
    if len(sample) == 0:
        return None
    offered = np.flatnonzero(times_us <= times_us[judged].max())
    least_sure = offered[np.argsort(confidences[offered], kind="stable")]
    waiting = np.flatnonzero(~judged[least_sure])
    in_census = np.zeros(len(judged), np.bool_)
    in_census[least_sure[: waiting[0]] if len(waiting) else least_sure] = True
    census_right, total = int(is_right[in_census].sum()), len(offered)
    others = total - int(in_census.sum())
    if others == 0:
        share = census_right / total
        return ShareAccuracy(share, share, share, len(sample), total, total)
    of_others = sample[~in_census[sample]]
    if len(of_others) == 0:
        return None
    known = int(is_right[of_others].sum())
    share = known / len(of_others)
    finite = float(np.sqrt((others - len(of_others)) / max(1, others - 1)))
    low, high = (share + finite * (bound - share) for bound in wilson_interval(known, len(of_others)))
    accuracy, low, high = ((census_right + others * each) / total for each in (share, low, high))
    return ShareAccuracy(accuracy, low, high, len(sample), total - others, total)
