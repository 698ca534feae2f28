"""Data: what is read, how it is split and checked, where it comes from, and the command."""

import contextlib
import gzip
import io
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support import bucket

from fashion.commands.main import main
from fashion.config.compose import compose
from fashion.config.schema import DataConfig, SourceConfig
from fashion.config.train import load_train_config
from fashion.data import dataset, manifest, sources
from fashion.data.checks import check_dataset
from fashion.data.fetch import DataUnavailable, fetch_data, push_data
from fashion.data.idx import read_idx, write_idx
from fashion.data.manifest import DataError, Manifest
from fashion.data.progress import Terminal
from fashion.home import REPOSITORY, current_home

CLASSES = ("T-shirt/top", "Boot", "Bag")
SIZE = 8


@dataclass
class Heard:
    """A report that remembers."""

    said: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)

    def say(self, message: str) -> None:
        self.said.append(message)

    def progress(self, message: str) -> None:
        self.shown.append(message)


@dataclass(frozen=True)
class Tiny:
    """A data set of 60 + 12 images of 8x8, its source folder and its cache."""

    data: DataConfig
    version: Manifest
    source: Path
    cache: Path

    @property
    def folder(self) -> Path:
        return manifest.folder_of(self.version, self.cache)

    def only(self, kind: str, address: str) -> DataConfig:
        return replace(self.data, sources=(SourceConfig(kind, address),))  # type: ignore[arg-type]

    @property
    def words(self) -> list[str]:
        """What to type for this data set."""
        listed = ", ".join(f"{{kind: {s.kind}, address: '{s.address}'}}" for s in self.data.sources)
        names = ", ".join(self.data.class_names)
        return [
            f"data.name={self.data.name}",
            f"data.class_names=[{names}]",
            f"data.size={SIZE}",
            f"data.manifest='{self.data.manifest}'",
            f"data.sources=[{listed}]",
        ]


def numbered_images(count: int, *, start: int = 0) -> np.ndarray:
    """Images that all differ: the first four pixels hold a number."""
    images = np.random.default_rng(start).integers(0, 256, (count, SIZE, SIZE), dtype=np.uint8)
    images.reshape(count, -1)[:, :4] = np.arange(start, start + count, dtype=">u4").view(np.uint8).reshape(-1, 4)
    return images


def numbers(split: dataset.Split) -> list[int]:
    """The numbers in such images."""
    pixels = np.ascontiguousarray(split.images.reshape(len(split), SIZE * SIZE)[:, :4])
    return [int(number) for number in pixels.view(">u4").ravel()]


def make_tiny(
    folder: Path, images: dict[str, np.ndarray] | None = None, labels: dict[str, np.ndarray] | None = None
) -> Tiny:
    images = images or {"train": numbered_images(60), "test": numbered_images(12, start=1000)}
    labels = labels or {name: np.arange(len(values), dtype=np.uint8) % 3 for name, values in images.items()}
    source = folder / "source"
    source.mkdir()
    entries = []
    for split in ("train", "test"):
        for role, values in (("images", images[split]), ("labels", labels[split])):
            content = write_idx(values)
            path = f"{split}-{role}-idx{values.ndim}-ubyte"
            (source / f"{path}.gz").write_bytes(gzip.compress(content))
            entries.append(manifest.describe(path, split, role, content))  # type: ignore[arg-type]
    version = Manifest("tiny", len(CLASSES), tuple(entries))
    manifest.write(version, folder / "tiny.manifest.json")
    data = DataConfig(
        name="tiny",
        class_names=CLASSES,
        channels=1,
        size=SIZE,
        preparation="whole_picture",
        manifest=str(folder / "tiny.manifest.json"),
        sources=(SourceConfig("folder", str(source)),),
        val_fraction=1 / 6,
        split_seed=42,
        limit=None,
    )
    return Tiny(data, version, source, folder / "home" / "data")


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path / "home"))
    return make_tiny(tmp_path)


@pytest.fixture(scope="session")
def real() -> tuple[DataConfig, dataset.Dataset]:
    """Fashion-MNIST itself, where this machine has it or can reach it."""
    data = load_train_config(compose()).data
    try:
        fetch_data(data, current_home().data)
    except DataUnavailable as error:
        pytest.skip(str(error))
    return data, dataset.load(data, current_home().data)


