"""Public data sets: each form that they are published in is read, verified, and made a version of."""

import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.tiny_dataset import RecordingReporter, numbered_images

from fashion.config.compose import compose
from fashion.config.schema import ConfigError, DataConfig, PublishedConfig, PublishedFile
from fashion.config.train import load_train_config
from fashion.data import dataset, manifest, published
from fashion.data.fetch import fetch_data
from fashion.data.idx import write_idx
from fashion.data.manifest import DataError
from fashion.home import REPOSITORY

NAMES = ("mnist", "kmnist", "emnist", "cifar10")
LABELS = {"train": np.arange(40, dtype=np.uint8) % 4, "test": np.arange(8, dtype=np.uint8) % 4}


def images(size: int = 8) -> dict[str, np.ndarray]:
    """Rows of train and test that all differ, with no symmetry."""
    if size == 8:
        return {"train": numbered_images(40), "test": numbered_images(8, start=100)}
    draw = np.random.default_rng(1)
    return {name: draw.integers(0, 256, (len(rows), size, size, 3), dtype=np.uint8) for name, rows in LABELS.items()}


def write_idx_files(folder: Path) -> dict[str, np.ndarray]:
    made = images()
    for split, stem in (("train", "train"), ("test", "t10k")):
        for role, values in (("images-idx3", made[split]), ("labels-idx1", LABELS[split])):
            (folder / f"{stem}-{role}-ubyte.gz").write_bytes(gzip.compress(write_idx(values)))
    return made


def write_cifar10(folder: Path) -> dict[str, np.ndarray]:
    """An archive as CIFAR-10's: five batches of a label and three planes a row, and the test batch."""
    made = images(32)
    rows = {
        split: np.concatenate(
            [LABELS[split][:, None], np.moveaxis(made[split], -1, 1).reshape(len(LABELS[split]), -1)], 1
        )
        for split in made
    }
    members = {f"data_batch_{number + 1}.bin": rows["train"][8 * number : 8 * number + 8] for number in range(5)}
    with tarfile.open(folder / "cifar.tar.gz", "w:gz") as archive:
        # Not in their order, as in the archive of the authors.
        for name, values in [
            ("readme.html", np.zeros(3, np.uint8)),
            *reversed(members.items()),
            ("test_batch.bin", rows["test"]),
        ]:
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = values.nbytes
            archive.addfile(member, io.BytesIO(values.tobytes()))
    return made


def write_emnist(folder: Path) -> dict[str, np.ndarray]:
    """An archive as EMNIST's: IDX files of several subsets, images transposed."""
    made = images()
    with zipfile.ZipFile(folder / "gzip.zip", "w") as archive:
        for split in made:
            for subset in ("balanced", "letters"):
                other = 0 if subset == "balanced" else 255
                files = {"images-idx3": made[split].swapaxes(1, 2) ^ other, "labels-idx1": LABELS[split] ^ other}
                for role, values in files.items():
                    content = gzip.compress(write_idx(np.ascontiguousarray(values, dtype=np.uint8)))
                    archive.writestr(f"gzip/emnist-{subset}-{split}-{role}-ubyte.gz", content)
    return made


FORMS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    "idx": write_idx_files,
    "cifar10": write_cifar10,
    "emnist_balanced": write_emnist,
}


def describe(tmp_path: Path, form: str, folder: Path) -> DataConfig:
    """A data config of what is in a folder, with checksums; nothing answers at its address."""
    files = tuple(
        PublishedFile(path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.iterdir())
    )
    return DataConfig(
        name="public",
        class_names=("a", "b", "c", "d"),
        channels=3 if form == "cifar10" else 1,
        size=32 if form == "cifar10" else 8,
        preparation="whole_picture",
        manifest=str(tmp_path / "public.manifest.json"),
        sources=(),
        val_fraction=0.2,
        split_seed=1,
        limit=None,
        published=PublishedConfig(form, files, ("http://127.0.0.1:9/files",)),  # type: ignore[arg-type]
    )


@pytest.fixture(params=FORMS)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[DataConfig, Path, dict[str, np.ndarray]]:
    """A data config, its cache with files that were put there by hand, and the images in them."""
    folder = tmp_path / "data" / "public" / "published"
    folder.mkdir(parents=True)
    content = FORMS[request.param](folder)
    return describe(tmp_path, request.param, folder), tmp_path / "data", content


