"""A worker of the service, in this process: what it refuses to open, and what it writes."""

import asyncio
import shutil
import time
from pathlib import Path

import pytest
from support.pictures import garment, saved

from bentos.classifier.deployment import Deployment
from bentos.classifier.worker import Worker
from bentos.web.memory import MOST_WAITING, Memory
from bentos.web.request_metrics import Identity
from bentos.web.uploads import Part
from fashion.config.compose import compose, load_as
from fashion.config.serve import ServeConfig
from fashion.home import current_home
from fashion.images.memory import decoding_bytes
from fashion.model.package import MODEL, DamagedPackage, Package


def open_worker(model: Path, root: Path, monkeypatch: pytest.MonkeyPatch, **described: str) -> Worker:
    monkeypatch.setenv("FASHION_HOME", str(root))
    settings = load_as(ServeConfig, compose(root=ServeConfig.root)).serve
    deployment = Deployment(settings, {"name": "fashion", "version": "1", **described}, None, str(root))
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


def test_a_batch_of_large_pictures_does_not_wait_for_itself(
    tiny_package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny_package.folder is not None
    picture = Part("images", "x.png", saved(garment(size=(1100, 1100)), "PNG"))
    worker = open_worker(tiny_package.folder, tmp_path / "var", monkeypatch)
    monkeypatch.setattr(worker, "_decoding", Memory(decoding_bytes(picture.data, 10**8)))  # one at a time
    try:
        files = [picture] * (MOST_WAITING + 2)
        answer = asyncio.run(worker.predict_batch(files, client=None, started=time.perf_counter()))
    finally:
        worker.close()
    assert answer.predicted == len(files)


def test_a_model_that_the_bento_was_not_built_of_is_not_served(
    tiny_package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny_package.folder is not None
    with pytest.raises(DamagedPackage, match="another package than the one that the bento was built of"):
        open_worker(tiny_package.folder, tmp_path / "var", monkeypatch, digest="0" * 64)
    open_worker(tiny_package.folder, tmp_path / "var", monkeypatch, digest=tiny_package.digest).close()
