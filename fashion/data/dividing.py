"""Divide pictures into training, validation and test rows, by class and never within a group. Knows no pixels."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fashion.data.manifest import SplitName

MIN_GROUPS = 3
"""Groups of pictures that a class needs: one in each split."""


def divide(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    keys: Sequence[bytes],
    fractions: Mapping[SplitName, float],
    *,
    seed: int,
) -> NDArray[np.str_]:
    """Give each row a split, `(N,)`; what no fraction takes is for training.

    Of each class, each split has its fraction of the rows, and one group at least. The division follows from the pixels
    and the seed: it does not depend on names or order, and a picture more moves few others.

    Args:
        labels: (N,)
        groups: (N,) numbers; rows with the same one stay together.
        keys: of the rows' pixels.
        fractions: of `val` and `test`, or of one of them, in (0, 1).
        seed: of the order in which groups are dealt out.
    """
    order = {group: _order(keys, rows, seed) for group, rows in _rows_by(groups).items()}
    members = _rows_by(groups)
    splits = np.full(len(labels), "train", dtype="<U5")
    by_class: dict[int, list[int]] = {}
    for group, rows in members.items():
        by_class.setdefault(int(np.bincount(labels[rows]).argmax()), []).append(group)
    for own in by_class.values():
        sizes = {group: len(members[group]) for group in own}
        total = sum(sizes.values())
        left = {name: max(1.0, round(total * fraction)) for name, fraction in fractions.items()}
        left["train"] = max(1.0, total - sum(left.values()))
        # Large groups first, each to the split that lacks most: small ones then even out what remains.
        for group in sorted(own, key=lambda each: (-sizes[each], order[each])):
            split = max(left, key=lambda name: (left[name], name == "train"))
            left[split] -= sizes[group]
            splits[members[group]] = split
    return splits


def _rows_by(groups: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    order = np.argsort(groups, kind="stable")
    numbers, starts = np.unique(groups[order], return_index=True)
    return {int(number): rows for number, rows in zip(numbers, np.split(order, starts[1:]), strict=True)}


def _order(keys: Sequence[bytes], rows: NDArray[np.int64], seed: int) -> bytes:
    """Where a group stands in its class: random, but the same on each machine."""
    return hashlib.blake2b(min(keys[row] for row in rows), digest_size=16, key=seed.to_bytes(8, "big")).digest()
