"""Loading a version in one call, and only the one that a model was trained on."""

import shutil
from dataclasses import replace

import pytest
from support.tiny_dataset import RecordingReporter, TinyDataset

from fashion.data import dataset, manifest
from fashion.data.fetch import DataUnavailable
from fashion.data.loading import find_version, load_dataset, load_training_data
from fashion.data.manifest import DataError


def test_missing_files_are_fetched_then_loaded(tiny: TinyDataset) -> None:
    reporter = RecordingReporter()
    loaded = load_dataset(tiny.data, tiny.cache, reporter=reporter)
    assert len(reporter.messages) == 4
    assert loaded.digest == tiny.version.digest
    assert len(loaded.train) == 50


def test_cached_files_are_loaded_without_a_source(tiny: TinyDataset) -> None:
    load_dataset(tiny.data, tiny.cache, reporter=RecordingReporter())
    reporter = RecordingReporter()
    assert len(load_dataset(tiny.only("folder", "/nowhere"), tiny.cache, reporter=reporter).train) == 50
    assert reporter.messages == []


def test_no_source_is_an_error(tiny: TinyDataset) -> None:
    with pytest.raises(DataUnavailable, match="no such folder"):
        load_dataset(tiny.only("folder", "/nowhere"), tiny.cache, reporter=RecordingReporter())


def test_training_data_is_the_version_of_the_model(tiny: TinyDataset, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load_training_data(tiny.data, tiny.version.digest, purpose="gallery")
    assert loaded is not None
    assert loaded.digest == tiny.version.digest
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("digest", ["0" * 64, None])
def test_another_version_is_none_with_a_reason(
    tiny: TinyDataset, digest: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_training_data(tiny.data, digest, purpose="gallery") is None
    assert capsys.readouterr().out.startswith("no gallery: the model was not trained on tiny; choose its data set")


def test_unavailable_data_is_none_with_a_reason(tiny: TinyDataset, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny.only("folder", "/nowhere")
    assert load_training_data(data, tiny.version.digest, purpose="gallery") is None
    assert capsys.readouterr().out.startswith("no gallery: tiny: ")


@pytest.mark.fault("the data are changed while a run is under way")
def test_a_version_is_loaded_though_its_manifest_was_replaced_since(
    tiny: TinyDataset,
) -> None:
    version = manifest.read(tiny.data)
    load_dataset(tiny.data, tiny.cache, reporter=RecordingReporter())
    replace_manifest(tiny)
    loaded = load_dataset(tiny.data, tiny.cache, version=version, reporter=RecordingReporter())
    assert loaded.digest == version.digest != manifest.read(tiny.data).digest
    shutil.rmtree(tiny.cache)
    with pytest.raises(DataUnavailable, match="no such folder"):
        load_dataset(tiny.only("folder", "/nowhere"), tiny.cache, version=version, reporter=RecordingReporter())


@pytest.mark.fault("the data were changed since a version was trained")
@pytest.mark.parametrize("known_by", ["files", "record", "record without files", "present manifest"])
def test_a_former_version_is_found_by_its_record_or_its_files(tiny: TinyDataset, known_by: str) -> None:
    digest, recorded = tiny.version.digest, manifest.serialize(tiny.version).encode()
    load_dataset(tiny.data, tiny.cache, reporter=RecordingReporter())
    if known_by != "present manifest":
        replace_manifest(tiny)
    if known_by in ("record without files", "present manifest"):
        shutil.rmtree(tiny.folder)  # then they come from the source again
    found = find_version(tiny.data, digest, tiny.cache, recorded=recorded if "record" in known_by else None)
    assert found == tiny.version
    assert dataset.load(tiny.data, tiny.cache, version=found).digest == digest


@pytest.mark.fault("the files of a version that has to be trained again are gone")
@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_version_whose_files_are_gone_is_refused(tiny: TinyDataset, is_recorded: bool) -> None:
    load_dataset(tiny.data, tiny.cache, reporter=RecordingReporter())
    replace_manifest(tiny)
    (tiny.folder / "train-labels-idx1-ubyte").unlink()
    data, recorded = tiny.only("folder", "/nowhere"), manifest.serialize(tiny.version).encode()
    told = "no such folder" if is_recorded else f"^the files of tiny {tiny.version.digest[:12]} are gone from "
    with pytest.raises(DataError, match=told):
        find_version(data, tiny.version.digest, tiny.cache, recorded=recorded if is_recorded else None)


def replace_manifest(tiny: TinyDataset) -> None:
    """As `fashion data add` does once there are more pictures."""
    changed = replace(tiny.version, files=tuple(replace(entry, sha256="0" * 64) for entry in tiny.version.files))
    manifest.write(changed, manifest.locate(tiny.data))
