"""Divide pictures into training, validation and test rows, by class and never within a group. Knows no pixels."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fashion.data.manifest import SplitName


def divide(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    keys: Sequence[bytes],
    fractions: Mapping[SplitName, float],
    *,
    seed: int,
) -> NDArray[np.str_]:
    """Give each row a split, `(N,)`; what no fraction takes is for training.

    Of each class, `test` has the groups of the smallest hashes, `val` those of the largest, each about its fraction of
    the rows. The hashes follow from the pixels and the seed, not from names or order; so a picture more moves its own
    group and the few that lie at a border, and as a class grows, what was for training remains so but for those.

    A class of one group has it in `train`; each split has one at least where there are as many. A group of more rows
    than a split is to have is for training, unless there is no other.

    Args:
        labels: (N,)
        groups: (N,) numbers; rows with the same one stay together.
        keys: of the rows' pixels.
        fractions: of `val` and `test`, or of one of them, in (0, 1).
        seed: of the hashes.
    """
    members = _rows_by(groups)
    order = {group: _order(keys, rows, seed) for group, rows in members.items()}
    splits = np.full(len(labels), "train", dtype="<U5")
    by_class: dict[int, list[int]] = {}
    for group, rows in members.items():
        by_class.setdefault(int(np.bincount(labels[rows]).argmax()), []).append(group)
    wanted: list[SplitName] = [name for name in ("test", "val") if name in fractions]
    for own in by_class.values():
        left = sorted(own, key=lambda group: order[group])
        total = sum(len(members[group]) for group in own)
        for later, name in zip(range(len(wanted) - 1, -1, -1), wanted, strict=True):
            ordered = left if name == "test" else left[::-1]
            most = max(len(left) - 1 - later, min(1, len(left) - 1))  # one for each split that follows, if there are
            sizes = [len(members[group]) for group in ordered]
            taken = {ordered[index] for index in _first(sizes, max(1, round(total * fractions[name])))[:most]}
            for group in taken:
                splits[members[group]] = name
            left = [group for group in left if group not in taken]
    return splits


def _first(sizes: Sequence[int], quota: int) -> list[int]:
    """Which groups together have about `quota` rows: the first ones that are not larger, or else the smallest one.

    Args:
        sizes: rows of each group, in order.
        quota: rows, at least 1.
    """
    chosen, count = [], 0
    for index, size in enumerate(sizes):
        if size > quota:
            continue
        if count + size / 2 > quota:
            break
        chosen.append(index)
        count += size
    return chosen or [min(range(len(sizes)), key=lambda index: (sizes[index], index))]


def _rows_by(groups: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    order = np.argsort(groups, kind="stable")
    numbers, starts = np.unique(groups[order], return_index=True)
    return {int(number): rows for number, rows in zip(numbers, np.split(order, starts[1:]), strict=True)}


def _order(keys: Sequence[bytes], rows: NDArray[np.int64], seed: int) -> bytes:
    """Where a group stands in its class: random, but the same on each machine and whatever else the class has."""
    return hashlib.blake2b(min(keys[row] for row in rows), digest_size=16, key=seed.to_bytes(8, "big")).digest()
