"""What a training leaves in MLflow: its data, its metrics by model and data set, an example, a card; and it serves."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pytest
from conftest import evaluate_network
from mlflow import MlflowClient
from support.mlflow_server import wait_for_answer
from support.served import free_port

from fashion.config.names import MODEL_NAME
from fashion.config.schema import DataConfig
from fashion.data import manifest
from fashion.data.dataset import Dataset
from fashion.evaluation import run_record
from fashion.evaluation.scoring import Evaluation
from fashion.home import Home
from fashion.registry import model_card, tracking, versions


@pytest.fixture(scope="module")
def evaluation(tiny_network: bytes, small_dataset: Dataset) -> object:
    return evaluate_network(tiny_network, small_dataset)


@pytest.fixture
def logged(mlflow_home: Home, evaluation: object, small_dataset: Dataset, data_config: DataConfig) -> tuple[str, str]:
    """A run and its model's address, as TrainFlow logs them."""
    experiment = tracking.get_or_create_experiment(mlflow_home, "fashion")
    params = {"data": {"manifest": "configs/data/fashion_mnist.manifest.json"}}
    version = manifest.read(data_config)
    run = run_record.start(
        experiment, "tiny 1", tags={}, params=params, version=version, dataset=small_dataset, feedback=None
    )
    return run, run_record.log_evaluation(run, evaluation, small_dataset)  # type: ignore[arg-type]


def test_a_run_names_its_three_splits_and_its_data_version(logged: tuple[str, str], small_dataset: Dataset) -> None:
    run = MlflowClient().get_run(logged[0])
    contexts = {each.dataset.name: each.tags[0].value for each in run.inputs.dataset_inputs}
    assert contexts == {f"fashion-mnist {each}": each for each in ("training", "validation", "test")}
    assert {each.dataset.digest for each in run.inputs.dataset_inputs} == {small_dataset.digest[:36]}
    assert run.data.tags["data.digest"] == small_dataset.digest
    recorded = tracking.read_file(logged[0], run_record.MANIFEST)
    assert recorded is not None
    assert manifest.parse(recorded.decode()).digest == small_dataset.digest


def test_metrics_belong_to_the_model_and_to_the_split_that_they_were_measured_on(
    logged: tuple[str, str], evaluation: object
) -> None:
    run, address = logged
    model = MlflowClient().get_logged_model(versions.model_id_of(address))
    found = {each.key: (each.dataset_name, each.value) for each in model.metrics}
    measured = evaluation.package.metrics  # type: ignore[attr-defined]
    assert found["test/accuracy"] == ("fashion-mnist test", measured["test/accuracy"].value)
    assert found["val/accuracy_exported"] == ("fashion-mnist validation", measured["val/accuracy"].value)
    assert found["latency_ms/p50"][0] is None
    assert len(found) == len(measured)
    assert "val/accuracy" not in MlflowClient().get_run(run).data.metrics  # the curve of the epochs stays as it was


def test_the_curves_points_of_the_models_epoch_belong_to_the_split_that_they_were_measured_on(
    mlflow_home: Home, evaluation: Evaluation, small_dataset: Dataset
) -> None:
    run = tracking.start_run(tracking.get_or_create_experiment(mlflow_home, "fashion"), "tiny 1", {})
    for step in (1, 2, 3):
        losses = {"train/loss": 1 / step, "val/loss": 2 / step, "val/accuracy": step / 4}
        tracking.log_metrics(run, losses, step=step, time_ms=1000 * step)
    training = {**evaluation.package.training, "best_epoch": 2}
    best = dataclasses.replace(evaluation, package=dataclasses.replace(evaluation.package, training=training))
    address = run_record.log_evaluation(run, best, small_dataset)
    model = MlflowClient().get_logged_model(versions.model_id_of(address))
    found = {each.key: (each.dataset_name, each.step, each.value) for each in model.metrics or ()}
    assert found["train/loss"] == ("fashion-mnist training", 2, 0.5)
    assert found["val/loss"] == ("fashion-mnist validation", 2, 1.0)
    assert found["val/accuracy"] == ("fashion-mnist validation", 2, 0.5)
    curve = MlflowClient().get_metric_history(run, "train/loss")
    assert [(each.step, each.value) for each in curve] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]  # as it was


def test_the_model_holds_an_example_of_its_input_that_it_answers(
    logged: tuple[str, str], small_dataset: Dataset, evaluation: object
) -> None:
    model = mlflow.pyfunc.load_model(logged[1])
    np.testing.assert_array_equal(model.input_example, small_dataset.test.images[: run_record.EXAMPLES])
    expected = evaluation.test.probabilities[: run_record.EXAMPLES]  # type: ignore[attr-defined]
    np.testing.assert_allclose(model.predict(model.input_example), expected, atol=1e-5)


def test_the_card_says_what_it_is_how_good_on_which_data_and_why_it_was_promoted(logged: tuple[str, str]) -> None:
    run, address = logged
    card = MlflowClient().get_run(run).data.tags["mlflow.note.content"]
    assert "**tiny** tells 10 classes of pictures of clothes apart: 28 x 28 pixels, grey." in card
    assert "of 1,000 test pictures" in card
    assert "| Data | fashion-mnist, version `" in card
    version = versions.register(address, run_id=run, tags={"promoted.reason": "nothing to compare with"})
    model_card.write(version)
    described = MlflowClient().get_model_version(MODEL_NAME, "1").description
    assert described == f"{card}\n\n## Decisions\n\n- Promoted: nothing to compare with"


@pytest.mark.slow
@pytest.mark.ci
def test_mlflow_serves_the_model_as_it_serves_models(logged: tuple[str, str], tmp_path: Path) -> None:
    _, address = logged
    example = Path(mlflow.artifacts.download_artifacts(address), "serving_input_example.json").read_bytes()
    port = free_port()
    words = ["models", "serve", "-m", address, "--port", str(port), "--env-manager", "local"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [str(Path(sys.executable).with_name("mlflow")), *words],
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        )
    try:
        wait_for_answer(f"http://127.0.0.1:{port}/ping", server, tmp_path / "log")
        request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", example)
        request.add_header("Content-Type", "application/json")
        answers = json.load(urllib.request.urlopen(request))["predictions"]
        assert np.shape(answers) == (run_record.EXAMPLES, 10)
        assert np.sum(answers, axis=1) == pytest.approx(1)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
