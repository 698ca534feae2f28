"""What was accepted of a version is the reference of the next one too, where its pictures are stored."""

import time
from pathlib import Path

import numpy as np
import pytest
from conftest import evaluate_network
from support import shifts
from support.imagined import decide
from support.machine import Machine
from support.networks import swapped_classes

from fashion.config.names import MODEL_NAME
from fashion.data.dataset import Dataset
from fashion.drift import accepted
from fashion.drift.references import References, VersionReference
from fashion.home import Home, current_home
from fashion.images import image_store
from fashion.images.transform import Images
from fashion.model import package
from fashion.model.package import Package
from fashion.model.predictor import Predictor
from fashion.predictions.batch import Batch
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import UNLABELLED, ModelId, PredictionRecord, new_prediction_id
from fashion.registry import tracking, versions
from fashion.storage.address import open_store
from fashion.storage.blobs import Store

ACCEPTED, LATER = slice(0, 400), slice(400, 800)


@pytest.fixture(scope="module")
def retrained(tiny_network: bytes, small_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A package of another network: what it says of the same picture is something else."""
    evaluation = evaluate_network(swapped_classes(tiny_network, 1, 9), small_dataset)
    return package.write(evaluation.package, tmp_path_factory.mktemp("retrained") / "package", evaluation.files)


@pytest.fixture(scope="module")
def dark(small_dataset: Dataset) -> Images:
    """Pictures of a new studio."""
    return shifts.apply(small_dataset.test.images, "darker")


@pytest.fixture
def registered(mlflow_home: Home, tiny_package: Package, retrained: Package) -> tuple[ModelId, ModelId]:
    """Versions 1 and 2."""
    experiment = tracking.get_or_create_experiment(mlflow_home, "fashion")
    return register(experiment, tiny_package), register(experiment, retrained)


def register(experiment: str, each: Package) -> ModelId:
    """Register a package as the next version."""
    assert each.folder is not None
    run = tracking.start_run(experiment, "run", {})
    number = versions.register(versions.log_package(run, each.folder), run_id=run, tags={}).number
    return ModelId.of(MODEL_NAME, number, each.digest)


@pytest.fixture
def reports(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "reports"))


@pytest.fixture
def images(tmp_path: Path, dark: Images) -> Store:
    """Holds the pictures of the accepted window."""
    store = open_store(str(tmp_path / "images"))
    for image in dark[ACCEPTED]:
        image_store.put(store, image, image_store.digest(image))
    return store


def accept(reports: Store, model: ModelId, of: Package, pictures: Images) -> Batch:
    rows = len(pictures)
    batch = Batch(
        Predictor(of).predict(pictures),
        np.full(rows, UNLABELLED),
        np.arange(rows),
        [new_prediction_id() for _ in range(rows)],
        [image_store.digest(image) for image in pictures],
        [model] * rows,
    )
    accepted.accept(reports, model, "R1", [batch], classes=len(of.class_names), min_pictures=1)
    return batch


def load(model: ModelId, folder: Path, reports: Store, images: Store) -> tuple[VersionReference, list[str]]:
    """The reference of a version as one drift run sees it, and what that run says."""
    references = References(MODEL_NAME, folder / f"packages{time.monotonic_ns()}", reports, images)
    found = references.load(model)
    assert found is not None
    return found, references.notes


def test_an_accepted_change_is_the_reference_of_the_next_version_too(
    registered: tuple[ModelId, ModelId],
    tiny_package: Package,
    retrained: Package,
    dark: Images,
    reports: Store,
    images: Store,
    tmp_path: Path,
) -> None:
    first, second = registered
    later = Predictor(retrained).predict(dark[LATER])
    before, notes = load(second, tmp_path, reports, images)
    assert (decide(before.stats(), later).decision, notes) == ("drift", [])
    accept(reports, first, tiny_package, dark[ACCEPTED])
    after, notes = load(second, tmp_path, reports, images)
    assert notes == ["version 2 is compared with 400 rows that were accepted of version 1, predicted anew"]
    assert decide(after.stats(), later).decision == "no_drift"
    assert after.accepted is not None
    expected = dict(
        zip(map(image_store.digest, dark[ACCEPTED]), Predictor(retrained).predict(dark[ACCEPTED]).labels, strict=True)
    )
    found = dict(zip(after.accepted.images.tolist(), after.accepted.predictions.labels, strict=True))
    assert found == expected  # of the second version, not what the first one had said
    again, notes = load(second, tmp_path, reports, images)  # once
    assert (again.accepted_rows, notes) == (400, [])


@pytest.mark.fault("pictures of an accepted window that are not stored")
def test_without_its_pictures_it_is_to_be_accepted_again(
    registered: tuple[ModelId, ModelId],
    tiny_package: Package,
    retrained: Package,
    dark: Images,
    reports: Store,
    images: Store,
    tmp_path: Path,
) -> None:
    first, second = registered
    rows = accept(reports, first, tiny_package, dark[ACCEPTED])
    for sha256 in rows.image_sha256[:60]:
        image_store.delete(images, sha256)
    for _ in range(2):
        found, (note,) = load(second, tmp_path, reports, images)
        assert found.accepted is None
        assert note == (
            "what was accepted of version 1 is not the reference of version 2, for only 340 of its 400 pictures are "
            "stored (serve.log.images=true stores them): accept a report of version 2 again with `fashion drift accept`"
        )
    accept(reports, second, retrained, dark[LATER])
    found, notes = load(second, tmp_path, reports, images)
    assert (found.accepted_rows, notes) == (400, [])


def test_few_pictures_that_are_missing_are_left_out(
    registered: tuple[ModelId, ModelId],
    tiny_package: Package,
    dark: Images,
    reports: Store,
    images: Store,
    tmp_path: Path,
) -> None:
    first, second = registered
    rows = accept(reports, first, tiny_package, dark[ACCEPTED])
    image_store.delete(images, rows.image_sha256[0])
    found, _ = load(second, tmp_path, reports, images)
    assert found.accepted_rows == 399
    assert found.accepted is not None
    assert rows.image_sha256[0] not in found.accepted.images
    assert accepted.forget(reports, rows.prediction_ids[1]) == 2  # of both versions
    assert load(second, tmp_path, reports, images)[0].accepted_rows == 398


@pytest.mark.parametrize("undone", [0, 1])
def test_an_undone_acceptance_is_not_carried_over(
    registered: tuple[ModelId, ModelId],
    tiny_package: Package,
    dark: Images,
    reports: Store,
    images: Store,
    tmp_path: Path,
    undone: int,
) -> None:
    accept(reports, registered[0], tiny_package, dark[ACCEPTED])
    assert load(registered[1], tmp_path, reports, images)[0].accepted_rows == 400
    assert accepted.withdraw(reports, registered[undone])
    assert load(registered[1], tmp_path, reports, images)[0].accepted_rows == 0
    assert load(registered[0], tmp_path, reports, images)[0].accepted_rows == (400 if undone else 0)
    assert not accepted.withdraw(reports, registered[undone])


@pytest.mark.slow
def test_the_drift_flow_alarms_no_more_for_the_next_version(
    tiny_package: Package, retrained: Package, dark: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path / "machine")
    monkeypatch.setenv("FASHION_HOME", str(machine.root))
    machine.connect()
    experiment = tracking.get_or_create_experiment(current_home(), "fashion")
    first, second = (register(experiment, each) for each in (tiny_package, retrained))
    images = open_store(current_home().images)
    for image in dark[ACCEPTED]:
        image_store.put(images, image, image_store.digest(image))
    append(machine, first, tiny_package, dark[ACCEPTED])
    words = ("run", "source=auto", "report.examples=0", "report.rows=100", "decision.resplits=0")
    said = machine.flow(*words, "rows=400", name="drift_flow", seconds=200)
    assert "version 1: drift" in said
    (report,) = [path.parent.name for path in (machine.root / "reports").glob("*/result.json")]
    accepting = machine.python("-m", "fashion", "drift", "accept", report)
    assert accepting.returncode == 0, accepting.stderr
    append(machine, second, retrained, dark[LATER])
    said = machine.flow(*words, "rows=400", name="drift_flow", seconds=200)
    assert "version 2 is compared with 400 rows that were accepted of version 1, predicted anew" in said
    assert "version 2: no_drift" in said


def append(machine: Machine, model: ModelId, of: Package, pictures: Images) -> None:
    """Log what a version says of pictures."""
    found, now_us = Predictor(of).predict(pictures), time.time_ns() // 1000
    with PredictionLog(machine.root / "predictions.db") as log:
        log.append(
            PredictionRecord(
                new_prediction_id(),
                now_us - len(pictures) + row,
                model.version,
                "champion",
                int(found.labels[row]),
                float(found.confidences[row]),
                tuple(found.probabilities[row].tolist()),
                tuple(found.statistics[row].tolist()),
                tuple(found.embeddings[row].tolist()),
                image_store.digest(image),
                1.0,
                model_name=model.name,
                model_digest=model.digest,
            )
            for row, image in enumerate(pictures)
        )
