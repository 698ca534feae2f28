"""Loading: arrays and their types, stratified splits, the limit, channel statistics."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_dataset import CLASSES, SIZE, RecordingReporter, TinyDataset, make_tiny, numbered_images, numbers

from fashion.config.schema import DataConfig
from fashion.data import dataset
from fashion.data.checks import check_dataset
from fashion.data.fetch import fetch_data
from fashion.data.manifest import DataError


def test_arrays_are_writable_and_of_the_conventional_types(tiny: TinyDataset) -> None:
    fetch_data(tiny.data, tiny.cache, reporter=RecordingReporter())
    loaded = dataset.load(tiny.data, tiny.cache)
    assert loaded.digest == tiny.version.digest
    assert loaded.class_names == CLASSES
    for split in loaded.splits.values():
        assert split.images.dtype == np.uint8
        assert split.images.shape == (len(split), SIZE, SIZE)
        assert split.labels.dtype == np.int64
        assert split.images.flags.writeable
        assert split.labels.flags.writeable


def test_every_training_row_is_in_exactly_one_split(tiny: TinyDataset) -> None:
    fetch_data(tiny.data, tiny.cache, reporter=RecordingReporter())
    loaded = dataset.load(tiny.data, tiny.cache)
    assert sorted(numbers(loaded.train) + numbers(loaded.val)) == list(range(60))
    assert numbers(loaded.test) == list(range(1000, 1012))
    assert all(n % 3 == label for n, label in zip(numbers(loaded.val), loaded.val.labels, strict=True))
    assert np.bincount(loaded.val.labels).tolist() == [4, 3, 3]


def test_split_depends_on_the_seed_alone(tiny: TinyDataset) -> None:
    fetch_data(tiny.data, tiny.cache, reporter=RecordingReporter())
    first, second = (dataset.load(tiny.data, tiny.cache) for _ in range(2))
    other = dataset.load(replace(tiny.data, split_seed=43), tiny.cache)
    assert numbers(first.val) == numbers(second.val)
    assert numbers(first.val) != numbers(other.val)


def test_limit_keeps_a_stratified_subset(tiny: TinyDataset) -> None:
    fetch_data(tiny.data, tiny.cache, reporter=RecordingReporter())
    whole = dataset.load(tiny.data, tiny.cache)
    few, again = (dataset.load(replace(tiny.data, limit=6), tiny.cache) for _ in range(2))
    for name, split in few.splits.items():
        assert np.bincount(split.labels).tolist() == [2, 2, 2]
        assert set(numbers(split)) <= set(numbers(whole.splits[name]))
        assert numbers(split) == numbers(again.splits[name])


def test_colour_images_are_loaded_with_statistics_by_channel(tmp_path: Path) -> None:
    images = {
        "train": np.random.default_rng(0).integers(0, 256, (60, SIZE, SIZE, 3), dtype=np.uint8),
        "test": np.random.default_rng(1).integers(0, 256, (12, SIZE, SIZE, 3), dtype=np.uint8),
    }
    images["train"][..., 2] //= 4
    tiny = make_tiny(tmp_path, images)
    data = replace(tiny.data, channels=3)
    fetch_data(data, tiny.cache, reporter=RecordingReporter())
    loaded = dataset.load(data, tiny.cache)
    pixels = loaded.train.images / np.float64(255)
    assert loaded.mean == pytest.approx(pixels.mean((0, 1, 2)))
    assert loaded.std == pytest.approx(pixels.std((0, 1, 2)))
    assert loaded.train.images.shape[1:] == (SIZE, SIZE, 3)
    check_dataset(loaded, data)
    with pytest.raises(DataError, match=r"images of train must be uint8 of shape \(8, 8\), got .*\(8, 8, 3\)"):
        dataset.load(tiny.data, tiny.cache)


def test_missing_file_names_the_remedy(tiny: TinyDataset) -> None:
    with pytest.raises(DataError, match=r"is not in .*; run `fashion data fetch`"):
        dataset.load(tiny.data, tiny.cache)


def test_changed_file_is_never_loaded(tiny: TinyDataset) -> None:
    fetch_data(tiny.data, tiny.cache, reporter=RecordingReporter())
    path = tiny.folder / tiny.version.files[0].path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="differs from the manifest"):
        dataset.load(tiny.data, tiny.cache)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(2, 40), min_size=2, max_size=6),
    fraction=st.floats(0.05, 0.5),
    seed=st.integers(0, 2**31),
)
def test_any_split_is_stratified(counts: list[int], fraction: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    files = dataset.Split(numbered_images(len(labels)), labels)
    data = DataConfig(
        name="any",
        class_names=tuple(str(i) for i in range(len(counts))),
        channels=1,
        size=SIZE,
        preparation="whole_picture",
        manifest="",
        sources=(),
        val_fraction=fraction,
        split_seed=seed,
        limit=None,
    )
    made = dataset.split(files, files, data, digest="")
    assert sorted(numbers(made.train) + numbers(made.val)) == list(range(len(labels)))
    in_val = np.bincount(made.val.labels, minlength=len(counts))
    wanted = round(len(labels) * fraction)
    assert len(made.val) == wanted
    if wanted >= 2 * len(counts):
        assert in_val.min() >= 1
        assert np.bincount(made.train.labels, minlength=len(counts)).min() >= 1
        rare = sum(wanted * count < len(labels) for count in counts)
        assert np.abs(in_val - wanted * np.array(counts) / len(labels)).max() < 1 + rare


def test_statistics_are_those_of_the_training_split(real: tuple[DataConfig, dataset.Dataset]) -> None:
    _, loaded = real
    pixels = loaded.train.images.astype(np.float32) / 255
    assert loaded.mean == pytest.approx((pixels.mean(dtype=np.float64),), rel=1e-6)
    assert loaded.std == pytest.approx((pixels.std(dtype=np.float64),), rel=1e-6)


def test_first_labels_are_those_of_fashion_mnist(real: tuple[DataConfig, dataset.Dataset]) -> None:
    _, loaded = real
    names = [loaded.class_names[label] for label in loaded.test.labels[:5]]
    assert names == ["Ankle boot", "Pullover", "Trouser", "Trouser", "Shirt"]
