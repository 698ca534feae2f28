"""Choose which pictures become rows, and of which split. Knows labels, groups and pixels, not files."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fashion.data import dividing, similar
from fashion.data.dataset import Split
from fashion.data.found import Selection
from fashion.data.layout import Entry
from fashion.data.manifest import DataError, SplitName
from fashion.images.transform import Images

TEST_FRACTION, TEST_FRACTION_OF_FEW, VAL_FRACTION = 0.2, 0.3, 0.2
FEW = 300
"""Pictures below which more are kept for the test: with 6 of them, no result would be above guessing. Above, the test
has as many rows until the usual fraction gives more: a picture more never moves a tenth of all."""
MOST_HELD_OUT = 10_000
"""Rows of each held-out split at most: more would narrow an interval of accuracy by tenths of a point."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """N readable pictures."""

    entries: Sequence[Entry]
    images: Images


def select(
    pictures: Pictures,
    class_names: Sequence[str],
    *,
    seed: int,
    fractions: Mapping[SplitName, float | None],
    group_by: str | None = None,
) -> tuple[dict[SplitName, Split], tuple[str, ...], Selection]:
    """Leave out what cannot be learnt or judged, and divide the rest where no split is given.

    Pictures of a class that are equal or nearly so, and those of one group, are never in different splits that are made
    here.

    Args:
        pictures: with the split of those that have one.
        class_names: all classes, in order; labels of the entries are among them.
        seed: of the division.
        fractions: of the splits that are to be made; None for what suits the number of pictures.
        group_by: regular expression: what it finds in a path, or its first group, names a picture's group.

    Returns:
        The rows of each split, the names of the classes that are left, and what happened.

    Raises:
        DataError: fewer than two classes are left.
    """
    entries = pictures.entries
    keys = similar.content_keys(pictures.images)
    positions = {name: label for label, name in enumerate(class_names)}
    labels = np.array([positions[entry.label] for entry in entries], np.int64)
    named = _groups(entries, group_by)
    equal = list(similar.equal_pairs(keys))
    near = [pair for pair in similar.near_pairs(pictures.images) if keys[pair[0]] != keys[pair[1]]]
    # Of one class only: an O that is nearly a 0 must not leave one of the two classes without pictures.
    alike = [pair for pair in (*equal, *near) if labels[pair[0]] == labels[pair[1]]]
    groups = similar.join(len(entries), [*alike, *similar.equal_pairs(named)])

    splits = np.array([entry.split or "train" for entry in entries], dtype="<U5")
    pool = splits == "train"
    if not pool.any():  # only test/ or val/ was given: it is all that there is
        pool = splits == splits[0]
        splits[pool] = "train"
    wanted = [name for name in fractions if not (splits == name).any()]
    kept, too_few, unlearnt = _enough(labels, groups, pool, class_names, needed=1 + len(wanted))
    if len(set(labels[kept & pool])) < 2:
        few = ", ".join(f"{name} ({count})" for name, count in list(too_few.items())[:5])
        raise DataError(
            f"at least 2 classes with {1 + len(wanted)} different pictures each are needed, too few have {few}: add "
            "pictures to them"
        )
    if wanted:
        rows = np.flatnonzero(kept & pool)
        chosen = {name: _fraction(name, fractions[name], len(rows)) for name in wanted}
        splits[rows] = dividing.divide(labels[rows], groups[rows], [keys[row] for row in rows], chosen, seed=seed)
    left = tuple(name for label, name in enumerate(class_names) if (labels[kept] == label).any())
    renumbered = np.array([left.index(name) if name in left else -1 for name in class_names], np.int64)[labels]
    rows_of = {name: np.flatnonzero(kept & (splits == name)) for name in ("train", "val", "test")}
    made = {name: Split(pictures.images[rows], renumbered[rows]) for name, rows in rows_of.items() if rows.size}
    return (
        made,
        left,
        Selection(  # type: ignore[return-value]  # numpy's strings are those names
            num_rows={
                name: tuple(np.bincount(part.labels, minlength=len(left)).tolist()) for name, part in made.items()
            },
            too_few=too_few,
            unlearnt=unlearnt,
            copies=len(equal),
            near_copies=len({row for pair in near for row in pair}),
            contradictions=sum(labels[one] != labels[other] for one, other in equal),
            groups=len({group for group in named if group is not None}),
            divided=tuple(wanted) and ("train", *wanted),
            paths={name: tuple(entries[int(row)].path for row in rows_of[name]) for name in made},
        ),
    )


def _groups(entries: Sequence[Entry], group_by: str | None) -> list[str | None]:
    """The group of each picture: given by a column, or found in its path."""
    if group_by is None:
        return [entry.group for entry in entries]
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise DataError(f"data.group_by={group_by} is not a regular expression ({error})") from None
    found = [pattern.search(entry.path) for entry in entries]
    return [
        entry.group if match is None else (match[1] if pattern.groups else match[0])
        for entry, match in zip(entries, found, strict=True)
    ]


def _enough(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    pool: NDArray[np.bool_],
    class_names: Sequence[str],
    *,
    needed: int,
) -> tuple[NDArray[np.bool_], dict[str, int], int]:
    """Which rows are kept, `(N,)`; the classes that are left out; held-out rows of classes that cannot be learnt.

    Args:
        labels: (N,)
        groups: (N,)
        pool: (N,) True for rows that splits are made of.
        class_names: of the labels.
        needed: different groups of a class in the pool.
    """
    num_groups = {label: len(set(groups[pool & (labels == label)])) for label in range(len(class_names))}
    small = [label for label, count in num_groups.items() if 0 < count < needed]
    unknown = [label for label, count in num_groups.items() if count == 0]
    kept = ~np.isin(labels, [*small, *unknown])
    too_few = {class_names[label]: int((labels == label).sum()) for label in small}
    return kept, too_few, int(np.isin(labels, unknown).sum())


def _fraction(name: SplitName, wanted: float | None, count: int) -> float:
    if wanted is not None:
        return wanted
    if name == "val":
        return min(VAL_FRACTION, MOST_HELD_OUT / count)
    usual = max(TEST_FRACTION, min(TEST_FRACTION_OF_FEW, TEST_FRACTION_OF_FEW * FEW / count))
    return min(usual, MOST_HELD_OUT / count)
