"""What stops training, and what is only reported: empty classes, wrong labels, duplicates, imbalance."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.tiny_dataset import RecordingReporter, TinyDataset, make_tiny

from fashion.config.schema import DataConfig
from fashion.data import dataset
from fashion.data.checks import check_dataset
from fashion.data.fetch import fetch_data
from fashion.data.manifest import DataError


@pytest.fixture
def loaded(tiny: TinyDataset) -> dataset.Dataset:
    fetch_data(tiny.data, tiny.cache, reporter=RecordingReporter())
    return dataset.load(tiny.data, tiny.cache)


def test_class_without_images_is_an_error(tiny: TinyDataset, loaded: dataset.Dataset) -> None:
    keep = loaded.val.labels != 1
    val = dataset.Split(loaded.val.images[keep], loaded.val.labels[keep])
    with pytest.raises(DataError, match="val has no image of Boot"):
        check_dataset(replace(loaded, val=val), tiny.data)


@pytest.mark.parametrize("label", [-1, 3])
def test_label_out_of_range_is_an_error(tiny: TinyDataset, loaded: dataset.Dataset, label: int) -> None:
    labels = loaded.test.labels.copy()
    labels[0] = label
    with pytest.raises(DataError, match=r"labels of test must be in 0\.\.2"):
        check_dataset(replace(loaded, test=dataset.Split(loaded.test.images, labels)), tiny.data)


def test_wrong_shape_is_an_error(tiny: TinyDataset, loaded: dataset.Dataset) -> None:
    test = dataset.Split(loaded.test.images[:, :, :7], loaded.test.labels)
    with pytest.raises(DataError, match=r"images of test must be uint8 of shape \(8, 8\), got uint8 of"):
        check_dataset(replace(loaded, test=test), tiny.data)


def test_images_without_labels_are_an_error(tiny: TinyDataset, loaded: dataset.Dataset) -> None:
    test = dataset.Split(loaded.test.images, loaded.test.labels[:-1])
    with pytest.raises(DataError, match="test has 12 images but labels of shape"):
        check_dataset(replace(loaded, test=test), tiny.data)


def test_constant_channel_is_an_error(tiny: TinyDataset, loaded: dataset.Dataset) -> None:
    with pytest.raises(DataError, match="the same value in every pixel"):
        check_dataset(replace(loaded, std=(0.0,)), tiny.data)


def test_duplicates_are_counted_by_split(tiny: TinyDataset, loaded: dataset.Dataset) -> None:
    train, val, test = (split.images.copy() for split in loaded.splits.values())
    train[1] = train[2] = train[0]
    val[3] = train[5]
    test[4] = train[0]
    test[7] = val[0]
    test[9] = test[8]
    planted = replace(
        loaded,
        train=dataset.Split(train, loaded.train.labels),
        val=dataset.Split(val, loaded.val.labels),
        test=dataset.Split(test, loaded.test.labels),
    )
    report = check_dataset(planted, tiny.data)
    assert report.duplicates == {
        "train": 2,
        "val": 0,
        "train and val together": 3,
        "test": 1,
        "test also in train or val": 2,
    }
    assert np.flatnonzero(report.test_in_training).tolist() == [4, 7]
    assert len(report.warnings) == 3


def test_imbalance_is_a_warning_not_an_error(tmp_path: Path) -> None:
    labels = {
        "train": np.array([0] * 40 + [1] * 10 + [2] * 10, np.uint8),
        "test": np.arange(12, dtype=np.uint8) % 3,
    }
    tiny = make_tiny(tmp_path, labels=labels)
    fetch_data(tiny.data, tiny.cache, reporter=RecordingReporter())
    report = check_dataset(dataset.load(tiny.data, tiny.cache), tiny.data)
    assert report.warnings[0].startswith("train is imbalanced")


def test_splits_are_balanced_and_of_the_usual_sizes(real: tuple[DataConfig, dataset.Dataset]) -> None:
    data, loaded = real
    report = check_dataset(loaded, data)
    assert report.num_rows == {"train": 50_000, "val": 10_000, "test": 10_000}
    assert {name: set(counts) for name, counts in report.class_counts.items()} == {
        "train": {5000},
        "val": {1000},
        "test": {1000},
    }
    assert loaded.train.images.shape[1:] == (28, 28)
    assert report.warnings == ()


def test_no_exact_duplicates_since_august_2017(real: tuple[DataConfig, dataset.Dataset]) -> None:
    # github.com/zalandoresearch/fashion-mnist/issues/44 lists 43 within train and 10 across; its fix replaced
    # them, and the files have not changed since.
    data, loaded = real
    report = check_dataset(loaded, data)
    assert set(report.duplicates.values()) == {0}
    assert not report.test_in_training.any()


def test_planted_duplicates_are_found(real: tuple[DataConfig, dataset.Dataset]) -> None:
    data, loaded = real
    images = loaded.test.images.copy()
    images[100:110] = loaded.train.images[:10]
    images[110:113] = loaded.val.images[:3]
    planted = replace(loaded, test=dataset.Split(images, loaded.test.labels))
    report = check_dataset(planted, data)
    assert np.flatnonzero(report.test_in_training).tolist() == list(range(100, 113))
    assert report.duplicates["test also in train or val"] == 13
    assert "13 test images are also in train or val" in report.warnings
