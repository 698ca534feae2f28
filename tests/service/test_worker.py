"""The desk of one worker, in this process: what it does not open with, and what it writes."""

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from bentos.classifier.worker import Deployment, Worker
from fashion.config.compose import compose, load_as
from fashion.config.serve import ServeConfig
from fashion.home import current_home
from fashion.model.package import MODEL, DamagedPackage, Package


def opened(model: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setenv("FASHION_HOME", str(root))
    settings = load_as(ServeConfig, compose(root=ServeConfig.root)).serve
    deployment = Deployment(settings, {"name": "fashion", "version": "1"}, None, str(root))
    return Worker(deployment, current_home(), {}, model=model, shadow=None, folder=root)


def test_a_model_that_was_damaged_since_it_was_deployed_is_not_served(
    tiny_package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny_package.folder is not None
    shutil.copytree(tiny_package.folder, tmp_path / "model")
    network = (tmp_path / "model" / MODEL).read_bytes()
    (tmp_path / "model" / MODEL).write_bytes(network[:-1] + bytes([network[-1] ^ 1]))
    with pytest.raises(DamagedPackage, match=MODEL):
        opened(tmp_path / "model", tmp_path / "var", monkeypatch)
    assert not (tmp_path / "var").exists()


def test_pictures_are_kept_only_where_that_is_asked_for(
    tiny_package: Package, pngs: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny_package.folder is not None
    desk = opened(tiny_package.folder, tmp_path / "var", monkeypatch)
    try:
        told = asyncio.run(desk.predict(pngs[0], explain=False, client=None, started=time.perf_counter()))
    finally:
        desk.close()
    assert told["prediction_id"]
    assert {path.name.partition("-")[0] for path in (tmp_path / "var").iterdir()} == {"predictions.db"}
