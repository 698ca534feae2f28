"""Manifests: digests change with the data, and whatever is no manifest of the data config is rejected."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.tiny_dataset import TinyDataset

from fashion.data import manifest
from fashion.data.manifest import DataError


def test_digest_changes_with_any_byte_of_the_data(tiny: TinyDataset) -> None:
    entry = tiny.version.files[0]
    other = replace(tiny.version, files=(replace(entry, sha256="0" * 64), *tiny.version.files[1:]))
    assert len(tiny.version.digest) == 64
    assert other.digest != tiny.version.digest


def test_written_manifest_is_read_back(tiny: TinyDataset) -> None:
    assert manifest.read(tiny.data) == tiny.version


def test_missing_manifest_names_the_remedy(tiny: TinyDataset) -> None:
    with pytest.raises(DataError, match=r"there is no manifest .*; `fashion data add"):
        manifest.read(replace(tiny.data, manifest="configs/data/nothing.json"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "tiny", "num_classes": 3, "files": []}', '{"files": 3}'])
def test_text_that_is_not_a_manifest_is_rejected(tiny: TinyDataset, text: str) -> None:
    Path(tiny.data.manifest).write_text(text)
    with pytest.raises(DataError, match="is not a manifest"):
        manifest.read(tiny.data)


def test_files_outside_the_cache_are_rejected(tiny: TinyDataset) -> None:
    entry = replace(tiny.version.files[0], path="../../.bashrc")
    manifest.write(replace(tiny.version, files=(entry, *tiny.version.files[1:])), Path(tiny.data.manifest))
    with pytest.raises(DataError, match="names without folders"):
        manifest.read(tiny.data)


def test_manifest_of_other_data_is_rejected(tiny: TinyDataset) -> None:
    with pytest.raises(DataError, match="describes 'tiny' with 3 classes, but the data config describes 'tiny' with 2"):
        manifest.read(replace(tiny.data, class_names=("a", "b")))
