"""A worker of the service, in this process: what it refuses to open, and what it writes."""

import asyncio
import shutil
import time
from pathlib import Path

import pytest
from support.log_rows import record as logged
from support.pictures import garment, saved

from bentos.classifier import monitoring
from bentos.classifier.deployment import Deployment
from bentos.classifier.records import Records
from bentos.classifier.schemas import FeedbackRequest
from bentos.classifier.shipping import Shipping
from bentos.classifier.worker import Worker
from bentos.web.memory import MOST_WAITING, Memory
from bentos.web.request_metrics import Identity
from bentos.web.responses import ApiError
from bentos.web.uploads import Part
from fashion.config.compose import compose, load_as
from fashion.config.serve import ServeConfig
from fashion.home import current_home
from fashion.images.memory import decoding_bytes
from fashion.model.package import MODEL, DamagedPackage, Package
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import ModelId
from fashion.predictions.slots import SPANS


def open_worker(
    model: Path, root: Path, monkeypatch: pytest.MonkeyPatch, *, shadow_digest: str | None = None, **described: str
) -> Worker:
    """Open a worker; with a digest, the same package is its shadow, as version 2, by that digest."""
    monkeypatch.setenv("FASHION_HOME", str(root))
    settings = load_as(ServeConfig, compose(root=ServeConfig.root)).serve
    shadow = None if shadow_digest is None else {"name": "fashion", "version": "2", "digest": shadow_digest}
    deployment = Deployment(settings, {"name": "fashion", "version": "1", **described}, shadow)
    identity = Identity("fashion-classifier", "1", "Classifier", None)
    scores = None if shadow is None else model
    return Worker(deployment, current_home(), {}, model=model, shadow=scores, folder=root, identity=identity)