class TestFashionMnist:
    def test_splits_are_balanced_and_of_the_usual_sizes(self, real: tuple[DataConfig, dataset.Dataset]) -> None:
        data, loaded = real
        report = check_dataset(loaded, data)
        assert report.num_rows == {"train": 50_000, "val": 10_000, "test": 10_000}
        assert {name: set(counts) for name, counts in report.class_counts.items()} == {
            "train": {5000},
            "val": {1000},
            "test": {1000},
        }
        assert report.image_shape == (28, 28)
        assert report.remarks == ()

    def test_statistics_are_those_of_the_training_split(self, real: tuple[DataConfig, dataset.Dataset]) -> None:
        _, loaded = real
        pixels = loaded.train.images.astype(np.float32) / 255
        assert loaded.mean == pytest.approx((pixels.mean(dtype=np.float64),), rel=1e-6)
        assert loaded.std == pytest.approx((pixels.std(dtype=np.float64),), rel=1e-6)

    def test_known_labels_are_where_they_are_known_to_be(self, real: tuple[DataConfig, dataset.Dataset]) -> None:
        _, loaded = real
        names = [loaded.class_names[label] for label in loaded.test.labels[:5]]
        assert names == ["Ankle boot", "Pullover", "Trouser", "Trouser", "Shirt"]

    def test_no_exact_duplicates_since_august_2017(self, real: tuple[DataConfig, dataset.Dataset]) -> None:
        # github.com/zalandoresearch/fashion-mnist/issues/44 lists 43 within train and 10 across; its fix replaced
        # them, and the files have not changed since.
        data, loaded = real
        report = check_dataset(loaded, data)
        assert set(report.duplicates.values()) == {0}
        assert not report.test_in_training.any()

    def test_planted_duplicates_are_found(self, real: tuple[DataConfig, dataset.Dataset]) -> None:
        data, loaded = real
        images = loaded.test.images.copy()
        images[100:110] = loaded.train.images[:10]
        images[110:113] = loaded.val.images[:3]
        planted = replace(loaded, test=dataset.Split(images, loaded.test.labels))
        report = check_dataset(planted, data)
        assert np.flatnonzero(report.test_in_training).tolist() == list(range(100, 113))
        assert report.duplicates["test also in train or val"] == 13
        assert "13 test images are also in train or val" in report.remarks


class TestLoad:
    def test_arrays_are_writable_and_of_the_conventional_types(self, tiny: Tiny) -> None:
        fetch_data(tiny.data, tiny.cache, report=Heard())
        loaded = dataset.load(tiny.data, tiny.cache)
        assert loaded.digest == tiny.version.digest
        assert loaded.class_names == CLASSES
        for split in loaded.splits.values():
            assert split.images.dtype == np.uint8
            assert split.images.shape == (len(split), SIZE, SIZE)
            assert split.labels.dtype == np.int64
            assert split.images.flags.writeable
            assert split.labels.flags.writeable

    def test_every_training_row_is_in_exactly_one_split(self, tiny: Tiny) -> None:
        fetch_data(tiny.data, tiny.cache, report=Heard())
        loaded = dataset.load(tiny.data, tiny.cache)
        assert sorted(numbers(loaded.train) + numbers(loaded.val)) == list(range(60))
        assert numbers(loaded.test) == list(range(1000, 1012))
        assert all(n % 3 == label for n, label in zip(numbers(loaded.val), loaded.val.labels, strict=True))
        assert np.bincount(loaded.val.labels).tolist() == [4, 3, 3]

    def test_split_is_the_same_each_time_and_another_with_another_seed(self, tiny: Tiny) -> None:
        fetch_data(tiny.data, tiny.cache, report=Heard())
        first, second = (dataset.load(tiny.data, tiny.cache) for _ in range(2))
        other = dataset.load(replace(tiny.data, split_seed=43), tiny.cache)
        assert numbers(first.val) == numbers(second.val)
        assert numbers(first.val) != numbers(other.val)

    def test_limit_keeps_a_stratified_subset(self, tiny: Tiny) -> None:
        fetch_data(tiny.data, tiny.cache, report=Heard())
        whole = dataset.load(tiny.data, tiny.cache)
        few, again = (dataset.load(replace(tiny.data, limit=6), tiny.cache) for _ in range(2))
        for name, split in few.splits.items():
            assert np.bincount(split.labels).tolist() == [2, 2, 2]
            assert set(numbers(split)) <= set(numbers(whole.splits[name]))
            assert numbers(split) == numbers(again.splits[name])

    def test_colour_is_a_matter_of_the_config(self, tmp_path: Path) -> None:
        images = {
            "train": np.random.default_rng(0).integers(0, 256, (60, SIZE, SIZE, 3), dtype=np.uint8),
            "test": np.random.default_rng(1).integers(0, 256, (12, SIZE, SIZE, 3), dtype=np.uint8),
        }
        images["train"][..., 2] //= 4
        tiny = make_tiny(tmp_path, images)
        data = replace(tiny.data, channels=3)
        fetch_data(data, tiny.cache, report=Heard())
        loaded = dataset.load(data, tiny.cache)
        pixels = loaded.train.images / np.float64(255)
        assert loaded.mean == pytest.approx(pixels.mean((0, 1, 2)))
        assert loaded.std == pytest.approx(pixels.std((0, 1, 2)))
        assert check_dataset(loaded, data).image_shape == (SIZE, SIZE, 3)
        with pytest.raises(DataError, match=r"images of train must be uint8 of shape \(8, 8\), got .*\(8, 8, 3\)"):
            dataset.load(tiny.data, tiny.cache)

    def test_missing_file_names_the_remedy(self, tiny: Tiny) -> None:
        with pytest.raises(DataError, match=r"is not in .*; run `fashion data fetch`"):
            dataset.load(tiny.data, tiny.cache)

    def test_changed_file_is_never_loaded(self, tiny: Tiny) -> None:
        fetch_data(tiny.data, tiny.cache, report=Heard())
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
    def test_any_split_is_stratified(self, counts: list[int], fraction: float, seed: int) -> None:
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


