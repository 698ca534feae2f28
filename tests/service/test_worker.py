"""A worker of the service, in this process: what it refuses to open, and what it writes."""

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from bentos.classifier.deployment import Deployment
from bentos.classifier.worker import Worker
from bentos.web.request_metrics import Identity
from fashion.config.compose import compose, load_as
from fashion.config.serve import ServeConfig
from fashion.home import current_home
from fashion.model.package import MODEL, DamagedPackage, Package


def open_worker(model: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setenv("FASHION_HOME", str(root))
    settings = load_as(ServeConfig, compose(root=ServeConfig.root)).serve
    deployment = Deployment(settings, {"name": "fashion", "version": "1"}, None, str(root))
    identity = Identity("fashion-classifier", "1", "Classifier", None)
    return Worker(deployment, current_home(), {}, model=model, shadow=None, folder=root, identity=identity)


def test_a_damaged_model_is_not_served(tiny_package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tiny_package.folder is not None
    shutil.copytree(tiny_package.folder, tmp_path / "model")
    network = (tmp_path / "model" / MODEL).read_bytes()
    (tmp_path / "model" / MODEL).write_bytes(network[:-1] + bytes([network[-1] ^ 1]))
    with pytest.raises(DamagedPackage, match=MODEL):
        open_worker(tmp_path / "model", tmp_path / "var", monkeypatch)
    assert not (tmp_path / "var").exists()


def test_pictures_are_stored_only_where_that_is_configured(
    tiny_package: Package, pngs: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny_package.folder is not None
    worker = open_worker(tiny_package.folder, tmp_path / "var", monkeypatch)
    try:
        answer = asyncio.run(worker.predict(pngs[0], explain=False, client=None, started=time.perf_counter()))
    finally:
        worker.close()
    assert answer.prediction_id
    assert {path.name.partition("-")[0] for path in (tmp_path / "var").iterdir()} == {"predictions.db"}
