"""A training repeated by the script that `fashion registry reproduce` runs, while the data have changed."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiny_dataset import TinyDataset, make_tiny, numbered_images

from fashion.config.compose import as_dict, compose
from fashion.config.train import load_train_config
from fashion.data import manifest
from fashion.home import REPOSITORY


def weights_of(tiny: TinyDataset, version: manifest.Manifest, home: Path) -> str:
    """Train a small network for one epoch on a version; returns the sha256 of its weights."""
    words = ["architecture.kwargs.widths=[4,8]", "training.num_epochs=1", "tuning=off"]
    config = load_train_config(compose([*tiny.overrides, f"data.val_fraction={1 / 6}", *words]))
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "flows" / "reproduce.py")],
        input=json.dumps({"config": as_dict(config), "data_version": dataclasses.asdict(version)}),
        env={**os.environ, "FASHION_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout.splitlines()[-1])["weights"])


@pytest.mark.slow
@pytest.mark.fault("the data were changed since a version was trained")
def test_a_version_is_trained_again_on_its_own_data(tmp_path: Path) -> None:
    (tmp_path / "now").mkdir()
    before = make_tiny(tmp_path)
    now = make_tiny(tmp_path / "now", {"train": numbered_images(60, start=7), "test": numbered_images(12, start=900)})
    first = weights_of(before, before.version, tmp_path / "home")
    manifest.write(now.version, manifest.locate(before.data))
    assert weights_of(before, before.version, tmp_path / "home") == first
