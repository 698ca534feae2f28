"""Images and labels in three splits, read from the cache and verified. Knows neither networks nor sources."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.config.schema import DataConfig
from fashion.data import manifest
from fashion.data.idx import read_idx
from fashion.data.manifest import DataError, Manifest
from fashion.images.transform import Images

Labels = NDArray[np.int64]
"""`(N,)`: positions in the class names."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels."""

    images: Images
    labels: Labels
    """One for each image."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """One version of a data set in its splits."""

    name: str
    digest: str
    """Version of the data: sha256 of the manifest, 64 hexadecimal digits."""
    class_names: tuple[str, ...]
    """Names that labels index."""
    train: Split
    """Rows that the network is trained on."""
    val: Split
    """Rows held out of the training files: to choose a model, fit its temperature, and as the reference of drift."""
    test: Split
    """Rows of the test files: for evaluation alone."""
    mean: tuple[float, ...]
    """Mean of each channel over the training split, of pixels scaled to [0, 1]."""
    std: tuple[float, ...]
    """Standard deviation of each channel over the training split, of pixels scaled to [0, 1]."""
    live: Split | None = None
    """Test rows set aside to simulate the traffic of users; None if `data.live_rows` is 0."""

    @property
    def splits(self) -> dict[str, Split]:
        """The three splits by name."""
        return {"train": self.train, "val": self.val, "test": self.test}


def load(data: DataConfig, cache: Path, *, version: Manifest | None = None) -> Dataset:
    """Read and verify the cached files, and split them. `loading.load_dataset` fetches what is missing first.

    Where a version has no validation files, they are held out of the training files: stratified by class, and depending
    on the labels, `val_fraction` and `split_seed` alone.

    Args:
        data: the version to load, and how it is split.
        cache: folder that holds the files of all versions.
        version: which version, where it is not to be read from the data config's manifest.

    Raises:
        DataError: a file is missing or damaged, or differs from the data config.
    """
    version = manifest.read(data) if version is None else version
    folder = manifest.folder_of(version, cache)
    files = {
        name: convert(
            name, _read(version.entry(name, "images"), folder), _read(version.entry(name, "labels"), folder), data
        )
        for name in version.splits
    }
    return split(files["train"], files["test"], data, digest=version.digest, val=files.get("val"))


def convert(name: str, images: NDArray[np.uint8], labels: NDArray[np.integer[Any]], data: DataConfig) -> Split:
    """Copy what was read from IDX files into writable arrays of the usual types, and check them.

    Args:
        name: name of the split, for error messages.
        images: `(N, H, W)` or `(N, H, W, C)`.
        labels: `(N,)`.
        data: the classes and the shape of an image.

    Raises:
        DataError: the shapes differ from the data config, or a label is out of range.
    """
    converted = Split(images.astype(np.uint8), labels.astype(np.int64))
    check_split(name, converted, data)
    return converted


def split(training: Split, test: Split, data: DataConfig, *, digest: str, val: Split | None = None) -> Dataset:
    """Hold out validation rows of the training files and live rows of the test files; limit each split.

    Args:
        training: the training files; `data.val_fraction` of their rows become the validation split.
        test: the test files; `data.live_rows` of their rows become the live split.
        data: the fractions, the seed, and `limit`, the most rows of each split.
        digest: version of the data.
        val: the validation files; None where validation rows are held out of the training files.

    Raises:
        DataError: `data.live_rows` is not less than the number of test rows, or it is not said which rows are for
            validation.
    """
    if (val is None) == (data.val_fraction is None):
        missing = "has no validation files: set data.val_fraction, such as 0.2"
        given = f"has validation files of its own: data.val_fraction must be null, got {data.val_fraction}"
        raise DataError(f"{data.name} {missing if val is None else given}")
    if val is None:
        assert data.val_fraction is not None
        is_val = _choose(training.labels, data.val_fraction, seed=data.split_seed, data=data)
        training, val = _select(training, ~is_val), _select(training, is_val)
    train = _limit(training, data)
    mean, std = _channel_statistics(train.images)
    live = None
    if data.live_rows:
        if data.live_rows >= len(test):
            raise DataError(f"data.live_rows={data.live_rows} leaves nothing of {len(test):,} test rows: choose fewer")
        is_live = _choose(test.labels, data.live_rows / len(test), seed=data.split_seed, data=data)
        live, test = _select(test, is_live), _select(test, ~is_live)
    return Dataset(
        name=data.name,
        digest=digest,
        class_names=data.class_names,
        train=train,
        val=_limit(val, data),
        test=_limit(test, data),
        mean=mean,
        std=std,
        live=live,
    )


def check_split(name: str, split: Split, data: DataConfig) -> None:
    """Check the types, the shapes and the range of the labels of a split.

    Args:
        name: name of the split, for error messages.
        split: the images and labels to check.
        data: the classes and the shape of an image.

    Raises:
        DataError: one of them differs from the data config.
    """
    shape = (data.size, data.size) if data.channels == 1 else (data.size, data.size, data.channels)
    if split.images.dtype != np.uint8 or split.images.shape[1:] != shape:
        raise DataError(
            f"{data.name}: images of {name} must be uint8 of shape {shape}, "
            f"got {split.images.dtype} of shape {split.images.shape[1:]}"
        )
    if split.labels.ndim != 1 or split.labels.dtype != np.int64 or len(split.labels) != len(split.images):
        raise DataError(f"{data.name}: {name} has {len(split.images)} images but labels of shape {split.labels.shape}")
    if len(split.labels) and not 0 <= split.labels.min() <= split.labels.max() < len(data.class_names):
        raise DataError(
            f"{data.name}: labels of {name} must be in 0..{len(data.class_names) - 1}, "
            f"got {split.labels.min()}..{split.labels.max()}"
        )


def choose_evenly(labels: Labels, count: int) -> list[int]:
    """Choose up to `count` row numbers, the first of each class in turn."""
    by_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    turns = range(max((len(rows) for rows in by_class), default=0))
    return [int(rows[turn]) for turn in turns for rows in by_class if turn < len(rows)][:count]


def _read(entry: manifest.FileEntry, folder: Path) -> NDArray[Any]:
    try:
        return read_idx(manifest.read_verified(entry, folder), entry.path)
    except FileNotFoundError:
        raise DataError(f"{entry.path} is not in {folder}; run `fashion data fetch`") from None
    except DataError as error:
        raise DataError(f"{error}; run `fashion data fetch`") from None


def _choose(labels: Labels, fraction: float, *, seed: int, data: DataConfig) -> NDArray[np.bool_]:
    """Mark a random, stratified fraction of the rows: `(N,)` bool whose sum is the rounded fraction of N."""
    counts = np.bincount(labels, minlength=len(data.class_names))
    quotas = _quotas(counts, round(len(labels) * fraction))
    generator = np.random.default_rng(seed)
    is_chosen = np.zeros(len(labels), np.bool_)
    for label, quota in enumerate(quotas):
        rows = np.flatnonzero(labels == label)
        is_chosen[generator.permutation(rows)[:quota]] = True
    return is_chosen


def _quotas(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Distribute `total` rows over the classes in proportion to their counts (largest remainder method)."""
    quotas, remainders = np.divmod(counts * total, max(1, counts.sum()))
    leftover = total - int(quotas.sum())
    quotas[np.argsort(-remainders, kind="stable")[:leftover]] += 1
    for label in np.flatnonzero((quotas == 0) & (counts > 1)):  # a class too rare for a quota still gets a row
        if quotas.max() > 1:
            quotas[quotas.argmax()] -= 1
            quotas[label] = 1
    return np.minimum(quotas, counts)


def _limit(split: Split, data: DataConfig) -> Split:
    if data.limit is None or data.limit >= len(split):
        return split
    return _select(split, _choose(split.labels, data.limit / len(split), seed=data.split_seed, data=data))


def _select(split: Split, rows: NDArray[np.bool_]) -> Split:
    return Split(split.images[rows], split.labels[rows])


def _channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel of pixels scaled to [0, 1], exactly: from a histogram."""
    channels = images[..., None] if images.ndim == 3 else images
    values = np.arange(256) / 255
    means, stds = [], []
    for channel in range(channels.shape[-1]):
        histogram = np.zeros(256, np.int64)
        for start in range(0, len(channels), 1000):  # bincount converts its input to 8-byte integers
            histogram += np.bincount(channels[start : start + 1000, ..., channel].ravel(), minlength=256)
        weights = histogram / max(1, histogram.sum())
        mean = float(weights @ values)
        means.append(mean)
        stds.append(math.sqrt(float(weights @ (values - mean) ** 2)))
    return tuple(means), tuple(stds)