@pytest.mark.fault("damaged model in a bento")
def test_a_damaged_model_is_not_served(tiny_package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tiny_package.folder is not None
    shutil.copytree(tiny_package.folder, tmp_path / "model")
    network = (tmp_path / "model" / MODEL).read_bytes()
    (tmp_path / "model" / MODEL).write_bytes(network[:-1] + bytes([network[-1] ^ 1]))
    with pytest.raises(DamagedPackage, match=MODEL):
        open_worker(tmp_path / "model", tmp_path / "var", monkeypatch)
    assert not (tmp_path / "var").exists()


@pytest.mark.fault("the shadow in a bento was exchanged for another package")
@pytest.mark.parametrize("is_exchanged", [False, True])
def test_another_package_than_the_shadow_that_was_deployed_scores_nothing(
    tiny_package: Package,
    pngs: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_exchanged: bool,
) -> None:
    assert tiny_package.folder is not None
    digest = "0" * 64 if is_exchanged else tiny_package.digest
    worker = open_worker(tiny_package.folder, tmp_path / "var", monkeypatch, shadow_digest=digest)
    try:
        asyncio.run(worker.predict(pngs[0], explain=False, client=None, started=time.perf_counter()))
        deadline = time.monotonic() + 20
        while not is_exchanged and not any(worker.log.latest(1, role="shadow")) and time.monotonic() < deadline:
            time.sleep(0.02)
        rows = list(worker.log.latest(10, role="shadow"))
    finally:
        worker.close()
    assert [each.record.model_version for each in rows] == ([] if is_exchanged else ["2"])
    sentence = "the shadow, version 2, scores nothing: "
    assert (sentence in caplog.text) == ("is another package than the one" in caplog.text) == is_exchanged


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
    assert {path.name.partition("-")[0] for path in (tmp_path / "var").iterdir()} == {"predictions.db", "serving"}


def test_a_batch_of_large_pictures_does_not_wait_for_itself(
    tiny_package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny_package.folder is not None
    picture = Part("images", "x.png", saved(garment(size=(1100, 1100)), "PNG"))
    worker = open_worker(tiny_package.folder, tmp_path / "var", monkeypatch)
    monkeypatch.setattr(worker._decoder, "_memory", Memory(decoding_bytes(picture.data, 10**8)))  # one at a time
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


def test_every_answer_and_row_names_the_package_that_made_it(
    tiny_package: Package, pngs: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny_package.folder is not None
    worker = open_worker(tiny_package.folder, tmp_path / "var", monkeypatch)
    try:
        answer = asyncio.run(worker.predict(pngs[0], explain=False, client=None, started=time.perf_counter()))
        read = asyncio.run(worker.records.read(answer.prediction_id))
        record = worker.log.get(answer.prediction_id).record
        assert (answer.model.name, answer.model.version, answer.model.digest) == ("fashion", "1", tiny_package.digest)
        assert record.model == ("fashion", "1", tiny_package.digest[:16])
        assert (read.model_name, read.model_version, read.model_digest) == record.model
        assert worker.model_info().digest == tiny_package.digest
    finally:
        worker.close()


def test_a_logged_prediction_is_as_typical_as_its_answer_said(
    tiny_package: Package, pngs: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny_package.folder is not None
    worker = open_worker(tiny_package.folder, tmp_path / "var", monkeypatch)
    other = logged(model_name="fashion", label=3, probabilities=(0.1,) * 10)  # of a version that is not loaded
    try:
        for png in pngs[:20]:
            answer = asyncio.run(worker.predict(png, explain=False, client=None, started=time.perf_counter()))
            read = asyncio.run(worker.records.read(answer.prediction_id))
            assert read.typicality is not None
            assert read.typicality == answer.typicality
        worker.log.append([other])
        assert asyncio.run(worker.records.read(other.prediction_id)).typicality is None
    finally:
        worker.close()


@pytest.mark.fault("two models share a log")
def test_predictions_of_another_model_are_not_described_by_this_ones_classes(
    tiny_package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny_package.folder is not None
    worker = open_worker(tiny_package.folder, tmp_path / "var", monkeypatch)
    tenth = {"label": 3, "probabilities": (0.1,) * 10}
    other = logged(model_name="bags", **tenth)
    try:
        worker.log.append([other, logged(model_name="fashion", **tenth)])
        assert asyncio.run(worker.records.read(other.prediction_id)).label == "3"
        with pytest.raises(ApiError, match="is of bags version 3 .*, which is not served here") as refused:
            asyncio.run(worker.records.add_feedback(FeedbackRequest(other.prediction_id, "Coat")))
        assert (refused.value.status, refused.value.code) == (422, "other_model")
        table = f"prediction_id,true_label\n{other.prediction_id},Coat\n".encode()
        assert asyncio.run(worker.records.add_feedback_table(table)).refused == 1
        page = monitoring.page(worker, SPANS["day"])
        assert "1 more are of other models, and are not counted here" in page
        assert "<dt>Predictions</dt><dd>1<" in page
    finally:
        worker.close()


@pytest.mark.parametrize(("label", "meant"), [("1", "1"), (1, "1"), ("3", "3"), (2, "2"), ("0", None), (0, None)])
def test_a_label_means_the_same_as_json_and_as_csv(label: str | int, meant: str | None, tmp_path: Path) -> None:
    model = ModelId("digits", "1", "0" * 16)
    row = logged(model_name="digits", probabilities=(0.2, 0.5, 0.3))
    with PredictionLog(tmp_path / "log.db") as log:
        log.append([row])
        shipping = Shipping(log, current_home(), load_as(ServeConfig, compose(root=ServeConfig.root)).serve.log)
        records = Records(log, shipping, model, ("1", "2", "3"), {})
        table = f"prediction_id,true_label\n{row.prediction_id},{label}\n".encode()
        read = asyncio.run(records.add_feedback_table(table))
        assert (read.accepted, read.refused) == ((1, 0) if meant else (0, 1))
        if meant is None:
            assert "true_label must be one of 1, 2, 3, got '0'" in read.errors[0].message
            with pytest.raises(ApiError, match="true_label must be one of 1, 2, 3, got '0'"):
                asyncio.run(records.add_feedback(FeedbackRequest(row.prediction_id, label)))
            return
        assert asyncio.run(records.add_feedback(FeedbackRequest(row.prediction_id, label))).true_label == meant
        found = asyncio.run(records.read(row.prediction_id)).feedback
        assert {each.true_label for each in found} == {meant}
