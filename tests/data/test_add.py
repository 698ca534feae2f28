"""Folders of pictures or IDX files become a version of a data config, or an error that names what is wrong."""

import re
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.tiny_dataset import TinyDataset, numbered_images, numbers

from fashion.data import adoption, config_file, dataset, manifest
from fashion.data.idx import write_idx
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
    version, report, _ = adoption.add(mine.data, str(pictures), mine.cache)
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
        versions.append(adoption.add(mine.data, str(pictures), mine.cache)[0].digest)
    (pictures / "train" / "boot" / "003.png").unlink()
    versions.append(adoption.add(mine.data, str(pictures), mine.cache)[0].digest)
    assert versions[0] == versions[1] != versions[2]


def test_idx_files_become_a_version(mine: TinyDataset, tiny: TinyDataset) -> None:
    adoption.add(mine.data, str(tiny.source), mine.cache)
    assert {e.sha256 for e in manifest.read(mine.data).files} == {e.sha256 for e in tiny.version.files}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: (f / "train" / "boot").rename(f / "train" / "hat"), "hat is not named after a class; the classes"),
        (lambda f: shutil.rmtree(f / "test" / "Bag"), "test has no image of Bag"),
        (lambda f: shutil.rmtree(f / "train" / "Bag"), "too few pictures of Bag"),
        (lambda f: [shutil.rmtree(path) for path in f.iterdir()], "holds 0 pictures in 0 class folders"),
        (lambda f: shutil.rmtree(f), "there is no folder"),
        (lambda f: (f / "train-labels-idx1-ubyte").write_bytes(write_idx(np.zeros(1, np.uint8))), "has only train lab"),
    ],
)
def test_error_names_what_is_wrong_and_nothing_is_written(
    mine: TinyDataset, pictures: Path, change: Callable[[Path], object], reason: str
) -> None:
    change(pictures)
    with pytest.raises(DataError, match=re.escape(reason)):
        adoption.add(mine.data, str(pictures), mine.cache)
    assert not Path(mine.data.manifest).exists()


def test_files_that_are_no_pictures_are_left_out_and_named(mine: TinyDataset, pictures: Path) -> None:
    (pictures / "train" / "boot" / "x.txt").write_text("notes")
    whole = (pictures / "train" / "boot" / "003.png").read_bytes()
    (pictures / "train" / "boot" / "cut.png").write_bytes(whole[:40])
    _, report, found = adoption.add(mine.data, str(pictures), mine.cache)
    assert report.num_rows == {"train": 30, "val": 6, "test": 9}
    assert found is not None
    assert set(found.unreadable) == {"train/boot/x.txt", "train/boot/cut.png"}
    assert "not a picture of a known type" in found.unreadable["train/boot/x.txt"]


def test_pictures_of_other_sizes_are_prepared(mine: TinyDataset, pictures: Path) -> None:
    Image.new("L", (19, 8), 77).save(pictures / "train" / "boot" / "wide.png")
    assert adoption.add(mine.data, str(pictures), mine.cache)[1].num_rows == {"train": 31, "val": 6, "test": 9}


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-images.idx3-ubyte"])
def test_idx_files_are_known_by_both_names(mine: TinyDataset, tiny: TinyDataset, name: str) -> None:
    (tiny.source / "train-images-idx3-ubyte.gz").rename(tiny.source / f"{name}.gz")
    version, _, _ = adoption.add(mine.data, str(tiny.source), mine.cache)
    assert version.files[0].path == "train-images-idx3-ubyte"


def test_a_version_is_not_written_over_another_configs(tiny: TinyDataset) -> None:
    copied = replace(tiny.data, name="fashion-mnist", manifest="configs/data/fashion_mnist.manifest.json")
    with pytest.raises(DataError, match=r"is the manifest of fashion_mnist.yaml.*configs/data/mine.manifest.json"):
        config_file.check_manifest(copied, "mine")
    config_file.check_manifest(copied, "fashion_mnist")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("name", ["Ärmel", "ñandú", "हिन्दी", "한국어"])
def test_class_folders_are_found_in_any_unicode_form(mine: TinyDataset, pictures: Path, name: str, form: str) -> None:
    data = replace(mine.data, class_names=("T-shirt/top", name, "Bag"))
    for split in ("train", "test"):
        (pictures / split / "boot").rename(pictures / split / unicodedata.normalize(form, name))
    assert adoption.add(data, str(pictures), mine.cache)[1].num_rows["test"] == 9


def test_names_that_differ_in_their_marks_differ(mine: TinyDataset, pictures: Path) -> None:
    data = replace(mine.data, class_names=("T-shirt/top", "कि", "की"))
    for split in ("train", "test"):
        (pictures / split / "boot").rename(pictures / split / "कि")
        (pictures / split / "Bag").rename(pictures / split / "की")
    assert adoption.add(data, str(pictures), mine.cache)[1].class_counts["test"] == (3, 3, 3)