class TestIdx:
    @pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (2, 3, 4, 3), (0, 3, 3)])
    def test_what_is_written_is_read(self, shape: tuple[int, ...]) -> None:
        values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        assert np.array_equal(read_idx(write_idx(values), "x"), values)

    @pytest.mark.parametrize("content", [b"", b"\x89PNG....", b"\0\0\x0d\x01\0\0\0\0", b"\0\0\x08\0"])
    def test_other_files_are_refused(self, content: bytes) -> None:
        with pytest.raises(DataError, match="labels is not an IDX file"):
            read_idx(content, "labels")

    @pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + b"\0", lambda c: c[:9]])
    def test_wrong_lengths_are_refused(self, change: Callable[[bytes], bytes]) -> None:
        with pytest.raises(DataError, match="labels has"):
            read_idx(change(write_idx(np.zeros((3, 2), np.uint8))), "labels")


class TestCheck:
    @pytest.fixture
    def loaded(self, tiny: Tiny) -> dataset.Dataset:
        fetch_data(tiny.data, tiny.cache, report=Heard())
        return dataset.load(tiny.data, tiny.cache)

    def test_class_without_images_stops(self, tiny: Tiny, loaded: dataset.Dataset) -> None:
        keep = loaded.val.labels != 1
        val = dataset.Split(loaded.val.images[keep], loaded.val.labels[keep])
        with pytest.raises(DataError, match="val has no image of Boot"):
            check_dataset(replace(loaded, val=val), tiny.data)

    @pytest.mark.parametrize("label", [-1, 3])
    def test_label_out_of_range_stops(self, tiny: Tiny, loaded: dataset.Dataset, label: int) -> None:
        labels = loaded.test.labels.copy()
        labels[0] = label
        with pytest.raises(DataError, match=r"labels of test must be in 0\.\.2"):
            check_dataset(replace(loaded, test=dataset.Split(loaded.test.images, labels)), tiny.data)

    def test_wrong_shape_stops(self, tiny: Tiny, loaded: dataset.Dataset) -> None:
        test = dataset.Split(loaded.test.images[:, :, :7], loaded.test.labels)
        with pytest.raises(DataError, match=r"images of test must be uint8 of shape \(8, 8\), got uint8 of"):
            check_dataset(replace(loaded, test=test), tiny.data)

    def test_images_without_labels_stop(self, tiny: Tiny, loaded: dataset.Dataset) -> None:
        test = dataset.Split(loaded.test.images, loaded.test.labels[:-1])
        with pytest.raises(DataError, match="test has 12 images but labels of shape"):
            check_dataset(replace(loaded, test=test), tiny.data)

    def test_images_all_alike_stop(self, tiny: Tiny, loaded: dataset.Dataset) -> None:
        with pytest.raises(DataError, match="the same value in every pixel"):
            check_dataset(replace(loaded, std=(0.0,)), tiny.data)

    def test_duplicates_are_counted_where_they_are(self, tiny: Tiny, loaded: dataset.Dataset) -> None:
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
        assert len(report.remarks) == 3

    def test_imbalance_is_remarked_not_refused(self, tmp_path: Path) -> None:
        labels = {
            "train": np.array([0] * 40 + [1] * 10 + [2] * 10, np.uint8),
            "test": np.arange(12, dtype=np.uint8) % 3,
        }
        tiny = make_tiny(tmp_path, labels=labels)
        fetch_data(tiny.data, tiny.cache, report=Heard())
        report = check_dataset(dataset.load(tiny.data, tiny.cache), tiny.data)
        assert report.remarks[0].startswith("train is imbalanced")


class TestManifest:
    def test_digest_changes_with_any_byte_of_the_data(self, tiny: Tiny) -> None:
        entry = tiny.version.files[0]
        other = replace(tiny.version, files=(replace(entry, sha256="0" * 64), *tiny.version.files[1:]))
        assert len(tiny.version.digest) == 64
        assert other.digest != tiny.version.digest

    def test_written_manifest_is_read_back(self, tiny: Tiny) -> None:
        assert manifest.read(tiny.data) == tiny.version

    def test_missing_manifest_names_the_remedy(self, tiny: Tiny) -> None:
        with pytest.raises(DataError, match=r"there is no manifest .*; `fashion data add"):
            manifest.read(replace(tiny.data, manifest="configs/data/nothing.json"))

    @pytest.mark.parametrize(
        "text", ["", "[]", "{}", '{"name": "tiny", "num_classes": 3, "files": []}', '{"files": 3}']
    )
    def test_anything_else_is_refused(self, tiny: Tiny, text: str) -> None:
        Path(tiny.data.manifest).write_text(text)
        with pytest.raises(DataError, match="is not a manifest"):
            manifest.read(tiny.data)

    def test_files_outside_the_cache_are_refused(self, tiny: Tiny) -> None:
        entry = replace(tiny.version.files[0], path="../../.bashrc")
        manifest.write(replace(tiny.version, files=(entry, *tiny.version.files[1:])), Path(tiny.data.manifest))
        with pytest.raises(DataError, match="names without folders"):
            manifest.read(tiny.data)

    def test_manifest_of_other_data_is_refused(self, tiny: Tiny) -> None:
        with pytest.raises(DataError, match="is of 'tiny' with 3 classes, but the data config is of 'tiny' with 2"):
            manifest.read(replace(tiny.data, class_names=("a", "b")))


