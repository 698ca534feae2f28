"""Folders of pictures or IDX files become a version, or an error that names the file."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.tiny_dataset import TinyDataset, numbered_images, numbers

from fashion.data import dataset, from_folder, manifest
from fashion.data.manifest import DataError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for split, count in (("train", 12), ("test", 3)):
        for label, name in enumerate(("t_shirt_top", "boot", "Bag")):
            (folder / split / name).mkdir(parents=True)
            for i, image in enumerate(numbered_images(count, start=1000 * label + (split == "test") * 500)):
                Image.fromarray(image).save(folder / split / name / f"{i:03}.png")
    return folder


@pytest.fixture
def mine(tiny: TinyDataset, tmp_path: Path) -> TinyDataset:
    return replace(tiny, data=replace(tiny.data, manifest=str(tmp_path / "mine.manifest.json"), sources=()))


def test_pictures_become_a_version(mine: TinyDataset, pictures: Path) -> None:
    version, report = from_folder.add(mine.data, pictures, mine.cache)
    assert manifest.read(mine.data) == version
    assert report.num_rows == {"train": 30, "val": 6, "test": 9}
    loaded = dataset.load(mine.data, mine.cache)
    assert np.bincount(loaded.train.labels).tolist() == [10, 10, 10]
    assert np.bincount(loaded.val.labels).tolist() == [2, 2, 2]
    assert sorted(numbers(loaded.test)) == [500, 501, 502, 1500, 1501, 1502, 2500, 2501, 2502]
    assert all(n // 1000 == label for n, label in zip(numbers(loaded.test), loaded.test.labels, strict=True))


def test_version_depends_on_the_pictures_alone(mine: TinyDataset, pictures: Path) -> None:
    versions = []
    for _ in range(2):
        versions.append(from_folder.add(mine.data, pictures, mine.cache)[0].digest)
    (pictures / "train" / "boot" / "003.png").unlink()
    versions.append(from_folder.add(mine.data, pictures, mine.cache)[0].digest)
    assert versions[0] == versions[1] != versions[2]


def test_idx_files_become_a_version(mine: TinyDataset, tiny: TinyDataset) -> None:
    from_folder.add(mine.data, tiny.source, mine.cache)
    assert {e.sha256 for e in manifest.read(mine.data).files} == {e.sha256 for e in tiny.version.files}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: (f / "train" / "boot").rename(f / "train" / "hat"), "hat is not named after a class; the classes"),
        (lambda f: (f / "train" / "boot" / "x.txt").write_text("x"), "x.txt is not a picture that can be read"),
        (lambda f: Image.new("L", (9, 8)).save(f / "test" / "boot" / "x.png"), "x.png is 9x8 pixels, not 8x8"),
        (lambda f: shutil.rmtree(f / "test"), "must hold train/<class>/ and test/<class>/"),
        (lambda f: shutil.rmtree(f / "test" / "Bag"), "test has no image of Bag"),
        (lambda f: [shutil.rmtree(path) for path in (f / "test").iterdir()], "holds no pictures"),
        (lambda f: shutil.rmtree(f), "there is no folder"),
        (lambda f: (f / "train-labels-idx1-ubyte").write_bytes(b""), "but has only train-labels-idx1-ubyte"),
    ],
)
def test_error_names_the_file_and_nothing_is_written(
    mine: TinyDataset, pictures: Path, change: Callable[[Path], object], reason: str
) -> None:
    change(pictures)
    with pytest.raises(DataError, match=re.escape(reason)):
        from_folder.add(mine.data, pictures, mine.cache)
    assert not Path(mine.data.manifest).exists()
