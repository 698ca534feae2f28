"""Check a data set before training: empty classes, wrong labels, duplicates across splits, constant channels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fashion.config.schema import DataConfig
from fashion.data.dataset import Dataset, Split, check_split
from fashion.data.manifest import DataError
from fashion.data.similar import content_keys

_IMBALANCED = 1.5
"""Largest class over smallest class above which a split is reported as imbalanced."""


@dataclass(frozen=True, eq=False)
class DataReport:
    """Counts, duplicates and warnings of a data set that can be trained on."""

    num_rows: dict[str, int]
    """Name of a split -> number of its images."""
    class_counts: dict[str, tuple[int, ...]]
    """Name of a split -> number of images of each class, in the order of the class names."""
    duplicates: dict[str, int]
    """Split or pair of splits -> number of images that are exact copies of another one."""
    test_in_training: NDArray[np.bool_]
    """`(N_test,)`: True for test images that are also in train or val; exclude them for a de-duplicated score."""
    warnings: tuple[str, ...]
    """Sentences on what is unusual but does not prevent training."""


def check_dataset(dataset: Dataset, data: DataConfig) -> DataReport:
    """Reject a data set that cannot be trained on; report the counts, duplicates and warnings of any other.

    Raises:
        DataError: a type or shape is wrong, a label is out of range, a class has no images in a split, or a channel
            is constant.
    """
    counts = {name: _class_counts(name, split, data) for name, split in dataset.splits.items()}
    if min(dataset.std) == 0:
        raise DataError(
            f"{data.name}: a channel has the same value in every pixel of every training image; check the image files"
        )
    keys = {name: content_keys(split.images) for name, split in dataset.splits.items()}
    training = [*keys["train"], *keys["val"]]
    training_keys = set(training)
    test_in_training = np.array([key in training_keys for key in keys["test"]], np.bool_)
    duplicates = {
        "train": len(keys["train"]) - len(set(keys["train"])),
        "val": len(keys["val"]) - len(set(keys["val"])),
        "train and val together": len(training) - len(training_keys),
        "test": len(keys["test"]) - len(set(keys["test"])),
        "test also in train or val": int(test_in_training.sum()),
    }
    return DataReport(
        num_rows={name: len(split) for name, split in dataset.splits.items()},
        class_counts=counts,
        duplicates=duplicates,
        test_in_training=test_in_training,
        warnings=tuple(_warnings(counts, duplicates)),
    )


def _class_counts(name: str, split: Split, data: DataConfig) -> tuple[int, ...]:
    check_split(name, split, data)
    counts = np.bincount(split.labels, minlength=len(data.class_names))
    empty = [data.class_names[i] for i in np.flatnonzero(counts == 0)]
    if empty:
        raise DataError(f"{data.name}: {name} has no image of {', '.join(empty)}; add some, or leave the class out")
    return tuple(int(count) for count in counts)


def _warnings(counts: Mapping[str, Sequence[int]], duplicates: Mapping[str, int]) -> list[str]:
    imbalances = [
        f"{name} is imbalanced: the largest class has {max(split):,} images, the smallest {min(split):,}"
        for name, split in counts.items()
        if max(split) > _IMBALANCED * min(split)
    ]
    sentences = {
        "test also in train or val": "test images are also in train or val",
        "train and val together": "images of train and val are copies of another one",
        "test": "test images are copies of another one",
    }
    return imbalances + [f"{duplicates[where]:,} {text}" for where, text in sentences.items() if duplicates[where]]