class TestFetch:
    def test_second_fetch_touches_nothing(self, tiny: Tiny) -> None:
        fetch_data(tiny.data, tiny.cache, report=Heard())
        before = {path: path.stat().st_mtime_ns for path in tiny.folder.iterdir()}
        shutil.rmtree(tiny.source)
        heard = Heard()
        fetch_data(tiny.data, tiny.cache, report=heard)
        assert heard.said == []
        assert {path: path.stat().st_mtime_ns for path in tiny.folder.iterdir()} == before

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda c: c[: len(c) // 2], "is half a file"),
            (lambda c: c[:-1] + bytes([c[-1] ^ 1]), "differs from the manifest's sha256"),
            (lambda c: c + b"x", "is longer than"),
        ],
    )
    def test_damaged_file_is_named_removed_and_fetched_again(
        self, tiny: Tiny, change: Callable[[bytes], bytes], reason: str
    ) -> None:
        fetch_data(tiny.data, tiny.cache, report=Heard())
        path = tiny.folder / tiny.version.files[0].path
        right = path.read_bytes()
        path.write_bytes(change(right))
        heard = Heard()
        fetch_data(tiny.data, tiny.cache, report=heard)
        assert heard.said[0].startswith(f"removed {path}: ")
        assert reason in heard.said[0]
        assert len(heard.said) == 2  # the other three files are kept
        assert path.read_bytes() == right

    def test_damaged_file_is_removed_though_no_source_is_left(self, tiny: Tiny) -> None:
        fetch_data(tiny.data, tiny.cache, report=Heard())
        path = tiny.folder / tiny.version.files[0].path
        path.write_bytes(b"half")
        shutil.rmtree(tiny.source)
        with pytest.raises(DataUnavailable, match=path.name):
            fetch_data(tiny.data, tiny.cache, report=Heard())
        assert not path.exists()

    def test_files_without_gzip_will_do(self, tiny: Tiny) -> None:
        for path in list(tiny.source.iterdir()):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
        fetch_data(tiny.data, tiny.cache, report=Heard())
        assert len(dataset.load(tiny.data, tiny.cache).test) == 12

    def test_another_gzip_envelope_is_the_same_content(self, tiny: Tiny) -> None:
        for path in tiny.source.iterdir():
            path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=1))
        fetch_data(tiny.data, tiny.cache, report=Heard())

    def test_first_source_that_has_a_file_gives_it(self, tiny: Tiny, tmp_path: Path) -> None:
        partial_folder = tmp_path / "partial"
        partial_folder.mkdir()
        name = tiny.version.files[1].path
        shutil.copy(tiny.source / f"{name}.gz", partial_folder)
        bad = tmp_path / "bad"
        shutil.copytree(tiny.source, bad)
        (bad / f"{tiny.version.files[0].path}.gz").write_bytes(b"\x1f\x8b half")
        folders = [tmp_path / "nowhere", partial_folder, bad, tiny.source]
        heard = Heard()
        data = replace(tiny.data, sources=tuple(SourceConfig("folder", str(folder)) for folder in folders))
        fetch_data(data, tiny.cache, report=heard)
        given = {message.split(":")[0]: message.split("folder ")[1].split(",")[0] for message in heard.said}
        assert given == {
            tiny.version.files[0].path: str(tiny.source),
            name: str(partial_folder),
            tiny.version.files[2].path: str(bad),
            tiny.version.files[3].path: str(bad),
        }

    def test_no_source_gives_one_message_with_all_that_was_tried(
        self, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))  # without apt
        (tmp_path / "empty").mkdir()
        data = replace(
            tiny.data,
            sources=(
                SourceConfig("folder", str(tmp_path / "nowhere")),
                SourceConfig("folder", str(tmp_path / "empty")),
                SourceConfig("debian", "dataset-tiny"),
                SourceConfig("https", "http://127.0.0.1:9/tiny"),
                SourceConfig("https", "ftp://127.0.0.1/tiny"),
                SourceConfig("bucket", ""),
                SourceConfig("bucket", "s3://tiny"),
            ),
        )
        with pytest.raises(DataUnavailable) as caught:
            fetch_data(data, tiny.cache, report=Heard())
        message = str(caught.value)
        assert f"folder {tmp_path / 'nowhere'}: no such folder" in message
        assert f"folder {tmp_path / 'empty'}: there is no train-images-idx3-ubyte.gz or" in message
        assert "debian dataset-tiny: there is no apt-get on this machine" in message
        assert "https http://127.0.0.1:9/tiny: [Errno 111] Connection refused" in message
        assert "https ftp://127.0.0.1/tiny: not an https:// address" in message
        assert "bucket: no address; set FASHION_DATA_BUCKET=gs://bucket/prefix" in message
        assert "bucket s3://tiny: 's3://tiny' is not an address of blobs" in message
        assert "What to do: " in message

    def test_cache_that_cannot_be_written_is_named(self, tiny: Tiny) -> None:
        tiny.cache.parent.mkdir()
        tiny.cache.write_bytes(b"in the way")
        with pytest.raises(DataError, match=r"cannot be used .*; FASHION_HOME moves it"):
            fetch_data(tiny.data, tiny.cache, report=Heard())

    def test_versions_lie_side_by_side(self, tiny: Tiny, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        other = make_tiny(tmp_path / "other", {"train": numbered_images(60, start=7), "test": numbered_images(12)})
        fetch_data(tiny.data, tiny.cache, report=Heard())
        fetch_data(other.data, tiny.cache, report=Heard())
        assert dataset.load(tiny.data, tiny.cache).digest == tiny.version.digest
        assert dataset.load(other.data, tiny.cache).digest == other.version.digest

    def test_what_killed_fetches_left_behind_goes_after_a_while(self, tiny: Tiny) -> None:
        tiny.folder.mkdir(parents=True)
        old, new = tiny.folder / ".train.0.part", tiny.folder / ".train.1.part"
        for path in (old, new):
            path.write_bytes(b"half")
        os.utime(old, (0, 0))
        fetch_data(tiny.data, tiny.cache, report=Heard())
        assert not old.exists()
        assert new.exists()  # may be of a fetch that goes on


@dataclass
class Site:
    """A download site on loopback, and what it does with each file."""

    url: str
    requests: list[str]
    trouble: dict[str, list[str]]
    """File name -> what to do at each request, in turn; afterwards it behaves."""
    pause: list[float]
    """Seconds between pieces."""


@contextlib.contextmanager
def serve(folder: Path, *, tls: tuple[Path, Path] | None = None) -> Iterator[Site]:
    requests: list[str] = []
    trouble: dict[str, list[str]] = {}
    pause = [0.0]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rsplit("/", 1)[-1]
            requests.append(name)
            act = trouble[name].pop(0) if trouble.get(name) else ""
            path = folder / name
            if not path.exists():
                self.send_error(404)
                return
            if act == "busy":
                self.send_error(503)
                return
            data = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if act == "half":
                data = data[: len(data) // 2]
            if act == "hang":
                self.wfile.write(data[:10])
                time.sleep(1.5)
                return
            for start in range(0, len(data), 500):
                self.wfile.write(data[start : start + 500])
                time.sleep(pause[0])

        def log_message(self, *_: object) -> None:
            """Tests print nothing."""

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # clients are killed here
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    scheme = "http"
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        scheme = "https"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Site(f"{scheme}://127.0.0.1:{server.server_port}/data", requests, trouble, pause)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class TestDownload:
    @pytest.fixture
    def site(self, tiny: Tiny) -> Iterator[Site]:
        with serve(tiny.source) as site:
            yield site

    def test_download_shows_progress(self, tiny: Tiny, site: Site) -> None:
        heard = Heard()
        fetch_data(tiny.only("https", site.url), tiny.cache, report=heard)
        assert len(heard.said) == 4
        assert all("verified" in message for message in heard.said)
        assert any("100%" in message for message in heard.shown)
        assert len(dataset.load(tiny.data, tiny.cache).train) == 50

    def test_plain_files_are_found_where_there_is_no_gzip(self, tiny: Tiny, site: Site) -> None:
        for path in list(tiny.source.iterdir()):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
        fetch_data(tiny.only("https", site.url), tiny.cache, report=Heard())

    def test_half_download_is_tried_again(self, tiny: Tiny, site: Site) -> None:
        name = f"{tiny.version.files[0].path}.gz"
        site.trouble[name] = ["half"]
        heard = Heard()
        fetch_data(tiny.only("https", site.url), tiny.cache, report=heard)
        assert site.requests.count(name) == 2
        assert "the connection ended after" in heard.said[0]
        assert "trying again" in heard.said[0]

    @pytest.mark.parametrize(
        ("act", "reason"),
        [("half", "the connection ended after"), ("busy", "HTTP 503 Service Unavailable"), ("hang", "timed out")],
    )
    def test_download_that_stays_broken_is_a_reason(
        self, tiny: Tiny, site: Site, act: str, reason: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sources, "SILENCE_SECONDS", 0.3)
        name = f"{tiny.version.files[0].path}.gz"
        site.trouble[name] = [act, act]
        with pytest.raises(DataUnavailable, match=f"{name}: .*{reason}") as caught:
            fetch_data(tiny.only("https", site.url), tiny.cache, report=Heard())
        assert tiny.version.files[1].path not in str(caught.value)  # the others came
        assert {path.name for path in tiny.folder.iterdir()} == {entry.path for entry in tiny.version.files[1:]}

    def test_wrong_content_is_never_kept(self, tiny: Tiny, site: Site) -> None:
        name = tiny.version.files[0].path
        (tiny.source / f"{name}.gz").write_bytes(gzip.compress(b"<html>please log in</html>"))
        with pytest.raises(DataUnavailable, match=f"{name} is half a file"):
            fetch_data(tiny.only("https", site.url), tiny.cache, report=Heard())
        assert not (tiny.folder / name).exists()

    def test_endless_and_exploding_files_are_cut_off(self, tiny: Tiny, site: Site) -> None:
        first, second = (entry.path for entry in tiny.version.files[:2])
        (tiny.source / f"{first}.gz").write_bytes(bytes(10_000_000))
        (tiny.source / f"{second}.gz").write_bytes(gzip.compress(bytes(10_000_000)))
        with pytest.raises(DataUnavailable, match=f"{first}.gz: more than") as caught:
            fetch_data(tiny.only("https", site.url), tiny.cache, report=Heard())
        assert f"{second} is longer than" in str(caught.value)

    def test_missing_file_is_a_reason(self, tiny: Tiny, site: Site) -> None:
        name = tiny.version.files[0].path
        (tiny.source / f"{name}.gz").unlink()
        with pytest.raises(DataUnavailable, match=f"{name}.gz and {name}: HTTP 404"):
            fetch_data(tiny.only("https", site.url), tiny.cache, report=Heard())

    def test_fetches_at_the_same_time_do_not_disturb_each_other(self, tiny: Tiny, site: Site) -> None:
        site.pause[0] = 0.005
        data = tiny.only("https", site.url)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: fetch_data(data, tiny.cache, report=Heard()), range(4)))
        assert sorted(path.name for path in tiny.folder.iterdir()) == sorted(e.path for e in tiny.version.files)
        assert len(dataset.load(tiny.data, tiny.cache).train) == 50

    def test_killed_fetch_leaves_no_half_file(self, tiny: Tiny, site: Site) -> None:
        site.pause[0] = 0.05
        data = tiny.only("https", site.url)
        command = [sys.executable, "-m", "fashion", "data", "fetch", *replace(tiny, data=data).words]
        fetching = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
        while not site.requests:
            time.sleep(0.02)
            assert fetching.poll() is None
        time.sleep(0.1)
        fetching.send_signal(signal.SIGKILL)
        fetching.wait()
        for entry in tiny.version.files:
            assert manifest.state(entry, tiny.folder) in ("missing", "verified")
        site.pause[0] = 0.0
        fetch_data(data, tiny.cache, report=Heard())
        assert len(dataset.load(tiny.data, tiny.cache).train) == 50

    @pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
    def test_certificates_are_checked(self, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
        command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=tiny -addext subjectAltName=IP:127.0.0.1"
        subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
        with serve(tiny.source, tls=(certificate, key)) as site:
            with pytest.raises(DataUnavailable, match="certificate verify failed"):
                fetch_data(tiny.only("https", site.url), tiny.cache, report=Heard())
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            fetch_data(tiny.only("https", site.url), tiny.cache, report=Heard())


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="a Debian package needs dpkg-deb")
class TestDebian:
    @pytest.fixture
    def package(self, tiny: Tiny, tmp_path: Path) -> Path:
        """A real package of the tiny data set."""
        tree = tmp_path / "tree"
        shutil.copytree(tiny.source, tree / "usr/share/datasets/tiny")
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN" / "control").write_text(
            "Package: dataset-tiny\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: x\n"
        )
        archive = tmp_path / "dataset-tiny_1_all.deb"
        subprocess.run(["dpkg-deb", "-b", tree, archive], check=True, capture_output=True)
        return archive

    @staticmethod
    def install_apt(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put an apt-get of our own first on the path: packages come over a network."""
        folder.mkdir()
        (folder / "apt-get").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "apt-get").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def test_package_is_downloaded_and_unpacked(
        self, tiny: Tiny, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        size = package.stat().st_size
        script = f"""
            case "$*" in
              *--print-uris*) echo "'http://deb/x.deb' {package.name} {size} SHA256:0";;
              *"download dataset-tiny"*) cp {package} . && sleep 0.3;;
              *) echo "E: unexpected $*" >&2; exit 100;;
            esac"""
        self.install_apt(tmp_path / "bin", script, monkeypatch)
        heard = Heard()
        fetch_data(tiny.only("debian", "dataset-tiny"), tiny.cache, report=heard)
        assert len(dataset.load(tiny.data, tiny.cache).train) == 50
        assert "100%" in heard.shown[-1]

    def test_package_lists_are_read_where_there_are_none(
        self, tiny: Tiny, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script = f"""
            case "$*" in
              *update*) touch {tmp_path}/updated;;
              *Dir::State=*download*) [ -e {tmp_path}/updated ] && cp {package} .;;
              *) echo "E: Unable to locate package dataset-tiny" >&2; exit 100;;
            esac"""
        self.install_apt(tmp_path / "bin", script, monkeypatch)
        heard = Heard()
        fetch_data(tiny.only("debian", "dataset-tiny"), tiny.cache, report=heard)
        assert "reading the package lists" in heard.said[0]

    @pytest.mark.parametrize(
        ("script", "reason"),
        [
            ("echo 'E: Unable to locate package dataset-tiny' >&2; exit 100", "Unable to locate package dataset-tiny"),
            ("echo 'W: x\nE: Could not connect' >&2; exit 100", "apt-get failed: Could not connect"),
            ("exit 3", "apt-get failed: exit code 3"),
            ("exit 0", "apt-get downloaded nothing"),
            ("echo rubbish > x.deb", "dpkg-deb failed"),
        ],
    )
    def test_what_apt_says_is_the_reason(
        self, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
    ) -> None:
        self.install_apt(tmp_path / "bin", script, monkeypatch)
        with pytest.raises(DataUnavailable, match=f"debian dataset-tiny: .*{reason}"):
            fetch_data(tiny.only("debian", "dataset-tiny"), tiny.cache, report=Heard())

    def test_installed_package_is_read_in_place(
        self, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.install_apt(tmp_path / "bin", "exit 1", monkeypatch)
        listing = "\n".join(f"echo {path}" for path in sorted(tiny.source.iterdir()))
        (tmp_path / "bin" / "dpkg-query").write_text(f"#!/bin/sh\n{listing}\n")
        (tmp_path / "bin" / "dpkg-query").chmod(0o755)
        fetch_data(tiny.only("debian", "dataset-tiny"), tiny.cache, report=Heard())


class TestBucket:
    @pytest.fixture(params=["bucket", "folder"])
    def shared(self, request: pytest.FixtureRequest, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tiny]:
        """The tiny data set, fetched, with an empty bucket as second source."""
        with bucket.serve("photos") as url:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
            address = "gs://photos/data" if request.param == "bucket" else str(tiny.cache.parent / "shared")
            data = replace(tiny.data, sources=(*tiny.data.sources, SourceConfig("bucket", address)))
            fetch_data(data, tiny.cache, report=Heard())
            yield replace(tiny, data=data)

    def test_what_is_pushed_can_be_fetched_with_nothing_else(self, shared: Tiny, tmp_path: Path) -> None:
        address = push_data(shared.data, shared.cache, report=Heard())
        heard = Heard()
        elsewhere = tmp_path / "elsewhere"
        fetch_data(shared.only("bucket", address), elsewhere, report=heard)
        assert len(dataset.load(shared.data, elsewhere).train) == 50
        assert len(heard.said) == 4
        assert "100%" in heard.shown[-1]

    def test_second_push_uploads_nothing(self, shared: Tiny) -> None:
        push_data(shared.data, shared.cache, report=Heard())
        heard = Heard()
        push_data(shared.data, shared.cache, report=heard)
        assert all("already in" in message for message in heard.said)

    def test_changed_file_is_never_pushed(self, shared: Tiny) -> None:
        path = shared.folder / shared.version.files[0].path
        path.write_bytes(path.read_bytes()[:-1] + b"\xff\xff")
        with pytest.raises(DataError, match=r"is longer than .*; run `fashion data fetch`, then push"):
            push_data(shared.data, shared.cache, report=Heard())

    def test_empty_bucket_is_a_reason(self, shared: Tiny, tmp_path: Path) -> None:
        data = shared.only("bucket", shared.data.sources[-1].address)
        with pytest.raises(DataUnavailable, match=r"bucket .*: there is no train-images-idx3-ubyte \(sha256/"):
            fetch_data(data, tmp_path / "elsewhere", report=Heard())

    def test_status_follows_the_bucket(self, shared: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["data", "status", *shared.words]) == 1
        assert "`fashion data push` uploads what is missing" in capsys.readouterr().out
        assert main(["data", "push", *shared.words]) == 0
        assert main(["data", "status", *shared.words]) == 0
        assert capsys.readouterr().out.count("present") == 5


class TestCommand:
    @pytest.fixture
    def run(self, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
        def run(*words: str, data: DataConfig = tiny.data) -> tuple[int, str, str]:
            code = main(["data", *words, *replace(tiny, data=data).words])
            return code, *capsys.readouterr()

        return run

    def test_fetch_then_verify_then_status(self, tiny: Tiny, run: Callable[..., tuple[int, str, str]]) -> None:
        code, out, _ = run("fetch")
        assert (code, out.strip()) == (0, f"tiny, version {tiny.version.digest[:12]}: complete in {tiny.folder}")
        code, out, _ = run("verify")
        assert code == 0
        assert "4 files verified" in out
        assert "train     50 images, 16 to 17 a class" in out
        code, out, _ = run("status")
        assert code == 0
        assert out.count("verified") == 4
        assert "bucket   none" in out

    def test_empty_cache_is_told(self, run: Callable[..., tuple[int, str, str]]) -> None:
        for verb in ("verify", "status"):
            code, out, err = run(verb)
            assert code == 1
            assert out.count("missing") >= 4
            assert "`fashion data fetch`" in out + err

    def test_file_changed_locally_is_told(self, tiny: Tiny, run: Callable[..., tuple[int, str, str]]) -> None:
        run("fetch")
        path = tiny.folder / tiny.version.files[0].path
        path.write_bytes(bytes(len(path.read_bytes())))
        for verb in ("verify", "status"):
            code, out, _ = run(verb)
            assert code == 1
            assert out.count("changed: train-images-idx3-ubyte differs from the manifest") == 1

    def test_push_without_bucket_names_the_remedy(self, run: Callable[..., tuple[int, str, str]]) -> None:
        run("fetch")
        code, _, err = run("push")
        assert code == 1
        assert "names no bucket: set FASHION_DATA_BUCKET=gs://bucket/prefix" in err

    def test_push_to_a_dead_bucket_is_one_sentence(
        self, tiny: Tiny, run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
        monkeypatch.setattr("fashion.storage.gcs.RETRY_SECONDS", 0.5)
        run("fetch")
        code, _, err = run("push", data=tiny.only("bucket", "gs://photos/x"))
        assert code == 1
        assert err.startswith("error: gs://photos/x cannot be used: ")
        assert err.count("\n") == 1

    def test_no_source_is_one_message(self, tiny: Tiny, run: Callable[..., tuple[int, str, str]]) -> None:
        code, _, err = run("fetch", data=tiny.only("folder", "/nowhere"))
        assert code == 1
        assert "Tried:\n  - folder /nowhere: no such folder\nWhat to do:" in err

    def test_wrong_key_is_one_sentence(self, run: Callable[..., tuple[int, str, str]]) -> None:
        code, _, err = run("fetch", "data.sise=3")
        assert code == 1
        assert "sise" in err
        assert "Traceback" not in err

    def test_command_runs_from_anywhere_without_a_traceback(self, tiny: Tiny, tmp_path: Path) -> None:
        words = [sys.executable, "-m", "fashion", "data", "verify", *tiny.words]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stdout.count("missing") == 4
        assert len(done.stderr.splitlines()) == 1


class TestAdd:
    @pytest.fixture
    def pictures(self, tmp_path: Path) -> Path:
        folder = tmp_path / "pictures"
        for split, count in (("train", 12), ("test", 3)):
            for label, name in enumerate(("t_shirt_top", "boot", "Bag")):
                (folder / split / name).mkdir(parents=True)
                for i, image in enumerate(numbered_images(count, start=1000 * label + (split == "test") * 500)):
                    Image.fromarray(image).save(folder / split / name / f"{i:03}.png")
        return folder

    @pytest.fixture
    def mine(self, tiny: Tiny, tmp_path: Path) -> Tiny:
        return replace(tiny, data=replace(tiny.data, manifest=str(tmp_path / "mine.manifest.json"), sources=()))

    def test_pictures_become_a_version(self, mine: Tiny, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["data", "add", str(pictures), *mine.words]) == 0
        assert "Commit " in capsys.readouterr().out
        assert main(["data", "verify", *mine.words]) == 0
        loaded = dataset.load(mine.data, mine.cache)
        assert np.bincount(loaded.train.labels).tolist() == [10, 10, 10]
        assert np.bincount(loaded.val.labels).tolist() == [2, 2, 2]
        assert sorted(numbers(loaded.test)) == [500, 501, 502, 1500, 1501, 1502, 2500, 2501, 2502]
        assert all(n // 1000 == label for n, label in zip(numbers(loaded.test), loaded.test.labels, strict=True))

    def test_same_pictures_are_the_same_version_and_others_another(self, mine: Tiny, pictures: Path) -> None:
        versions = []
        for _ in range(2):
            assert main(["data", "add", str(pictures), *mine.words]) == 0
            versions.append(manifest.read(mine.data).digest)
        (pictures / "train" / "boot" / "003.png").unlink()
        assert main(["data", "add", str(pictures), *mine.words]) == 0
        versions.append(manifest.read(mine.data).digest)
        assert versions[0] == versions[1] != versions[2]

    def test_idx_files_become_a_version(self, mine: Tiny, tiny: Tiny) -> None:
        assert main(["data", "add", str(tiny.source), *mine.words]) == 0
        assert {e.sha256 for e in manifest.read(mine.data).files} == {e.sha256 for e in tiny.version.files}

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda f: (f / "train" / "boot").rename(f / "train" / "hat"), "hat is named after no class; the classes"),
            (lambda f: (f / "train" / "boot" / "x.txt").write_text("x"), "x.txt is not a picture that can be read"),
            (lambda f: Image.new("L", (9, 8)).save(f / "test" / "boot" / "x.png"), "x.png is 9x8 pixels, not 8x8"),
            (lambda f: shutil.rmtree(f / "test"), "must hold train/<class>/ and test/<class>/"),
            (lambda f: shutil.rmtree(f / "test" / "Bag"), "test has no image of Bag"),
            (lambda f: [shutil.rmtree(path) for path in (f / "test").iterdir()], "holds no pictures"),
            (lambda f: shutil.rmtree(f), "there is no folder"),
            (lambda f: (f / "train-labels-idx1-ubyte").write_bytes(b""), "but has only train-labels-idx1-ubyte"),
        ],
    )
    def test_what_is_wrong_is_named_and_nothing_is_written(
        self,
        mine: Tiny,
        pictures: Path,
        change: Callable[[Path], object],
        reason: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        change(pictures)
        assert main(["data", "add", str(pictures), *mine.words]) == 1
        assert reason in capsys.readouterr().err
        assert not Path(mine.data.manifest).exists()


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class TestTerminal:
    def test_progress_stays_on_one_line_of_a_terminal(self) -> None:
        screen = Screen()
        terminal = Terminal(screen)
        time.sleep(0.11)
        terminal.progress("10%")
        terminal.progress("11%")  # too soon to be worth drawing
        terminal.say("done")
        assert screen.getvalue() == "\r\x1b[2K10%\r\x1b[2Kdone\n"

    def test_progress_is_a_line_now_and_then_in_a_log(self) -> None:
        log = io.StringIO()
        terminal = Terminal(log, seconds_between_lines=0.05)
        terminal.progress("1%")
        time.sleep(0.06)
        terminal.progress("50%")
        terminal.progress("51%")
        terminal.say("done")
        assert log.getvalue() == "50%\ndone\n"
