"""Each flow, stopped or killed in each of its steps and resumed each time: it ends once and leaves nothing open.

Each step gets one kind of signal; with FASHION_TEST_SIGNALS=all each step gets each kind, in six runs of each flow.
"""

import os
import shlex
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from support import signals
from support.answers import answered
from support.machine import ROWS, Machine
from support.signals import Stop, Swept

from fashion.data.dataset import Dataset
from fashion.home import current_home
from fashion.images import image_store
from fashion.images.corruptions import corrupt
from fashion.model.package import Package
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import REVIEW, Feedback
from fashion.registry import champions, tracking, versions
from fashion.storage.address import open_store

KINDS = len(signals.KINDS)
SHIFTS = range(KINDS if os.environ.get("FASHION_TEST_SIGNALS") == "all" else 1)
TRAINING = [f"data.limit={ROWS}", "training.num_epochs=1"]
BRIGHT_ROWS = 400

pytestmark = pytest.mark.slow


@pytest.fixture
def machine(tmp_path: Path, migrated_database: Path) -> Iterator[Machine]:
    """A machine with a temporary folder of its own, whose flows Ctrl-C reaches."""
    machine = Machine(tmp_path / "var")
    shutil.copy(migrated_database, machine.root / "mlflow.db")
    (tmp_path / "tmp").mkdir()
    machine.environment["TMPDIR"] = str(tmp_path / "tmp")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    yield machine
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def serving(
    machine: Machine, tiny_package: Package, small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> Machine:
    """The machine with a champion that has answered bright pictures, and with labels that show its decline."""
    monkeypatch.setenv("FASHION_HOME", str(machine.root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{machine.root / 'mlflow.db'}")
    tracking.connect(current_home())
    run = tracking.start_run(tracking.get_or_create_experiment(current_home(), "fashion"), "tiny", {})
    assert tiny_package.folder is not None
    address = versions.log_package(run, tiny_package.folder)
    tracking.finish_run(run)
    champions.promote(versions.register(address, run_id=run, tags={}), reason="to be watched")
    test, images = small_dataset.test, open_store(str(machine.root / "images"))
    pictures = corrupt(test.images[:BRIGHT_ROWS], "brightness", 0.4, seed=1)
    found = answered(tiny_package, "1", pictures)
    with PredictionLog(machine.root / "predictions.db") as log:
        log.append(found)
        labelled = zip(found, test.labels, strict=False)
        log.append_feedback(Feedback(each.prediction_id, int(label), REVIEW, each.time_us) for each, label in labelled)
    for each, picture in zip(found, pictures, strict=True):
        image_store.put(images, picture, each.image_sha256)
    return machine


def top_runs(machine: Machine, experiment: str = "fashion") -> list[Any]:
    """MLflow runs that are nested under no other, in the order that they were begun in."""
    client: MlflowClient = machine.connect()
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id], order_by=["attributes.start_time"])
    return [run for run in runs if "mlflow.parentRunId" not in run.data.tags]


def check_once(swept: Swept, stops: list[Stop]) -> None:
    """Each step was stopped, and each of its tasks finished once: no `resume` did anything again."""
    assert [step for step, _, _ in swept.rows] == [stop.step for stop in stops]
    for stop in stops:
        assert swept.finished(stop.step) == stop.tasks, (stop.step, swept.rows)


@pytest.mark.fault("each step of TrainFlow is stopped or killed: Ctrl-C, SIGTERM, SIGHUP, kill -9, of a task or of all")
@pytest.mark.parametrize("shift", SHIFTS)
def test_a_training_stopped_in_each_step_is_one_run_and_one_version(machine: Machine, shift: int) -> None:
    stops = [
        Stop("start", "fashion.registry.tracking:log_dataset"),
        Stop("plan", "fashion.training.tuning:create_study", "after", retried=False),
        Stop("tune", "fashion.training.objective:Objective.__call__"),
        Stop("collect", "fashion.registry.tracking:log_trials", "after"),
        Stop("train", "fashion.training.checkpoint:save", "after"),
        Stop("evaluate", "fashion.registry.versions:log_package", "after"),
        Stop("register", "fashion.registry.versions:register", "after"),
        Stop("end"),
    ]
    words = [*TRAINING, "tuning.num_trials=1", "tuning.num_workers=1", "tuning.num_epochs=1"]
    swept = signals.sweep(machine, "train_flow", words, stops, shift=shift)
    check_once(swept, stops)
    (run,) = top_runs(machine)
    assert run.info.status == "FINISHED"
    assert [each.number for each in versions.list_versions()] == [1]
    experiment = machine.connect().get_experiment_by_name("fashion").experiment_id
    assert len(machine.connect().search_logged_models([experiment])) == 1


@pytest.mark.fault("each step of DeployFlow is stopped or killed")
@pytest.mark.parametrize("shift", SHIFTS)
def test_a_deployment_stopped_in_each_step_is_one_bento(serving: Machine, shift: int) -> None:
    stops = [
        Stop("start", "fashion.registry.versions:fetch", "after"),
        Stop("build", "bentos.building:_copy_sources", "after"),
        Stop("rollout"),
        Stop("end", retried=False),
    ]
    swept = signals.sweep(serving, "deploy_flow", ["serve.gallery=0"], stops, shift=shift + 2)
    check_once(swept, stops)
    for kind in ("models", "bentos"):
        stored = [path for path in (serving.root / "bentoml" / kind).glob("*/*") if path.is_dir()]
        assert len(stored) == 1, stored


@pytest.mark.fault("each step of DriftFlow is stopped or killed, the training that it starts too")
@pytest.mark.parametrize("shift", SHIFTS)
def test_a_drift_flow_stopped_in_each_step_reports_once(serving: Machine, shift: int) -> None:
    stops = [
        Stop("start", "fashion.drift.belief:check_sources"),
        Stop("divide", retried=False),
        Stop("count", "fashion.drift.inspection:count", tasks=2),
        Stop("join", "fashion.drift.inspection:decide"),
        Stop("report", "fashion.drift.reports:publish", "after"),
        Stop("act", "fashion.drift.catch_up:record_end"),
        Stop("retrain", "fashion.training.checkpoint:save", "after", inside="train_flow/train", retried=False),
        Stop("end", retried=False),
    ]
    training = shlex.join(["tuning=off", *TRAINING])
    words = ["window=7d", "workers=2", "report.examples=0", "decision.resplits=0"]
    words += ["retrain.enabled=true", f"retrain.overrides='{training}'", "retrain.deploy=false"]
    swept = signals.sweep(serving, "drift_flow", words, stops, shift=shift + 1)
    check_once(swept, stops)
    assert {run.info.status for run in top_runs(serving)} <= {"FINISHED", "KILLED"}
    reported = top_runs(serving, "fashion-drift")
    assert [run.info.status for run in reported] == ["FINISHED"] * len(reported)
    assert len(list((serving.root / "reports").glob("*-v1"))) == 1
    assert [each.number for each in versions.list_versions()] == [2, 1]


@pytest.mark.fault("each step of PredictFlow is stopped or killed")
@pytest.mark.parametrize("shift", SHIFTS)
def test_a_prediction_flow_stopped_in_each_step_writes_one_file(
    serving: Machine, pngs: list[bytes], tmp_path: Path, shift: int
) -> None:
    import pyarrow.parquet as pq

    (tmp_path / "pictures").mkdir()
    for number, png in enumerate(pngs[:10]):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(png)
    stops = [
        Stop("start", "fashion.model.bulk:find_pictures", "after", retried=False),
        Stop("predict", "fashion.model.bulk:predict"),
        Stop("join", "fashion.model.bulk:write", retried=False),
        Stop("end", retried=False),
    ]
    output = tmp_path / "output" / "predictions.parquet"
    words = ["--images", str(tmp_path / "pictures"), "--output", str(output)]
    swept = signals.sweep(serving, "predict_flow", words, stops, shift=shift + 3)
    check_once(swept, stops)
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    assert pq.read_table(output).num_rows == 10
