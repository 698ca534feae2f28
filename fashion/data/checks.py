"""Look for what makes training senseless: empty classes, copies across splits, constant channels."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fashion.config.schema import DataConfig
from fashion.data.dataset import Dataset, Images, Split, require_sane
from fashion.data.manifest import DataError

_IMBALANCED = 1.5  # largest class over smallest: from here on it is worth a sentence


@dataclass(frozen=True, eq=False)
class DataReport:
    """What a look at the data found."""

    num_rows: dict[str, int]
    """By split."""
    class_counts: dict[str, tuple[int, ...]]
    """By split, in the order of the class names."""
    duplicates: dict[str, int]
    """Exact copies, by where: rows that repeat an earlier one, or stand in another split too."""
    test_in_training: NDArray[np.bool_]
    """`(N_test,)`: test images that are also in train or val. Leave them out for a de-duplicated score."""
    remarks: tuple[str, ...]
    """Sentences on what is unusual but no reason to stop."""


def check_dataset(dataset: Dataset, data: DataConfig) -> DataReport:
    """Look for what makes training senseless, and report what else is worth knowing.

    Raises:
        DataError: wrong types or shapes, labels out of range, a class without images, or images all alike.
    """
    counts = {name: _class_counts(name, split, data) for name, split in dataset.splits.items()}
    if min(dataset.std) == 0:
        raise DataError(f"{data.name}: a channel has the same value in every pixel of every training image")
    keys = {name: _content_keys(split.images) for name, split in dataset.splits.items()}
    training = [*keys["train"], *keys["val"]]
    known = set(training)
    test_in_training = np.array([key in known for key in keys["test"]], np.bool_)
    duplicates = {
        "train": len(keys["train"]) - len(set(keys["train"])),
        "val": len(keys["val"]) - len(set(keys["val"])),
        "train and val together": len(training) - len(known),
        "test": len(keys["test"]) - len(set(keys["test"])),
        "test also in train or val": int(test_in_training.sum()),
    }
    return DataReport(
        num_rows={name: len(split) for name, split in dataset.splits.items()},
        class_counts=counts,
        duplicates=duplicates,
        test_in_training=test_in_training,
        remarks=tuple(_remarks(counts, duplicates)),
    )


def _class_counts(name: str, split: Split, data: DataConfig) -> tuple[int, ...]:
    require_sane(name, split, data)
    counts = np.bincount(split.labels, minlength=len(data.class_names))
    empty = [data.class_names[i] for i in np.flatnonzero(counts == 0)]
    if empty:
        raise DataError(f"{data.name}: {name} has no image of {', '.join(empty)}")
    return tuple(int(count) for count in counts)


def _content_keys(images: Images) -> list[bytes]:
    """16 bytes for each image that are equal only for equal images."""
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]


def _remarks(counts: Mapping[str, Sequence[int]], duplicates: Mapping[str, int]) -> list[str]:
    remarks = [
        f"{name} is imbalanced: the largest class has {max(split):,} images, the smallest {min(split):,}"
        for name, split in counts.items()
        if max(split) > _IMBALANCED * min(split)
    ]
    sentences = {
        "test also in train or val": "test images are also in train or val",
        "train and val together": "images of train and val repeat another one",
        "test": "test images repeat another one",
    }
    return remarks + [f"{duplicates[where]:,} {what}" for where, what in sentences.items() if duplicates[where]]
