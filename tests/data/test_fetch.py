"""Fetching into the cache: verified, repaired, atomic; the first source that has a file gives it."""

import gzip
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.tiny_dataset import RecordingReporter, TinyDataset, make_tiny, numbered_images

from fashion.config.schema import SourceConfig
from fashion.data import dataset
from fashion.data.fetch import DataUnavailable, fetch_data
from fashion.data.manifest import DataError


def test_second_fetch_changes_no_file(tiny: TinyDataset) -> None:
    fetch_data(tiny.data, tiny.cache, reporter=RecordingReporter())
    before = {path: path.stat().st_mtime_ns for path in tiny.folder.iterdir()}
    shutil.rmtree(tiny.source)
    reporter = RecordingReporter()
    fetch_data(tiny.data, tiny.cache, reporter=reporter)
    assert reporter.messages == []
    assert {path: path.stat().st_mtime_ns for path in tiny.folder.iterdir()} == before


@pytest.mark.fault("damaged data file")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c[: len(c) // 2], "is cut off"),
        (lambda c: c[:-1] + bytes([c[-1] ^ 1]), "differs from the manifest's sha256"),
        (lambda c: c + b"x", "is longer than"),
    ],
)
def test_damaged_file_is_named_removed_and_fetched_again(
    tiny: TinyDataset, change: Callable[[bytes], bytes], reason: str
) -> None:
    fetch_data(tiny.data, tiny.cache, reporter=RecordingReporter())
    path = tiny.folder / tiny.version.files[0].path
    right = path.read_bytes()
    path.write_bytes(change(right))
    reporter = RecordingReporter()
    fetch_data(tiny.data, tiny.cache, reporter=reporter)
    assert reporter.messages[0].startswith(f"removed {path}: ")
    assert reason in reporter.messages[0]
    assert len(reporter.messages) == 2  # the other three files are not fetched again
    assert path.read_bytes() == right


@pytest.mark.fault("damaged data file, no source")
def test_damaged_file_is_removed_even_without_a_source(tiny: TinyDataset) -> None:
    fetch_data(tiny.data, tiny.cache, reporter=RecordingReporter())
    path = tiny.folder / tiny.version.files[0].path
    path.write_bytes(b"half")
    shutil.rmtree(tiny.source)
    with pytest.raises(DataUnavailable, match=path.name):
        fetch_data(tiny.data, tiny.cache, reporter=RecordingReporter())
    assert not path.exists()


def test_files_without_gzip_are_accepted(tiny: TinyDataset) -> None:
    for path in list(tiny.source.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    fetch_data(tiny.data, tiny.cache, reporter=RecordingReporter())
    assert len(dataset.load(tiny.data, tiny.cache).test) == 12


def test_another_gzip_envelope_is_the_same_content(tiny: TinyDataset) -> None:
    for path in tiny.source.iterdir():
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=1))
    fetch_data(tiny.data, tiny.cache, reporter=RecordingReporter())


def test_first_source_that_has_a_file_gives_it(tiny: TinyDataset, tmp_path: Path) -> None:
    partial_folder = tmp_path / "partial"
    partial_folder.mkdir()
    name = tiny.version.files[1].path
    shutil.copy(tiny.source / f"{name}.gz", partial_folder)
    bad = tmp_path / "bad"
    shutil.copytree(tiny.source, bad)
    (bad / f"{tiny.version.files[0].path}.gz").write_bytes(b"\x1f\x8b half")
    folders = [tmp_path / "nowhere", partial_folder, bad, tiny.source]
    reporter = RecordingReporter()
    data = replace(tiny.data, sources=tuple(SourceConfig("folder", str(folder)) for folder in folders))
    fetch_data(data, tiny.cache, reporter=reporter)
    sources_used = {message.split(":")[0]: message.split("folder ")[1].split(",")[0] for message in reporter.messages}
    assert sources_used == {
        tiny.version.files[0].path: str(tiny.source),
        name: str(partial_folder),
        tiny.version.files[2].path: str(bad),
        tiny.version.files[3].path: str(bad),
    }


def test_error_lists_every_source_that_was_tried(
    tiny: TinyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
            SourceConfig("bucket", "ftp://tiny"),
        ),
    )
    with pytest.raises(DataUnavailable) as caught:
        fetch_data(data, tiny.cache, reporter=RecordingReporter())
    message = str(caught.value)
    assert f"folder {tmp_path / 'nowhere'}: no such folder" in message
    assert f"folder {tmp_path / 'empty'}: there is no train-images-idx3-ubyte.gz or" in message
    assert "debian dataset-tiny: there is no apt-get on this machine" in message
    assert "https http://127.0.0.1:9/tiny: [Errno 111] Connection refused" in message
    assert "https ftp://127.0.0.1/tiny: not an https:// address" in message
    assert "bucket: no address; set FASHION_DATA_BUCKET to gs://, s3:// or az://bucket/prefix" in message
    assert "bucket ftp://tiny: 'ftp://tiny' is not the address of a store" in message
    assert "What to do: " in message


def test_cache_that_cannot_be_written_is_named(tiny: TinyDataset) -> None:
    tiny.cache.parent.mkdir()
    tiny.cache.write_bytes(b"in the way")
    with pytest.raises(DataError, match=r"cannot be used .*; set FASHION_HOME"):
        fetch_data(tiny.data, tiny.cache, reporter=RecordingReporter())


def test_versions_have_separate_folders(tiny: TinyDataset, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_tiny(tmp_path / "other", {"train": numbered_images(60, start=7), "test": numbered_images(12)})
    fetch_data(tiny.data, tiny.cache, reporter=RecordingReporter())
    fetch_data(other.data, tiny.cache, reporter=RecordingReporter())
    assert dataset.load(tiny.data, tiny.cache).digest == tiny.version.digest
    assert dataset.load(other.data, tiny.cache).digest == other.version.digest


def test_old_temporary_files_are_removed(tiny: TinyDataset) -> None:
    tiny.folder.mkdir(parents=True)
    old, new = tiny.folder / ".train.0.part", tiny.folder / ".train.1.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    fetch_data(tiny.data, tiny.cache, reporter=RecordingReporter())
    assert not old.exists()
    assert new.exists()  # may be of a fetch that goes on