def test_first_fetch_writes_the_manifest_and_the_rows(made: tuple[DataConfig, Path, dict[str, np.ndarray]]) -> None:
    data, cache, content = made
    reporter = RecordingReporter()
    version = fetch_data(data, cache, reporter=reporter)
    assert "commit it" in reporter.messages[-1]
    assert manifest.read(data) == version
    loaded = dataset.load(data, cache)
    assert (loaded.test.images == content["test"]).all()
    assert loaded.test.labels.tolist() == LABELS["test"].tolist()
    held = np.concatenate([loaded.train.images, loaded.val.images])
    assert sorted(map(bytes, held)) == sorted(map(bytes, content["train"]))
    order = {bytes(image): label for image, label in zip(content["train"], LABELS["train"], strict=True)}
    assert [order[bytes(image)] for image in loaded.train.images] == loaded.train.labels.tolist()
    assert sorted(path.name for path in (cache / "public" / "published").iterdir()) == sorted(
        file.name
        for file in data.published.files  # type: ignore[union-attr]
    )


def test_version_is_restored_as_it_was(made: tuple[DataConfig, Path, dict[str, np.ndarray]]) -> None:
    data, cache, _ = made
    version = fetch_data(data, cache, reporter=RecordingReporter())
    path = manifest.folder_of(version, cache) / version.files[0].path
    content = path.read_bytes()
    path.unlink()
    assert fetch_data(data, cache, reporter=RecordingReporter()) == version
    assert path.read_bytes() == content


@pytest.mark.fault("a public data set, no network")
def test_without_a_network_one_sentence_says_what_to_put_where(tmp_path: Path) -> None:
    folder = tmp_path / "away"
    folder.mkdir()
    write_emnist(folder)
    data, cache = describe(tmp_path, "emnist_balanced", folder), tmp_path / "data"
    with pytest.raises(DataError) as caught:
        fetch_data(data, cache, reporter=RecordingReporter())
    sentence = str(caught.value)
    assert sentence.startswith("public cannot be fetched (http://127.0.0.1:9/files/gzip.zip: ")
    assert sentence.endswith(
        f"download gzip.zip from http://127.0.0.1:9/files, and put it into {cache}/public/published here"
    )
    assert "\n" not in sentence
    assert not list((cache / "public" / "published").iterdir())


def test_another_file_than_the_published_one_is_refused(made: tuple[DataConfig, Path, dict[str, np.ndarray]]) -> None:
    data, cache, _ = made
    path = next((cache / "public" / "published").iterdir())
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match=f"{path} is not the file that was published"):
        fetch_data(data, cache, reporter=RecordingReporter())
    assert path.exists()
    assert not Path(data.manifest).exists()


def test_archive_without_the_rows_is_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "public" / "published"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "cifar.tar.gz", "w:gz"):
        pass
    data = describe(tmp_path, "cifar10", folder)
    with pytest.raises(DataError, match="has no whole train batches of 3,073 bytes a row"):
        published.read_or_make(data, tmp_path / "data", reporter=RecordingReporter())


@pytest.mark.parametrize("name", NAMES)
def test_shipped_data_set_is_described(name: str) -> None:
    data = load_train_config(compose([f"data={name}"])).data
    assert data.name == name
    assert data.published is not None
    assert data.model == f"{name}-classifier"
    assert data.mirrored == (name == "cifar10")
    assert len(data.class_names) == (47 if name == "emnist" else 10)


def test_a_manifest_that_is_not_written_yet_names_the_command_that_writes_it(tmp_path: Path) -> None:
    data = replace(load_train_config(compose(["data=kmnist"])).data, manifest=str(tmp_path / "kmnist.manifest.json"))
    with pytest.raises(DataError, match=r"there is no manifest .*; `fashion data fetch data=kmnist` writes it"):
        manifest.read(data)


def test_checksum_must_be_one() -> None:
    with pytest.raises(ValueError, match="sha256 must be 64 hexadecimal digits"):
        PublishedFile("x.gz", 1, "abc")
    with pytest.raises(ConfigError, match="form"):
        load_train_config(compose(["data=mnist", "data.published.form=zip"]))


def test_manifest_of_mnist_is_that_of_its_published_content() -> None:
    """The checksums that MNIST's uncompressed files are known by."""
    version = manifest.read(load_train_config(compose(["data=mnist"])).data)
    assert version.entry("train", "images").sha256.startswith("ba891046e6505d7a")
    assert version.entry("test", "labels").sha256.startswith("ff7bcfd416de3373")
    assert (REPOSITORY / "configs/data/mnist.manifest.json").is_file()


def test_own_folder_is_still_a_source(tmp_path: Path) -> None:
    """A version whose manifest is known comes from any source that has the files."""
    folder = tmp_path / "data" / "public" / "published"
    folder.mkdir(parents=True)
    write_idx_files(folder)
    data = describe(tmp_path, "idx", folder)
    version = fetch_data(data, tmp_path / "data", reporter=RecordingReporter())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for entry in version.files:
        (elsewhere / entry.path).write_bytes((manifest.folder_of(version, tmp_path / "data") / entry.path).read_bytes())
    source = load_train_config(compose([f"data.sources=[{{kind: folder, address: {elsewhere}}}]"])).data.sources
    assert fetch_data(replace(data, sources=source), tmp_path / "other", reporter=RecordingReporter()) == version
