"""Planted wrong labels are found among the first that a person would look at, without a trained network."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.shapes import write_shapes

from fashion.data import adoption, config_file, dataset, look_page, suspects
from fashion.data.adoption import Request
from fashion.data.dataset import Dataset

PLANTED = 500


def planted(labels: np.ndarray, count: int, num_classes: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which some are wrong, and which."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(labels), count, replace=False)
    wrong = labels.copy()
    wrong[rows] = (labels[rows] + rng.integers(1, num_classes, count)) % num_classes
    return wrong, rows


@pytest.mark.slow
@pytest.mark.parametrize("split", ["val", "train"])  # of 10,000 and of 50,000 rows
def test_of_500_planted_labels_four_fifths_are_in_the_first_600(split: str, whole_dataset: Dataset) -> None:
    part = getattr(whole_dataset, split)
    images, labels = part.images, part.labels
    wrong, rows = planted(labels, PLANTED, 10, seed=11)
    found = suspects.look(images, wrong, num_classes=10)
    assert len(set(rows) & set(found.most_suspicious(600))) >= 0.8 * PLANTED


def test_the_label_that_was_is_named(whole_dataset: Dataset) -> None:
    images, labels = whole_dataset.val.images[:2000], whole_dataset.val.labels[:2000]
    wrong, rows = planted(labels, 100, 10, seed=2)
    found = suspects.look(images, wrong, num_classes=10)
    assert (found.likelier[rows] == labels[rows]).mean() > 0.7


def test_the_same_rows_give_the_same_answer(small_dataset: Dataset) -> None:
    train = small_dataset.train
    first, second = (suspects.look(train.images, train.labels, num_classes=10) for _ in range(2))
    assert np.array_equal(first.confidence, second.confidence)


def test_a_picture_of_something_else_is_unusual(small_dataset: Dataset) -> None:
    images = small_dataset.train.images.copy()
    images[7] = np.random.default_rng(0).integers(0, 256, images[7].shape)
    found = suspects.look(images, small_dataset.train.labels, num_classes=10)
    assert 7 in found.most_unusual(20)


@pytest.mark.parametrize("size", [28, 64])
def test_the_page_shows_the_files_of_what_is_suspicious(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(config_file, "FOLDER", tmp_path / "configs")
    folder = write_shapes(tmp_path / "mine", {"circle": 60, "square": 60, "triangle": 60})
    Image.open(folder / "circle" / "5.jpg").save(folder / "square" / "wrong.png")
    adopted = adoption.adopt(Request(str(folder), size=size), tmp_path / "cache")
    loaded = dataset.load(adopted.data, tmp_path / "cache")
    page = look_page.page(loaded, adoption.read_paths(adopted.version, tmp_path / "cache"))
    section = page.partition("Labels that may be wrong")[2].partition("<h2>")[0]
    assert re.search(r"is square, looks like circle</b><small>[\d.]+%, (train|val|test): square/wrong.png", section)
    assert "<script" not in page
    assert "were looked at" not in page
    monkeypatch.setattr(suspects, "MOST_ROWS", 100)
    assert "The first 100 of 181 were looked at (train, then val, then test)" in look_page.page(loaded)
